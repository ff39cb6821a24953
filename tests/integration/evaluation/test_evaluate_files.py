"""`medserl evaluate` with predictions from files, and what it cannot be asked for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from medserl.evaluation import systems
from tests.evaluating import NoModel, error_line, evaluate, medec_test

# -- predictions from files --------------------------------------------------------------------------------


SUBMISSION = """\
ms-test-1 1 1 "She is given aspirin."
uw-test-0 0 -1 NA
uw-test-3 1 1 She is given morphine.
what is this
ms-test-2 0 4 ignored
ms-test-5 1 -1 NA
ms-test-4 01 -1 NA
ms-test-99 0 -1 NA
ms-test-7 1 1 She is given poison.
ms-test-7 0 1 It is flu.
"""


def test_a_submission_is_scored_without_any_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(systems, "create_inference_engine", lambda settings: NoModel())
    (tmp_path / "run.txt").write_text(SUBMISSION)
    found = evaluate(tmp_path, medec_test(tmp_path / "test.csv"), "--predictions", tmp_path / "run.txt")
    assert found.record["systems"] == {"run": {"file": str(tmp_path / "run.txt")}}
    assert (found.record["texts"]["n"], found.record["files"]["judged"]["rows_skipped"]) == (12, 328)
    # right flags: 0, 1, 2, 3, 5; right sentences: 0, 1, 3, 7, and -1 of 4; both NA: 0, 2 and 4
    f = {"ROUGE-1": 2 * 0.75 * 0.75 / (1.5 + 1e-8), "same": 2 / (2 + 1e-8)}
    assert found.figures["run", "flag accuracy"] == pytest.approx(5 / 12)
    assert found.figures["run", "sentence accuracy"] == pytest.approx(5 / 12)
    assert found.figures["run", "ROUGE-1"] == pytest.approx((f["ROUGE-1"] + f["same"]) / 2, abs=1e-9)
    assert found.figures["run", "ROUGE-1 composite"] == pytest.approx((3 + f["ROUGE-1"] + f["same"]) / 12, abs=1e-9)
    assert found.figures["run", "accuracy"] == pytest.approx(5 / 12)
    assert {found.figures[guess, "flag accuracy"] for guess in ("always-incorrect", "always-correct", "coin")} == {0.5}
    apart = {name: found.group(f"collection={name}")["run", "flag accuracy"] for name in ("MS", "UW")}
    assert apart == {"MS": pytest.approx(3 / 8), "UW": pytest.approx(2 / 4)}
    assert "## Official scores by collection" in found.markdown
    assert "test.csv: 328 rows skipped: 168 x no text" in found.markdown
    assert "run: 5 of 12 texts are not predicted and count as wrong ('uw-test-6', 'ms-test-8'," in found.markdown
    log = capsys.readouterr().err
    assert "run.txt: line 4 is malformed" in log
    assert "run.txt: line 10 is about a text that came before" in log
    assert "and 318 rows more were left out" in log


def test_our_predictions_are_scored_as_when_they_were_made(tmp_path: Path, data: Path) -> None:
    made = evaluate(tmp_path, data)
    kept = tmp_path / "copy"
    (made.folder / "warmup.predictions.jsonl").rename(kept.with_suffix(".predictions.jsonl"))
    found = evaluate(tmp_path, data, "--predictions", f"warmup={kept}.predictions.jsonl")
    assert {key: value for key, value in found.figures.items() if key[0] == "warmup"} == {
        key: value for key, value in made.figures.items() if key[0] == "warmup"
    }
    assert found.record["texts"]["published_only"] is False


def test_a_submission_beside_a_model_is_compared_on_published_texts(tmp_path: Path, data: Path) -> None:
    made = evaluate(tmp_path, data)
    kept = made.folder.parent / "kept.submission.txt"
    (made.folder / "warmup.submission.txt").rename(kept)
    found = evaluate(tmp_path, data, "--compare", "base", "--predictions", kept)
    assert found.record["texts"]["published_only"] is True
    assert "kept is not distinguishable from base in texts right (p = 1.00)." in found.markdown


# -- what cannot be done -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--samples", "0"], "--samples 0: give 1 or more"),
        (["--limit", "-1"], "--limit -1: give 0 or more"),
        (["--bertscore", "no/such/folder"], "--bertscore no/such/folder: no such folder"),
        (["--bleurt", "no/such/folder"], "--bleurt no/such/folder: no such folder"),
        (["--compare", "trained"], "--compare trained needs --run"),
        (["--compare", "nobody"], "--compare nobody: neither base, warmup, trained, best nor the folder"),
        (["--compare", "base", "base"], "two systems are called 'base'"),
        (["--compare", "coin=base"], "two systems are called 'coin'"),
        (["--predictions", "none.txt"], "none.txt: cannot be read"),
        (["--run", "no/run"], "no/run: no config.toml"),
        (["--data", "none.jsonl"], "none.jsonl"),
        (["--thresholds", "--validation-data", "none.jsonl"], "none.jsonl"),
    ],
)
def test_options_that_cannot_be_followed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, flags: list[str], expected: str
) -> None:
    assert expected in error_line(capsys, "--output", tmp_path / "eval", *flags)
    assert not (tmp_path / "eval").exists()


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("run.txt", "", "run.txt: no prediction in this file"),
        ("run.txt", "rubbish\n", "run.txt: no prediction in this file"),
        ("run.txt", "nobody 0 -1 NA\n", "run: about none of the judged texts; 'nobody' is not one of their ids"),
        ("p.jsonl", '{"text_id": "ms-0", "verdict": null}\nrubbish\n', "p.jsonl, line 2: no JSON"),
        ("p.jsonl", '{"text_id": "ms-0", "verdict": null}\n' * 2, "'ms-0' occurs twice"),
        ("tf-idf.txt", "ms-0 0 -1 NA\n", "two systems are called 'tf-idf'"),
    ],
)
def test_files_that_cannot_be_scored(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, data: Path, name: str, text: str, expected: str
) -> None:
    (tmp_path / name).write_text(text)
    flags = ["--data", data, "--output", tmp_path / "eval", "--predictions", tmp_path / name]
    assert expected in error_line(capsys, *flags)


def test_an_output_that_cannot_be_written(capsys: pytest.CaptureFixture[str], tmp_path: Path, data: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "run.txt").write_text("ms-0 0 -1 NA\n")
    flags = ["--data", data, "--predictions", tmp_path / "run.txt", "--output", tmp_path / "file" / "eval"]
    assert "cannot be written" in error_line(capsys, *flags)


def test_prompts_that_ask_for_the_flag_alone_have_no_other_scores(tmp_path: Path, data: Path) -> None:
    shipped = Path(systems.__file__).parents[1] / "game" / "prompts" / "term.toml"
    own = re.sub(r'answer = "{3}.*?"{3}', "answer = 'final_answer: $verdict'", shipped.read_text(), flags=re.DOTALL)
    (tmp_path / "own.toml").write_text(own)
    found = evaluate(tmp_path, data, "--prompts", tmp_path / "own.toml")
    assert "left out: sentence accuracy (subtask B was not asked)" in found.markdown
    assert ("warmup", "sentence accuracy") not in found.figures
