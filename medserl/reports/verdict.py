"""Did training help? Accuracy before and after, what a paired test says of the difference, and what guessing gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from medserl.config import Settings, validate
from medserl.display.shares import as_count, counted_in
from medserl.evaluation.guessing import GUESSING
from medserl.evaluation.statistics import SIGNIFICANCE, Comparison, Estimate, comparison_sentence, format_p
from medserl.reports.judged import evaluated_on, evaluation_overlap, validated_on
from medserl.reports.run_files import RunFiles
from medserl.reports.signals import in_a_row, is_play_alone, start, training_signals
from medserl.reports.tables import find_estimate, in_words, interval, system_name, systems_of

BEFORE, AFTER = ("warmup", "base"), ("trained", "best")
"""Systems of the evaluation, the first that is there: training starts from the warmed-up model where there is one."""

SILENT = 0.5
"""Share of texts without a verdict from which on a gain over such a start may be one of form."""

ONE_SIDED = 0.9
"""Share of texts with the same answer from which on a reader should be told."""

Change = Literal["better", "below_guessing", "worse", "same", "untested"]

OUTCOMES: dict[Change, str] = {
    "better": "made the model better at finding errors",
    "below_guessing": "made more of the model's verdicts right, but left it no better than guessing",
    "worse": "made the model worse at finding errors",
    "same": "made no difference that can be told from chance",
    "untested": "was not tested for the difference it made",
}


@dataclass(frozen=True)
class Judged:
    """Accuracy before and after training, and whether they differ. `why` is the ground for that, in words.

    `on` names the texts.
    """

    before: Estimate
    after: Estimate
    start: str
    on: str
    change: Change
    why: str


def judged_after(run: RunFiles) -> str:
    """The system that stands for the trained model: the newest checkpoint, or where it is not there the best one."""
    there = systems_of(run.table)
    return next((system for system in AFTER if system in there), AFTER[0])


def before_and_after(run: RunFiles) -> Judged | None:
    """From the evaluation where there is one, else from the validation made during training."""
    trained = judged_after(run)
    after = find_estimate(run.table, trained, "accuracy")
    for first in BEFORE:
        before = find_estimate(run.table, first, "accuracy")
        if before.value is not None and after.value is not None:
            change, why = _judge(before, after, comparison(run, trained, first, "texts"))
            if change == "better" and not _beats_guessing(run, trained):
                change = "below_guessing"
            return Judged(before, after, system_name(first), evaluated_on(run), change, why)
    validated = [row for row in run.rows if row.get("eval_accuracy") is not None]
    if len(validated) < 2:
        return None
    before, after = (
        Estimate(row["eval_accuracy"], None, None, counted_in("eval_accuracy", row))
        for row in (validated[0], validated[-1])
    )
    policy = f"policy of round {validated[0]['round']}"
    return Judged(before, after, policy, validated_on(run), "untested", "no interval was computed")


def _beats_guessing(run: RunFiles, trained: str) -> bool:
    """Whether the model is right more often than the best guess; true of evaluations that did not ask."""
    against = comparison(run, trained, GUESSING, "texts")
    if against is None:
        return True
    return bool(against.difference.value and against.difference.value > 0 and against.p_value < SIGNIFICANCE)


def _judge(before: Estimate, after: Estimate, test: Comparison | None) -> tuple[Change, str]:
    """By the paired test, which knows that both judged the same texts; without it, by whether the intervals overlap."""
    if test is not None:
        p, difference = format_p(test.p_value), test.difference.value
        if test.p_value >= SIGNIFICANCE or not difference:
            return "same", p
        return ("better" if difference > 0 else "worse"), p
    if before.low is None or before.high is None or after.low is None or after.high is None:
        return "untested", "no interval was computed"
    if after.low > before.high:
        return "better", "the intervals lie apart"
    if after.high < before.low:
        return "worse", "the intervals lie apart"
    return "untested", "the intervals overlap, and no paired test was made"


def headline(run: RunFiles, found: Judged | None) -> str:
    """What the model can do, then what training did to it, with all that was learnt from."""
    settings = settings_of(run)
    learnt = f"{in_a_row(training_signals(settings))}, starting from {start(settings)}"
    if not run.rounds:
        return f"No round has been played yet: there is nothing to judge. The run is set to learn from {learnt}."
    if found is None:
        why = "No notes were judged before and after training"
        if run.table and find_estimate(run.table, judged_after(run), "accuracy").value is None:
            why = "The judged texts are of one class, so nothing tells finding errors from always saying the same"
        return f"{why}; nothing says whether the model got better. It learnt from {learnt}."
    what = "Self-play" if is_play_alone(settings) else "Training"
    moved = f"{_in_words(found.before)}\u00a0→ {_in_words(found.after)}"
    outcome = f"{what} {OUTCOMES[found.change]}: accuracy {moved} on {found.on}, {found.why}; it learnt from {learnt}."
    return " ".join([*_standing(run), outcome])


def _standing(run: RunFiles) -> list[str]:
    """`The trained model finds errors: 73.8 % of texts right, where always the same answer gets 50.0 % (p < 0.001).`

    Without it a run that changed nothing would read as if the model could do nothing.
    """
    trained = judged_after(run)
    against = comparison(run, trained, GUESSING, "texts")
    right = find_estimate(run.table, trained, "accuracy").value
    if against is None or right is None or against.difference.value is None:
        return []
    can = "finds errors" if _beats_guessing(run, trained) else "is no better than guessing"
    chance = f"{100 * (right - against.difference.value):.1f}\u00a0%"
    return [
        f"The {system_name(trained)} {can}: {100 * right:.1f}\u00a0% of texts right, where always the same answer gets "
        f"{chance} ({format_p(against.p_value)})."
    ]


def settings_of(run: RunFiles) -> Settings:
    """The run's settings, those that this version does not know left out."""
    return validate({name: value for name, value in run.settings.items() if name in Settings.model_fields})


