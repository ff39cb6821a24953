"""What the report says of an evaluation: the verdict on self-play, tables of every kind, intervals on one scale."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from medserl.reports.html import write_report
from medserl.reports.intervals import ROOM, panels
from tests.report_page import Page
from tests.synthetic_run import add_official, comparison, write_evaluation, write_run


def test_validation_stands_in_for_an_evaluation(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    for file in (run / "eval").iterdir():
        file.unlink()
    text = Page(write_report(run)).text
    assert "Self-play was not tested for the difference it made: accuracy" in text
    assert "on the validation notes (sample notes: invented patients), no interval was computed; it learnt from" in text


def test_validation_on_few_texts_is_told_as_a_count(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    for file in (run / "eval").iterdir():
        file.unlink()
    metrics = run / "metrics.jsonl"
    rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    few = [row | {"eval_accuracy": 0.5, "eval_texts": 6} if "eval_accuracy" in row else row for row in rows]
    metrics.write_text("".join(json.dumps(row) + "\n" for row in few), encoding="utf-8")
    text = Page(write_report(run)).text
    assert "accuracy 3 of 6 → 3 of 6 on the validation notes" in text
    assert "of 6 texts: 3 of 6 by the policy of round 0" in text


def write_table(run: Path, rows: list[dict[str, object]]) -> None:
    (run / "eval").mkdir(exist_ok=True)
    (run / "eval" / "table.json").write_text(json.dumps(rows), encoding="utf-8")


def measured(system: str, value: float | None, figure: str = "accuracy", reach: float = 0.05) -> dict[str, object]:
    ends = {"low": None, "high": None} if value is None else {"low": value - reach, "high": value + reach}
    return {"system": system, "figure": figure, "value": value, "n": 400, **ends}


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (0.5, 0.7, "Self-play made the model better at finding errors: accuracy 50.0 % → 70.0 %"),
        (0.7, 0.5, "Self-play made the model worse at finding errors: accuracy 70.0 % → 50.0 %"),
        (0.5, 0.55, "Self-play was not tested for the difference it made: accuracy 50.0 % → 55.0 %"),
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
        (0.93, 0.0, "Careful: the trained model answers INCORRECT to 93 % of the texts"),
        (0.02, 0.03, "Careful: the trained model answers CORRECT to 95 % of the texts"),
        (0.01, 0.9, "Careful: the trained model has no answer to 90 % of the texts"),
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
        "MEDEC's official scores 120 texts",
        "sentence accuracy subtask B: which sentence; −1 where none 31.0 % 26.0–36.0 %",
        "ROUGE-1 composite all texts; 1 where both sides see nothing to correct 41.0 %",
        "Left out: BERTScore, AggregateScore (no local checkpoint was given).",
        "Verdicts by a threshold on P(INCORRECT)",
        "chosen on validation notes 0.37 0.37 0.37 0.37 balanced accuracy",
        "Accuracy by error type",
        "All figures by part of the texts (2 tables)",
        "official scores: MS (120 texts)",
        "200 labelled texts of test.jsonl; below each figure",
        "evaluation.options.samples 1",
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
    assert [panel.title for panel in panels(rows)] == ["Pairs right", "Accuracy"]
    assert [panel.title for panel in panels(rows[:4])] == ["Accuracy", "Balanced accuracy"]
    assert panels([]) == []


# -- guessing, overlap, and what the judged notes are ------------------------------------------------------


def judged(
    folder: Path, in_both: int = 0, sample: bool = False, finished: str = "2026-01-01", **record: object
) -> None:
    """The record of an evaluation of 20 notes."""
    known = {
        "texts": {"n": 40, "sample": sample, "notes": {"judged": 20, "training": 90, "in_both": in_both}},
        "files": {"judged": {"name": "mine.jsonl"}},
        "options": {},
        "systems": {"warmup": {}, "trained": {}},
        "finished": finished,
    }
    (folder / "evaluation.json").write_text(json.dumps(known | record), encoding="utf-8")


@pytest.mark.parametrize(
    ("in_both", "told", "overlap"),
    [
        (0, "on 40 held-out texts of mine.jsonl,", "Held out: none of the 20 notes is among the 90 training notes."),
        (
            3,
            "on 40 texts of mine.jsonl (3 of their 20 notes are among the training notes),",
            "Not held out: 3 of the 20 notes are among the 90 training notes.",
        ),
    ],
)
def test_only_notes_that_were_not_trained_on_are_called_held_out(
    tmp_path: Path, in_both: int, told: str, overlap: str
) -> None:
    run = write_run(tmp_path / "run", rounds=1, games=2, prompt_data="notes.jsonl")
    judged(run / "eval", in_both)
    text = Page(write_report(run)).text
    assert told in text
    assert text.count(overlap) == 2  # in the summary and beside the table
    assert ("held-out" in text.casefold()) is (in_both == 0)


def test_without_a_record_nothing_is_called_held_out(tmp_path: Path) -> None:
    text = Page(write_report(write_run(tmp_path / "run", rounds=1, games=2))).text
    assert "Whether the judged notes are among the training notes was not recorded" in text
    assert "held-out" not in text.casefold()


@pytest.mark.parametrize(
    ("settings", "recorded", "told"),
    [
        ({"prompt_data": "a.jsonl"}, {}, "held out of the training notes"),
        ({"prompt_data": "a.jsonl"}, {"validation": "split of a.jsonl (12 notes)"}, "split of a.jsonl (12 notes)"),
        ({"prompt_data": "a.jsonl", "validation_data": "sample"}, {}, "sample notes: invented patients"),
        ({"prompt_data": "a.jsonl", "validation_data": "x/val.csv"}, {}, "val.csv"),
        ({}, {}, "sample notes: invented patients"),
    ],
)
def test_the_report_says_what_the_validation_notes_are(
    tmp_path: Path, settings: dict[str, str], recorded: dict[str, str], told: str
) -> None:
    run = write_run(tmp_path / "run", **settings)
    notes = recorded | {"notes": {"judged": 12, "training": 90, "in_both": 2}}
    (run / "provenance.json").write_text(json.dumps({"notes": notes}), encoding="utf-8")
    for file in (run / "eval").iterdir():
        file.unlink()
    text = Page(write_report(run)).text
    assert f"on the validation notes ({told}, of which 2 are among the training notes), no interval" in text
    assert f"The validation notes: {told}. Not held out: 2 of the 12 notes" in text
    assert ("Invented patients" in text) is ("sample" in told)


def test_judging_on_the_sample_alone_has_the_badge_too(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rounds=1, games=2, prompt_data="mine.jsonl")
    judged(run / "eval", sample=True)
    text = Page(write_report(run)).text
    assert "Invented patients, for developing software, not for clinical use (judged on the sample notes)" in text
    assert "(sample notes: invented patients), p = 0.003" in text


def guessed(unit: str, difference: float, p_value: float) -> dict[str, object]:
    return comparison("guessing", unit, difference, p_value)


def test_the_first_words_say_what_the_model_can_do_though_play_changed_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rounds=1, games=2)
    rows = [comparison("warmup", "texts", 0.004, 0.62), guessed("texts", 0.155, 0.0002)]
    (run / "eval" / "comparisons.json").write_text(json.dumps(rows), encoding="utf-8")
    assert (
        "Summary The trained model finds errors: 65.5 % of texts right, where always the same answer gets 50.0 % "
        "(p < 0.001). Self-play made no difference that can be told from chance: accuracy 52.0 %"
    ) in Page(write_report(run)).text


def test_a_model_below_guessing_is_not_praised(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rounds=1, games=2)
    rows = [
        comparison("warmup", "texts", 0.135, 0.003),
        comparison("warmup", "pairs", 0.132, 0.0001),
        guessed("texts", -0.011, 0.61),
        guessed("pairs", -0.05, 0.04),
    ]
    (run / "eval" / "comparisons.json").write_text(json.dumps(rows), encoding="utf-8")
    text = Page(write_report(run)).text
    for words in (
        "Self-play made more of the model's verdicts right, but left it no better than guessing: accuracy 52.0 %",
        "The trained model is no better than guessing: 65.5 % of texts right, where always the same answer gets 66.6 % "
        "(p = 0.61).",
        "is worse than guessing (a coin that flags as often: 31.2 %) by 5.0 points of pairs right (p = 0.040).",
        "by 13.2 points of pairs right (p < 0.001), but no better than guessing.",
        "best of guessing −1.1 points",
    ):
        assert words in text
    assert "made the model better" not in text


def test_a_start_that_said_nothing_is_told(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rounds=1, games=2, evaluation=False)
    silent = {**measured("base", 1.0, "no_verdict_rate"), "low": 0.9, "high": 1.0}
    write_table(run, [measured("base", 0.0), measured("trained", 0.5), silent])
    assert "Careful: the base model gave no verdict on 100 % of the texts" in Page(write_report(run)).text


def test_texts_of_one_class_decide_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rounds=1, games=2, evaluation=False)
    write_table(run, [measured("base", 0.9, "recall"), measured("trained", 0.5, "recall")])
    text = Page(write_report(run)).text
    assert "The judged texts are of one class" in text
    assert "accuracy" not in text.partition("Judged notes")[2].partition("The run's own games")[0].casefold()


def test_the_newest_evaluation_is_shown_and_the_others_are_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rounds=1, games=2)
    judged(run / "eval", finished="2026-01-01T10:00:00")
    write_evaluation(run / "eval" / "other-1a2b")
    judged(run / "eval" / "other-1a2b", finished="2026-01-02T10:00:00", files={"judged": {"name": "other.jsonl"}})
    (run / "eval" / "unfinished-3c").mkdir()
    judged(run / "eval" / "unfinished-3c", finished="2026-01-03")
    text = Page(write_report(run)).text
    assert "200 labelled texts of other.jsonl" in text
    assert "Not shown here: eval (mine.jsonl, by warmup, trained)." in text
    assert "unfinished" not in text


def test_few_games_and_notes_are_counted_not_given_in_percent(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rounds=2, games=4, evaluation=False)
    (run / "provenance.json").write_text(json.dumps({"notes": {"playable": 30}}), encoding="utf-8")
    text = Page(write_report(run)).text
    assert re.search(
        r"In round 1 the VCF accepted an edit in \d of 4 games; of the accepted ones the Assessor judged", text
    )
    assert re.search(r"Games 8 on \d of 30 notes", text)
    assert "Rounds 2 0.3 passes over 30 notes" in text
    own = text.partition("Counted over all games")[2].partition("Curves by round")[0]
    assert re.search(r"Notes with an accepted edit \d of 4", own)
    assert not re.search(r"(?<!\.)\b(?:25|33|50|67|75|100)\.0 % \S+ n = [1-9]\b", own)


@pytest.mark.parametrize("accepted", [0, 1, 2])
def test_no_sentence_has_a_dash_for_a_number(tmp_path: Path, accepted: int) -> None:
    run = write_run(tmp_path / "run", rounds=1, games=2, evaluation=False)
    row = {"round": 1, "games": 2, "accepted_games": accepted, "vcf_acceptance_rate": accepted / 2}
    row |= {"assessor_accuracy": None, "epoch": 1}
    (run / "metrics.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    sentences = Page(write_report(run)).text.partition("Summary Results")[2].partition("Accuracy –")[0]
    assert not re.search(r"[–-] (of|in|,|\.)|\b(None|nan)\b|of 0\b", sentences)
    assert ("no edit in 2 games" in sentences) is (accepted == 0)
