"""`medserl evaluate` from flags to files, with a scripted reader in the model's place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medserl.cli import main
from medserl.evaluation import evaluate as evaluate_module
from medserl.evaluation import systems
from medserl.evaluation.checkpoint_metrics import Scorers
from medserl.reports.html import write_report
from tests.evaluating import NoModel, Result, error_line, evaluate, evaluate_to, medec_test
from tests.poisonings import LONE, PAIRS, Reader, write_notes
from tests.report_page import Page
from tests.synthetic_run import write_run

# -- models ------------------------------------------------------------------------------------------------


def test_flags_of_both_twins(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluate(tmp_path, data, "--compare", "base", "warmup")
    n = 2 * PAIRS + LONE
    assert [row["system"] for row in found.table if row["figure"] == "accuracy" and row["group"] == "all"] == [
        *("always-incorrect", "always-correct", "coin", "tf-idf", "base", "warmup")
    ]
    assert found.figures["warmup", "accuracy"] == (n - 1) / n
    assert found.figures["warmup", "pairwise_accuracy"] == (PAIRS - 1) / PAIRS
    assert found.figures["warmup", "flag accuracy"] == (PAIRS + LONE - 1) / (PAIRS + LONE)
    assert found.record["texts"] | {"sha256": ""} == {
        **{"sha256": "", "n": n, "errors": PAIRS, "published_only": False, "sample": False},
        **{"notes": {"judged": PAIRS + LONE, "training": PAIRS + LONE, "in_both": 0}, "fitted_on": n, "held_out": 0},
    }
    assert found.group("error_type=diagnosis")["base", "recall"] == 5 / 6
    assert found.group("length=100-149 words")["base", "recall"] == 1
    for heading in (
        "## By error type",
        "## By length",
        "## All comparisons",
        "## Official scores (MEDIQA-CORR 2024), 16",
    ):
        assert heading in found.markdown
    assert found.figures["warmup", "pair_ordering"] == found.figures["warmup", "auroc"] == 1  # patient 0's twins too
    assert found.figures["warmup", "right_minus_reversed"] == (PAIRS - 1) / PAIRS
    assert found.figures["coin", "pair_ordering"] == 0.5
    assert "## Told apart, whatever a system is inclined to say" in found.markdown
    assert "warmup is not distinguishable from base in pairs right (p = 1.00)." in capsys.readouterr().out


def test_the_base_model_can_be_judged_on_a_sample(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its figures are of the sample, both twins of each note; others are compared with it on these texts alone."""
    found = evaluate(tmp_path, data, "--compare", "base", "warmup", "--base-notes", "5")
    said = {
        name: [json.loads(line) for line in (found.folder / f"{name}.predictions.jsonl").read_text().splitlines()]
        for name in ("base", "warmup")
    }
    drawn = {row["text_id"] for row in said["base"]}
    assert drawn < {row["text_id"] for row in said["warmup"]} and len(said["warmup"]) == 2 * PAIRS + LONE
    notes = {text.removesuffix("-corrected") for text in drawn}
    assert len(notes) == 5
    assert drawn == {row["text_id"] for row in said["warmup"] if row["text_id"].removesuffix("-corrected") in notes}
    counts = {row["system"]: row["n"] for row in found.table if (row["group"], row["figure"]) == ("all", "accuracy")}
    assert counts["base"] == len(drawn) and counts["warmup"] == counts["coin"] == 2 * PAIRS + LONE
    assert found.record["no_verdict"]["base"] == {}
    comparisons = json.loads((found.folder / "comparisons.json").read_text())
    of_texts = {(row["system"], row["against"]): row["n"] for row in comparisons if row["unit"] == "texts"}
    assert of_texts["warmup", "base"] == len(drawn)
    assert f"| base, n = {len(drawn)} |" in found.markdown
    assert f"base was asked about a sample of {len(drawn)} of the {2 * PAIRS + LONE} texts" in found.markdown
    assert "--base-notes -1: give 0 or more" in error_line(capsys, "--base-notes", "-1")


def test_submissions_name_the_published_texts(tmp_path: Path, data: Path) -> None:
    folder = evaluate(tmp_path, data).folder
    lines = (folder / "warmup.submission.txt").read_text().splitlines()
    assert len(lines) == PAIRS + LONE
    assert lines[0] == "ms-0 0 -1 NA"
    assert lines[1] == 'ms-1 1 1 "She is given aspirin."'
    assert lines[-1] == "ms-15 0 -1 NA"
    assert {path.name.partition(".")[0] for path in folder.glob("*.submission.txt")} == {"tf-idf", "warmup"}
    assert len((folder / "warmup.predictions.jsonl").read_text().splitlines()) == 2 * PAIRS + LONE


