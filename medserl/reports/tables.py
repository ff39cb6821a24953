"""The evaluation (RUN/eval/table.json), turned for reading: a line for each figure, a column for each system."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medserl.display.shares import as_count
from medserl.evaluation.guessing import FLAG_RATES, GUESSING
from medserl.evaluation.official import CORRECTION_METRICS
from medserl.evaluation.statistics import NOTHING, Estimate
from medserl.evaluation.table import is_count
from medserl.runs.records import Record

SYSTEMS = {
    GUESSING: "best of guessing",
    "base": "base model",
    "warmup": "warmed-up model",
    "trained": "trained model",
    "best": "best checkpoint",
    "always-incorrect": "always INCORRECT",
    "always-correct": "always CORRECT",
    "majority": "majority answer",
    "tf-idf": "TF-IDF words",
}
"""Names of the systems in words; others are shown as they are."""

BASELINES = (*FLAG_RATES, "majority", "tf-idf")
"""Ways to guess, and systems that know no medicine; evaluations of before guesses had rows have a majority."""

DETECTION, CALIBRATION, SCORES = "Finding errors", "Probabilities", "MEDEC's official scores"

FIGURES = {
    DETECTION: {
        "threshold": ("threshold", "INCORRECT from this probability on; chosen on validation notes"),
        "accuracy": ("accuracy", "texts judged rightly"),
        "pairwise_accuracy": ("pairs right", "both twins judged rightly"),
        "pairwise_chance": ("pairs by coin", "what a coin would get that gives each verdict as often as the system"),
        "right_minus_reversed": ("right − reversed", "pairs right minus pairs the wrong way round; 0 is guessing"),
        "pair_ordering": ("pairs ordered", "the wrong twin has the higher P(INCORRECT); 50 % is guessing"),
        "auroc": ("AUROC", "the same of any wrong note beside any correct one"),
        "d_prime": ("d′", "distance of wrong from correct notes in standard deviations; 0 is guessing"),
        "balanced_accuracy": ("balanced accuracy", "mean of recall and specificity"),
        "recall": ("recall", "wrong notes called INCORRECT"),
        "specificity": ("specificity", "correct notes called CORRECT"),
        "f1": ("F1", "of INCORRECT"),
        "mcc": ("MCC", "verdict against truth, of texts with a verdict: 0 is chance, 1 perfect"),
        "flag_rate": ("flagged", "texts called INCORRECT, right or wrong"),
        "no_verdict_rate": ("no verdict", "counts as judged wrongly"),
        "truncated_rate": ("cut off", "texts of which an answer met the token limit: it gives no verdict"),
    },
    CALIBRATION: {
        "brier": ("Brier score", "squared distance from the truth; 0.25 is saying half each time"),
        "ece": ("calibration error", "stated probability against the share observed; 0 is perfect"),
    },
    SCORES: {
        "flag accuracy": ("flag accuracy", "subtask A: is there an error"),
        "sentence accuracy": ("sentence accuracy", "subtask B: which sentence; −1 where none"),
        **{name: (name, "corrections, where both sides have one") for name in CORRECTION_METRICS},
        **{
            f"{name} composite": (f"{name} composite", "all texts; 1 where both sides see nothing to correct")
            for name in CORRECTION_METRICS
        },
    },
}
"""Blocks of figures, with the name and the meaning of each. Figures that are in none stand below, as they are."""

ON_OWN_SCALE = ("mcc", "brier", "ece", "threshold")
"""Figures that are no shares of texts, and so not shown in percent."""

ALL, OFFICIAL, THRESHOLD = "all", "official", "threshold"
"""Groups of rows: all texts; the published ones, scored by the shared task's rules; all texts, judged by threshold."""

TextGroup = str
"""One of these, or one part of the texts: `error_type=diagnosis`, `official=MS`."""


def apart(table: Sequence[Record]) -> list[Record]:
    """The rows of table.json, with the official scores and the figures by threshold in groups of their own.

    The file has them among the other figures of the same texts; on the page each stands under its own heading.
    """
    return [_apart(row) for row in table]


def _apart(row: Record) -> Record:
    group, figure = row.get("group", ALL), row["figure"]
    if figure in FIGURES[SCORES]:
        return {**row, "group": OFFICIAL if group == ALL else f"{OFFICIAL}={group.partition('=')[2]}"}
    by_threshold = figure.removeprefix(f"{THRESHOLD}_")
    if figure == THRESHOLD or by_threshold != figure:
        return {**row, "group": THRESHOLD, "figure": by_threshold}
    return row


@dataclass(frozen=True)
class FigureLine:
    """One figure of every system, in the order of the table's systems."""

    figure: str
    name: str
    meaning: str
    estimates: list[Estimate]


@dataclass(frozen=True)
class FigureTable:
    """Blocks of lines under the names of the systems; `n` is the number of texts."""

    title: str
    n: int
    systems: list[str]
    blocks: list[tuple[str, list[FigureLine]]]


@dataclass(frozen=True)
class Overview:
    """Accuracy in each group of one kind (error type, length), or recall of texts of one class, by system."""

    title: str
    figure: str
    systems: list[str]
    lines: list[tuple[str, int, list[Estimate]]]


def table_of(table: Sequence[Record], group: TextGroup) -> FigureTable | None:
    """The figures of a group; None where it was not evaluated."""
    return _table(group, table) if group in _groups(table) else None


def part_tables(table: Sequence[Record]) -> list[FigureTable]:
    """All figures of each part of the texts."""
    return [_table(group, table) for group in _groups(table) if "=" in group]


