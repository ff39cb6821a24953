"""The evaluation (eval/table.json), turned for reading: a row for each system, a column for each figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medserl.evaluation.statistics import NOTHING, Estimate
from medserl.reports.run_files import Row

SYSTEMS = {
    "base": "base model",
    "warmup": "after the warm-up",
    "trained": "after self-play",
    "majority": "majority answer (baseline)",
    "tf-idf": "TF-IDF words (baseline)",
}
"""Names of the systems in words; others are shown as they are."""

FIGURES = {
    "pairwise_accuracy": "pairs right",
    "balanced_accuracy": "balanced",
    "f1": "F1",
    "mcc": "MCC",
    "brier": "Brier score",
    "ece": "calibration error",
    "flag_rate": "flagged",
    "no_verdict_rate": "no verdict",
}
"""Names of figures in words; others are shown without their underscores."""

ON_OWN_SCALE = ("mcc", "brier", "ece")
"""Figures that are no shares of texts, and so not shown in percent."""

ALL = "all"
"""The group of rows that are about all texts."""


@dataclass(frozen=True)
class Table:
    """`rows` hold the name of a system and one estimate for each figure; `n` is the number of texts."""

    title: str
    n: int
    figures: list[str]
    headers: list[str]
    rows: list[tuple[str, list[Estimate]]]


def evaluation_tables(table: Sequence[Row]) -> list[Table]:
    """One table for all texts, then one for each group of them; none where nothing was evaluated."""
    groups = list(dict.fromkeys(row.get("group", ALL) for row in table))
    return [_table(group, [row for row in table if row.get("group", ALL) == group]) for group in groups]


def find_estimate(table: Sequence[Row], system: str, figure: str, group: str = ALL) -> Estimate:
    """A figure of a system; its value is None where it was not computed."""
    for row in table:
        if (row.get("group", ALL), row["system"], row["figure"]) == (group, system, figure):
            return Estimate(row["value"], row["low"], row["high"], row["n"])
    return NOTHING


def in_words(estimate: Estimate, figure: str = "") -> str:
    """The value: percent, but for figures on their own scale."""
    return "–" if estimate.value is None else _number(estimate.value, figure) + _unit(figure)


def interval(estimate: Estimate, figure: str = "") -> str:
    """`51.2–63.0 %`, or nothing where there is no interval."""
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return ""
    between = " to " if estimate.low < 0 else "–"
    return _number(estimate.low, figure) + between + _number(estimate.high, figure) + _unit(figure)


def _table(group: str, rows: Sequence[Row]) -> Table:
    figures = list(dict.fromkeys(row["figure"] for row in rows))
    systems = list(dict.fromkeys(row["system"] for row in rows))
    return Table(
        title=group.replace("=", ": ").replace("_", " "),
        n=max(row["n"] or 0 for row in rows),
        figures=figures,
        headers=[FIGURES.get(figure, figure.replace("_", " ")) for figure in figures],
        rows=[
            (SYSTEMS.get(system, system), [find_estimate(rows, system, figure, group) for figure in figures])
            for system in systems
        ],
    )


def _number(value: float, figure: str) -> str:
    return (f"{value:.2f}" if figure in ON_OWN_SCALE else f"{100 * value:.1f}").replace("-", "−")


def _unit(figure: str) -> str:
    return "" if figure in ON_OWN_SCALE else "\u00a0%"