def test_all_three_subtasks_are_scored(tmp_path: Path, data: Path) -> None:
    found = evaluate(tmp_path, data)
    n = PAIRS + LONE
    assert found.figures["warmup", "sentence accuracy"] == (n - 1) / n
    same = 2 / (2 + 1e-8)  # the rouge package's F of equal sentences
    assert found.figures["warmup", "ROUGE-1"] == pytest.approx(same, abs=1e-9)
    assert found.figures["warmup", "ROUGE-L composite"] == pytest.approx((LONE + (PAIRS - 1) * same) / n, abs=1e-9)
    assert found.figures["coin", "ROUGE-1 composite"] == LONE / n  # it corrects nothing
    assert found.record["official"]["warmup"]["all"] | {"left_out": {}} == {
        **{"n_texts": n, "n_predicted": n, "n_both_corrected": PAIRS - 1, "n_both_na": LONE, "left_out": {}}
    }
    assert "left out: BERTScore (no local checkpoint" in found.markdown


def test_model_based_scores_come_from_local_checkpoints(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*folders: Path) -> Scorers:
        assert folders == (tmp_path, tmp_path)
        return Scorers({name: lambda said, correct: [0.5] * len(said) for name in ("BERTScore", "BLEURT")})

    monkeypatch.setattr(evaluate_module, "load_scorers", load)
    found = evaluate(tmp_path, data, "--bertscore", tmp_path, "--bleurt", tmp_path)
    assert found.figures["warmup", "BERTScore"] == 0.5
    assert found.figures["warmup", "AggregateScore"] == pytest.approx((2 / (2 + 1e-8) + 1) / 3, abs=1e-9)
    assert "left out" not in found.markdown


def test_published_texts_alone(tmp_path: Path, data: Path) -> None:
    found = evaluate(tmp_path, data, "--published-only")
    assert found.record["texts"]["n"] == PAIRS + LONE
    assert found.figures["warmup", "accuracy"] == found.figures["warmup", "flag accuracy"]
    assert ("warmup", "pairwise_accuracy") not in found.figures
    assert found.figures["always-incorrect", "accuracy"] == PAIRS / (PAIRS + LONE)