def overviews(table: Sequence[Record]) -> list[Overview]:
    """Accuracy by part of the texts, one overview for each way to part them."""
    kinds: dict[str, list[TextGroup]] = {}
    for group in _groups(table):
        kind, parted, _ = group.partition("=")
        if parted and kind != OFFICIAL:
            kinds.setdefault(kind, []).append(group)
    return [_overview(kind, groups, table) for kind, groups in kinds.items()]


def left_out(evaluation: Record) -> list[str]:
    """The official scores that were not computed, and why; a line for each reason."""
    reasons: dict[str, dict[str, None]] = {}
    for collections in evaluation.get(OFFICIAL, {}).values():
        for score, why in collections.get(ALL, {}).get("left_out", {}).items():
            reasons.setdefault(why, {})[score] = None
    return [f"Left out: {', '.join(scores)} ({why})." for why, scores in reasons.items()]


def judged_texts(n: int, evaluation: Record) -> str:
    """`574 texts of validation.csv`; without the file where the evaluation's record does not name it."""
    file = evaluation.get("files", {}).get("judged", {}).get("name")
    return f"{n:,} labelled texts" + (f" of {file}" if file else "")


def find_estimate(table: Sequence[Record], system: str, figure: str, group: TextGroup = ALL) -> Estimate:
    """A figure of a system; its value is None where it was not computed."""
    for row in table:
        if (row.get("group", ALL), row["system"], row["figure"]) == (group, system, figure):
            return Estimate(row["value"], row["low"], row["high"], row["n"] or 0)
    return NOTHING


def system_name(system: str) -> str:
    return SYSTEMS.get(system, system)


def systems_of(table: Sequence[Record]) -> list[str]:
    """In the order of the file, the model as it went on, but the baselines last."""
    return sorted(dict.fromkeys(row["system"] for row in table), key=lambda system: system in BASELINES)


def in_words(estimate: Estimate, figure: str = "accuracy") -> str:
    """The value: percent, but for figures on their own scale, and `3 of 4` of fewer than ten texts."""
    if estimate.value is None:
        return "–"
    counted = as_count(estimate.value, estimate.n) if is_count(figure) and estimate.low is not None else None
    return counted or _number(estimate.value, figure) + _unit(figure)


def interval(estimate: Estimate, figure: str = "") -> str:
    """`51.2–63.0 %`, or nothing where there is no interval."""
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return ""
    between = " to " if estimate.low < 0 else "–"
    return _number(estimate.low, figure) + between + _number(estimate.high, figure) + _unit(figure)


def points(difference: Estimate) -> str:
    """`+13.5 points (7.2 to 19.8)` of a difference of shares; a dash where there is none."""
    if difference.value is None:
        return "–"
    value = f"{100 * difference.value:+.1f}\u00a0points"
    if difference.low is not None and difference.high is not None:
        value += f" ({100 * difference.low:.1f} to {100 * difference.high:.1f})"
    return value.replace("-", "−")


def _groups(table: Sequence[Record]) -> list[TextGroup]:
    return list(dict.fromkeys(row.get("group", ALL) for row in table))


def _table(group: TextGroup, table: Sequence[Record]) -> FigureTable:
    rows = [row for row in table if row.get("group", ALL) == group]
    systems, figures = systems_of(rows), list(dict.fromkeys(row["figure"] for row in rows))
    known = {figure for block in FIGURES.values() for figure in block}
    others = {figure: (figure.replace("_", " "), "") for figure in figures if figure not in known}
    blocks = []
    for title, described in {**FIGURES, "Others": others}.items():
        lines = [
            FigureLine(figure, name, meaning, [find_estimate(rows, system, figure, group) for system in systems])
            for figure, (name, meaning) in described.items()
            if figure in figures
        ]
        if lines:
            blocks.append((title, lines))
    return FigureTable(_title(group), _size(rows), _with_n(systems, rows), blocks)


def _with_n(systems: Sequence[str], rows: Sequence[Record]) -> list[str]:
    """The systems' names; of one that judged fewer texts than another one, with their number."""
    counts = {row["system"]: row["n"] or 0 for row in rows if row["figure"] in ("no_verdict_rate", "flag accuracy")}
    most = max(counts.values(), default=0)
    return [
        f"{system_name(system)} (n = {counts[system]})" if 0 < counts.get(system, 0) < most else system_name(system)
        for system in systems
    ]


def _overview(kind: str, groups: Sequence[TextGroup], table: Sequence[Record]) -> Overview:
    systems = systems_of(table)
    parts = {group: [row for row in table if row.get("group", ALL) == group] for group in groups}
    of_two_classes = any(row["figure"] == "accuracy" for rows in parts.values() for row in rows)
    figure = "accuracy" if of_two_classes else "recall"
    lines = [
        (group.partition("=")[2], _size(rows), [find_estimate(rows, system, figure, group) for system in systems])
        for group, rows in parts.items()
    ]
    return Overview(kind.replace("_", " "), figure, [system_name(system) for system in systems], lines)


def _title(group: TextGroup) -> str:
    kind, parted, part = group.partition("=")
    name = "official scores" if kind == OFFICIAL else kind.replace("_", " ")
    return f"{name}: {part}" if parted else name


def _size(rows: Sequence[Record]) -> int:
    return max((row["n"] or 0 for row in rows), default=0)


def _number(value: float, figure: str) -> str:
    return (f"{value:.2f}" if figure in ON_OWN_SCALE else f"{100 * value:.1f}").replace("-", "−")


def _unit(figure: str) -> str:
    return "" if figure in ON_OWN_SCALE else "\u00a0%"
