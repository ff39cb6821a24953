"""What the report says of an evaluation: the verdict on self-play, tables of every kind, intervals on one scale."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medserl.reports.html import write_report
from medserl.reports.intervals import ROOM, panels
from tests.report_page import Page
from tests.synthetic_run import add_official, comparison, write_run


def test_validation_stands_in_for_an_evaluation(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    for file in (run / "eval").iterdir():
        file.unlink()
    text = Page(write_report(run)).text
    assert "Whether self-play made a difference was not tested: held-out accuracy" in text
    assert "no interval was computed. Judged rightly on the validation notes:" in text


def write_table(run: Path, rows: list[dict[str, object]]) -> None:
    (run / "eval").mkdir(exist_ok=True)
    (run / "eval" / "table.json").write_text(json.dumps(rows), encoding="utf-8")


def measured(system: str, value: float | None, figure: str = "accuracy", reach: float = 0.05) -> dict[str, object]:
    ends = {"low": None, "high": None} if value is None else {"low": value - reach, "high": value + reach}
    return {"system": system, "figure": figure, "value": value, "n": 400, **ends}


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (0.5, 0.7, "Self-play made the model better at finding errors: held-out accuracy 50.0 % → 70.0 %"),
        (0.7, 0.5, "Self-play made the model worse at finding errors: held-out accuracy 70.0 % → 50.0 %"),
        (0.5, 0.55, "Whether self-play made a difference was not tested: held-out accuracy 50.0 % → 55.0 %"),
    ],
)
def test_without_a_paired_test_only_intervals_that_lie_apart_decide(
    tmp_path: Path, before: float, after: float, told: str
) -> None:
    run = write_run(tmp_path / "run", rounds=1, games=2, evaluation=False)
    write_table(run, [measured("base", before), measured("trained", after)])
    text = Page(write_report(run)).text
    assert told in text
    assert "by the base model" in text
    assert ("the intervals overlap" in text) is (after == 0.55)


@pytest.mark.parametrize(
    ("difference", "p_value", "told"),
    [
        (0.05, 0.01, "Self-play made the model better at finding errors"),
        (-0.05, 0.01, "Self-play made the model worse at finding errors"),
        (0.05, 0.06, "Self-play made no difference that can be told from chance"),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_the_paired_test_decides_whichever_system_it_took_first(
    tmp_path: Path, difference: float, p_value: float, told: str, turned: bool
) -> None:
    run = write_run(tmp_path / "run", rounds=1, games=2)
    row = comparison("warmup", "texts", -difference if turned else difference, p_value)
    if turned:
        row |= {"system": "warmup", "against": "trained"}
    (run / "eval" / "comparisons.json").write_text(json.dumps([row]), encoding="utf-8")
    text = Page(write_report(run)).text
    assert told in text
    low, high = 100 * difference - 8, 100 * difference + 8
    points = f"{100 * difference:+.1f} points ({low:.1f} to {high:.1f})".replace("-", "−")
    assert f"warmed-up model {points} p = {p_value}" in text


def test_the_best_checkpoint_stands_for_the_trained_model_where_it_alone_was_judged(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rounds=1, games=2, evaluation=False)
    write_table(run, [measured("base", 0.5), measured("best", 0.7)])
    assert "70.0 % (95 % interval 65.0–75.0 %) by the best checkpoint." in Page(write_report(run)).text
    write_table(run, [measured("base", 0.5), measured("best", 0.7), measured("trained", 0.6)])
    assert "60.0 % (95 % interval 55.0–65.0 %) by the trained model." in Page(write_report(run)).text


@pytest.mark.parametrize(
    ("flagged", "silent", "told"),
    [
        (0.93, 0.0, "Careful: it answers INCORRECT to 93 % of the texts"),
        (0.02, 0.03, "Careful: it answers CORRECT to 95 % of the texts"),
        (0.01, 0.9, "Careful: it has no answer to 90 % of the texts"),
        (0.6, 0.1, None),
    ],
)
def test_a_model_that_always_says_the_same_is_no_judge(
    tmp_path: Path, flagged: float, silent: float, told: str | None
) -> None:
    run = write_run(tmp_path / "run", rounds=1, games=2, evaluation=False)
    rates = [measured("trained", flagged, "flag_rate"), measured("trained", silent, "no_verdict_rate")]
    write_table(run, [measured("base", 0.5), measured("trained", 0.5), *rates])
    text = Page(write_report(run)).text
    assert ("Careful" in text) is (told is not None)
    assert told is None or told in text


def test_official_scores_threshold_and_parts_are_shown(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rounds=1, games=2)
    plain = Page(write_report(run)).text
    assert "official scores" not in plain
    assert "threshold" not in plain
    add_official(run / "eval")
    text = Page(write_report(run)).text
    for words in (
        "MEDEC's official scores 120 published texts",
        "sentence accuracy subtask B: which sentence; −1 where none 31.0 % 26.0–36.0 %",
        "ROUGE-1 composite all texts; 1 where both sides see nothing to correct 41.0 %",
        "Left out: BERTScore, AggregateScore (no local checkpoint was given).",
        "Verdicts by a threshold on P(INCORRECT)",
        "chosen on validation notes 0.37 0.37 0.37 0.37 balanced accuracy",
        "Accuracy by error type",
        "All figures by part of the texts (2 tables)",
        "official scores: MS (120 texts)",
        "200 labelled texts of test.jsonl; below each figure",
        "evaluation.options.subtasks ABC",
        "evaluation.texts.sha256 4f1c",
    ):
        assert words in text
    assert "evaluation.official" not in text


def test_figures_that_nobody_described_are_shown_all_the_same(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rounds=1, games=2, evaluation=False)
    write_table(run, [measured("mine <b>", 0.25, "some_new_figure")])
    assert "mine <b> some new figure 25.0 % 20.0–30.0 %" in Page(write_report(run)).text


def test_systems_stand_in_the_order_of_training_and_baselines_last(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rounds=1, games=2)
    assert "Figure base model warmed-up model trained model majority answer" in Page(write_report(run)).text


def test_dots_and_intervals_lie_on_one_scale() -> None:
    rows = [measured("base", 0.4, "pairwise_accuracy", 0.1), measured("trained", 0.6, "pairwise_accuracy", 0.1)]
    (panel,) = panels([*rows, measured("base", 0.5), measured("trained", None)])  # a single accuracy is no comparison
    low, high = 0.25 - ROOM, 0.7 + ROOM  # from chance to the outermost end

    def place(share: float) -> float:
        return 100 * (share - low) / (high - low)

    assert panel.chance == pytest.approx(place(0.25), abs=0.01)
    for mark, value in zip(panel.marks, (0.4, 0.6), strict=True):
        assert (mark.start, mark.dot) == pytest.approx((place(value - 0.1), place(value)), abs=0.01)
        assert mark.width == pytest.approx(place(value + 0.1) - place(value - 0.1), abs=0.02)
    assert all(0 <= tick.place <= 100 for tick in panel.ticks)
    assert [tick.label for tick in panel.ticks] == ["40\u00a0%", "60\u00a0%"]


def test_at_most_two_panels_the_ones_that_say_most() -> None:
    figures = ("balanced_accuracy", "accuracy", "pairwise_accuracy")
    rows = [measured(system, 0.5, figure) for figure in figures for system in ("base", "trained")]
    assert [panel.title for panel in panels(rows)] == ["Accuracy", "Pairs right"]
    assert [panel.title for panel in panels(rows[:4])] == ["Accuracy", "Balanced accuracy"]
    assert panels([]) == []