def test_a_limit_draws_notes_by_the_seed(tmp_path: Path, data: Path) -> None:
    drawn = [evaluate(tmp_path, data, "--limit", 4, "--seed", seed).record["texts"]["sha256"] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_several_samples_are_asked_for(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Counting(Reader):
        def generate(self, prompts: Any, sampling: Any) -> Any:
            asked.append(len(prompts))
            return super().generate(prompts, sampling)

    monkeypatch.setattr(systems, "create_inference_engine", Counting)
    found = evaluate(tmp_path, data, "--samples", 3)
    assert sum(asked) == 3 * (2 * PAIRS + LONE)
    assert found.record["options"]["samples"] == 3


def test_a_second_evaluation_asks_nothing_again(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = evaluate_to(tmp_path / "out", tmp_path, data)
    monkeypatch.setattr(systems, "create_inference_engine", lambda settings: NoModel())
    assert evaluate_to(tmp_path / "out", tmp_path, data).table == first.table


def test_a_runs_settings_are_used_but_for_those_given(tmp_path: Path, data: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    train = write_notes(tmp_path / "train.jsonl", 300)
    (run / "config.toml").write_text(f'prompts = "full"\nprompt_data = "{train}"\nseed = 7\n', encoding="utf-8")
    main(["evaluate", "--run", str(run), "--compare", "base", "--data", str(data), "--thinking"])
    record = Result(run / "eval").record
    assert record["files"]["train"]["name"] == "train.jsonl"
    kept = {key: record["systems"]["base"][key] for key in ("prompts", "seed", "thinking", "engine")}
    assert kept == {"prompts": "full", "seed": 7, "thinking": True, "engine": "scripted"}


def test_a_folder_can_be_named(tmp_path: Path, data: Path) -> None:
    for run in ("a", "b"):
        (tmp_path / run / "round_5").mkdir(parents=True)
        (tmp_path / run / "round_5" / "adapter_config.json").write_text("{}")
    paths = [f"{tmp_path}/{run}/round_5" for run in ("a", "b")]
    found = evaluate(tmp_path, data, "--compare", paths[0], f"second={paths[1]}")
    assert found.record["systems"]["round_5"]["adapter"] == paths[0]
    assert found.record["systems"]["second"]["adapter"] == paths[1]


# -- probabilities -----------------------------------------------------------------------------------------


def test_a_threshold_is_chosen_on_validation_notes(tmp_path: Path, data: Path) -> None:
    validation = write_notes(tmp_path / "validation.jsonl", 100)
    found = evaluate(tmp_path, data, "--thresholds", "--validation-data", validation)
    n = 2 * PAIRS + LONE
    chosen = {"value": 0.25, "recall": 1.0, "specificity": 1.0, "n": n, "source": ""}
    uncalibrated = {"slope": 1.0, "intercept": 0.0, "brier_before": None, "brier": None}
    assert found.record["thresholds"]["warmup"] == chosen | uncalibrated
    assert found.figures["warmup", "threshold"] == 0.25
    assert found.figures["warmup", "threshold_accuracy"] == 1.0  # the verdicts miss patient 0
    assert found.figures["warmup", "accuracy"] == (n - 1) / n
    brier = (PAIRS * 0.6**2 + (PAIRS + LONE) * 0.1**2) / n
    assert found.figures["warmup", "brier"] == pytest.approx(brier)
    ece = (PAIRS * 0.6 + (PAIRS + LONE) * 0.1) / n
    assert found.figures["warmup", "ece"] == pytest.approx(ece)
    assert f"best balanced accuracy on {n} texts of validation.jsonl, none of which is judged here" in found.markdown


def test_no_threshold_is_chosen_on_judged_notes(tmp_path: Path, data: Path) -> None:
    found = evaluate(tmp_path, data, "--thresholds", "--validation-data", data)
    assert found.record["thresholds"] == {}
    assert "no threshold: no validation notes of both classes besides the judged ones" in found.markdown
    assert found.figures["warmup", "brier"] is not None
    some = evaluate(tmp_path, data, "--thresholds", "--validation-data", data, "--limit", 6)
    assert some.record["texts"]["held_out"] > 0  # six of the notes that are not judged


def test_no_validation_notes_no_threshold(tmp_path: Path, data: Path) -> None:
    found = evaluate(tmp_path, data, "--thresholds", "--validation-data", "none")
    assert "no threshold" in found.markdown
    assert ("warmup", "threshold") not in found.figures


def test_thresholds_are_chosen_on_twins_where_the_published_texts_all_have_an_error(tmp_path: Path, data: Path) -> None:
    notes = write_notes(tmp_path / "pairs.jsonl", 100).read_text().splitlines(keepends=True)[:PAIRS]
    (tmp_path / "pairs.jsonl").write_text("".join(notes))
    found = evaluate(tmp_path, data, "--published-only", "--thresholds", "--validation-data", tmp_path / "pairs.jsonl")
    assert found.record["texts"]["held_out"] == 2 * PAIRS
    assert found.record["thresholds"]["warmup"]["value"] == 0.25


def test_the_report_shows_all_that_an_evaluation_wrote(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rounds=1, games=2, evaluation=False)
    held_out = write_notes(tmp_path / "validation.jsonl", 100)
    flags = ("--thresholds", "--validation-data", held_out)
    found = evaluate_to(run / "eval", tmp_path, medec_test(tmp_path / "medec.csv"), *flags)
    text = Page(write_report(run)).text
    assert "18 labelled texts of medec.csv" in text
    assert "MEDEC's official scores 12 texts" in text
    assert "Left out: BERTScore (no local checkpoint of microsoft/deberta-xlarge-mnli was given)." in text
    threshold = text.partition("Verdicts by a threshold on P(INCORRECT)")[2]
    assert "chosen on validation notes" in threshold.partition("By part of the texts")[0]
    assert "All figures by part of the texts" in text
    for part in ("collection: MS", "official scores: UW"):
        assert part in text
    for name, value in {(row["figure"], row["value"]) for row in found.table if row["system"] == "tf-idf"}:
        assert value is None or f"{100 * value:.1f}" in text or f"{value:.2f}" in text, name
    assert "Others" not in text  # every figure has a heading and a meaning
