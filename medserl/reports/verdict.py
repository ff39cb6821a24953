"""Did self-play help? Held-out accuracy before and after, and what a paired test says of the difference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from medserl.evaluation.statistics import SIGNIFICANCE, Comparison, Estimate, comparison_sentence, format_p
from medserl.reports.run_files import RunFiles
from medserl.reports.tables import find_estimate, in_words, interval, system_name, systems_of

BEFORE, AFTER = ("warmup", "base"), ("trained", "best")
"""Systems of the evaluation, the first that is there: training starts from the warmed-up model where there is one."""

ONE_SIDED = 0.9
"""Share of texts with the same answer from which on a reader should be told."""

Change = Literal["better", "worse", "same", "untested"]

HEADLINES: dict[Change, str] = {
    "better": "Self-play made the model better at finding errors",
    "worse": "Self-play made the model worse at finding errors",
    "same": "Self-play made no difference that can be told from chance",
    "untested": "Whether self-play made a difference was not tested",
}


@dataclass(frozen=True)
class HeldOut:
    """Held-out accuracy before and after self-play, and whether they differ. `why` is the ground for that, in words."""

    before: Estimate
    after: Estimate
    start: str
    source: str
    change: Change
    why: str


def judged_after(run: RunFiles) -> str:
    """The system that stands for the trained model: the newest checkpoint, or where it is not there the best one."""
    there = systems_of(run.table)
    return next((system for system in AFTER if system in there), AFTER[0])


def held_out(run: RunFiles) -> HeldOut | None:
    """From the evaluation where there is one, else from the validation made during training."""
    trained = judged_after(run)
    after = find_estimate(run.table, trained, "accuracy")
    for start in BEFORE:
        before = find_estimate(run.table, start, "accuracy")
        if before.value is not None and after.value is not None:
            change, why = _judge(before, after, comparison(run, trained, start, "texts"))
            return HeldOut(before, after, system_name(start), "in the evaluation", change, why)
    validated = [row for row in run.rows if row.get("eval_accuracy") is not None]
    if len(validated) < 2:
        return None
    first, last = (Estimate(row["eval_accuracy"], None, None, 0) for row in (validated[0], validated[-1]))
    start = f"policy of round {validated[0]['round']}"
    return HeldOut(first, last, start, "on the validation notes", "untested", "no interval was computed")


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


def headline(run: RunFiles, found: HeldOut | None) -> str:
    """The outcome in one sentence."""
    if not run.rounds:
        return "No round has been played yet: there is nothing to judge."
    if found is None:
        return "No held-out notes were judged before and after self-play; nothing says whether the model got better."
    moved = f"{in_words(found.before)}\u00a0→ {in_words(found.after)}"
    return f"{HEADLINES[found.change]}: held-out accuracy {moved}, {found.why}."


def grounds(run: RunFiles, found: HeldOut | None) -> list[str]:
    """What the outcome rests on: the figures, the other tests, and what should make a reader careful."""
    if found is None or not run.rounds:
        return []
    texts = f" of {found.after.n:,} texts" if found.after.n else ""
    figures = (
        f"Judged rightly {found.source}{texts}: {_with_interval(found.before)} by the {found.start}, "
        f"{_with_interval(found.after)} by the {system_name(judged_after(run))}."
    )
    return [" ".join([figures, *_further_tests(run)]), *_careful(run)]


def _careful(run: RunFiles) -> list[str]:
    """An answer that hardly depends on the text is no judgement, however accurate."""
    trained = judged_after(run)
    flagged = find_estimate(run.table, trained, "flag_rate").value
    silent = find_estimate(run.table, trained, "no_verdict_rate").value or 0.0
    if flagged is None:
        return []
    answers = {"answers INCORRECT to": flagged, "answers CORRECT to": 1 - flagged - silent, "has no answer to": silent}
    return [
        f"Careful: it {answer} {100 * share:.0f}\u00a0% of the texts, whatever stands in them."
        for answer, share in answers.items()
        if share >= ONE_SIDED
    ]


def _further_tests(run: RunFiles) -> list[str]:
    """Pairs against where training started, and texts against always saying the same."""
    wanted = [(BEFORE[0], "pairs"), ("majority", "texts")]
    trained = judged_after(run)
    return [
        comparison_sentence(f"The {system_name(trained)}", f"the {system_name(other)}", found, unit)
        for other, unit in wanted
        if (found := comparison(run, trained, other, unit))
    ]


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
        for other in systems_of(run.table)
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
    return in_words(estimate) + (f" (95\u00a0% interval {between})" if between else "")