def grounds(run: RunFiles, found: Judged | None) -> list[str]:
    """What the outcome rests on: the figures, the other tests, and what should make a reader careful."""
    if found is None or not run.rounds:
        return []
    texts = f" of {found.after.n:,} texts" if found.after.n else ""
    figures = (
        f"Judged rightly{texts}: {_with_interval(found.before)} by the {found.start}, "
        f"{_with_interval(found.after)} by the {system_name(judged_after(run))}."
    )
    overlap = [evaluation_overlap(run)] if found.after.low is not None else []
    return [" ".join([figures, *overlap, *_further_tests(run)]), *_careful(run, found), *_several(run)]


def _several(run: RunFiles) -> list[str]:
    settings = settings_of(run)
    if not (settings.is_played and settings.takes_gold_pairs and run.rounds):
        return []
    return ["What play did of this, and what gold labels did, a run without one of them would tell; this one cannot."]


def _careful(run: RunFiles, found: Judged) -> list[str]:
    """An answer that hardly depends on the text is no judgement, however accurate, nor is a gain over silence."""
    trained = judged_after(run)
    return [*_was_silent(run, found), *_one_sided(run, trained)]


def _was_silent(run: RunFiles, found: Judged) -> list[str]:
    start = next(name for name in (*BEFORE, "") if not name or system_name(name) == found.start)
    silent = find_estimate(run.table, start, "no_verdict_rate").value or 0.0
    if silent < SILENT:
        return []
    return [
        f"Careful: the {found.start} gave no verdict on {100 * silent:.0f}\u00a0% of the texts, which counts as wrong; "
        "what was gained over it may be the form of the answer."
    ]


def _one_sided(run: RunFiles, trained: str) -> list[str]:
    flagged = find_estimate(run.table, trained, "flag_rate").value
    silent = find_estimate(run.table, trained, "no_verdict_rate").value or 0.0
    if flagged is None:
        return []
    answers = {"answers INCORRECT to": flagged, "answers CORRECT to": 1 - flagged - silent, "has no answer to": silent}
    return [
        f"Careful: the {system_name(trained)} {answer} {100 * share:.0f}\u00a0% of the texts, whatever stands in them."
        for answer, share in answers.items()
        if share >= ONE_SIDED
    ]


def _further_tests(run: RunFiles) -> list[str]:
    """Pairs against guessing, and against where training started; texts against the commoner answer."""
    trained = judged_after(run)
    name = f"The {system_name(trained)}"
    sentences = [_against_guessing(run, trained)]
    by_coin = comparison(run, trained, GUESSING, "pairs")
    beats = by_coin is None or bool(by_coin.p_value < SIGNIFICANCE and (by_coin.difference.value or 0) > 0)
    for other, unit in ((BEFORE[0], "pairs"), ("majority", "texts")):
        if found := comparison(run, trained, other, unit):
            told = f"the {system_name(other)}"
            better = beats if unit == "pairs" else _beats_guessing(run, trained)
            sentences.append(comparison_sentence(name, told, found, unit, better_than_guessing=better))
    return [sentence for sentence in sentences if sentence]


def _against_guessing(run: RunFiles, trained: str) -> str:
    """`The trained model is better than guessing (a coin ...: 24.9 %) by 31.7 points of pairs right (p < 0.001).`"""
    found = comparison(run, trained, GUESSING, "pairs")
    value = find_estimate(run.table, trained, "pairwise_accuracy").value
    if found is None or value is None or found.difference.value is None:
        return ""
    chance = f"guessing (a coin that flags as often: {100 * (value - found.difference.value):.1f}\u00a0%)"
    return comparison_sentence(f"The {system_name(trained)}", chance, found, "pairs")


@dataclass(frozen=True)
class Against:
    """The trained model against another system: the difference in texts and in pairs, None where it was not tested."""

    name: str
    texts: Comparison | None
    pairs: Comparison | None


def against_others(run: RunFiles) -> list[Against]:
    """One line for each other system that the trained model was compared with."""
    trained = judged_after(run)
    lines = [
        Against(system_name(other), comparison(run, trained, other, "texts"), comparison(run, trained, other, "pairs"))
        for other in (GUESSING, *systems_of(run.table))
    ]
    return [line for line in lines if line.texts or line.pairs]


def comparison(run: RunFiles, system: str, against: str, unit: str) -> Comparison | None:
    """The evaluation's paired test of the two, whichever of them it took first; None where there is none."""
    for row in run.comparisons:
        between = (row["system"], row["against"])
        if row["unit"] == unit and between in ((system, against), (against, system)):
            difference = Estimate(row["difference"], row["low"], row["high"], row["n"])
            if between == (against, system):
                difference = _turned(difference)
            return Comparison(difference, row["p_value"], row["test"])
    return None


def _turned(one: Estimate) -> Estimate:
    value, low, high = (None if edge is None else -edge for edge in (one.value, one.high, one.low))
    return Estimate(value, low, high, one.n)


def _with_interval(estimate: Estimate) -> str:
    between = interval(estimate)
    return _in_words(estimate) + (f" (95\u00a0% interval {between})" if between else "")


def _in_words(accuracy: Estimate) -> str:
    """Of few texts a count, with an interval or without."""
    return as_count(accuracy.value, accuracy.n) or in_words(accuracy)
