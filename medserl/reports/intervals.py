"""Systems side by side on one scale: a dot for each figure, a line for its 95 % interval. Places are percents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medserl.evaluation.guessing import FLAG_RATES
from medserl.evaluation.statistics import Estimate
from medserl.reports.curves import Tick, nice_steps
from medserl.reports.tables import BASELINES, FIGURES, find_estimate, in_words, system_name, systems_of
from medserl.runs.records import Record

CHANCE = {"pairwise_accuracy": 0.25, "pair_ordering": 0.5, "accuracy": None, "balanced_accuracy": 0.5}
"""The figures that can be drawn, and what guessing gives at best where that does not hang on the texts."""

MOST_PANELS = 2
ROOM = 0.02
"""Kept free beyond the outermost interval, as a share of all texts."""


@dataclass(frozen=True)
class Mark:
    """One system: where its interval begins, how wide it is, where the dot lies, and the value in words."""

    name: str
    start: float
    width: float
    dot: float
    value: str
    baseline: bool


@dataclass(frozen=True)
class Panel:
    title: str
    about: str
    marks: list[Mark]
    ticks: list[Tick]
    chance: float | None


@dataclass(frozen=True)
class Scale:
    """A stretch of shares, drawn over the whole width."""

    low: float
    high: float

    def place(self, share: float) -> float:
        return round(100 * (share - self.low) / (self.high - self.low), 2)


def panels(table: Sequence[Record]) -> list[Panel]:
    """At most two figures that have intervals, the ones that say most first; none of a single system."""
    drawn = [panel for figure in CHANCE if (panel := _panel(figure, table)) is not None]
    return drawn[:MOST_PANELS]


def _panel(figure: str, table: Sequence[Record]) -> Panel | None:
    found = {system: find_estimate(table, system, figure) for system in systems_of(table)}
    measured = {system: one for system, one in found.items() if None not in (one.value, one.low, one.high)}
    if len(measured) < 2:
        return None
    chance = CHANCE[figure] if figure != "accuracy" else _best_guess(table)
    edges = [edge for one in measured.values() for edge in (one.low, one.high) if edge is not None]
    edges += [] if chance is None else [chance]
    scale = Scale(max(0.0, min(edges) - ROOM), min(1.0, max(edges) + ROOM))
    name, meaning = next(block[figure] for block in FIGURES.values() if figure in block)
    return Panel(
        title=name.capitalize(),
        about=meaning,
        marks=[_mark(system, one, scale) for system, one in measured.items()],
        ticks=[Tick(scale.place(v), f"{100 * v:.0f}\u00a0%") for v in nice_steps(scale.low, scale.high, 4)],
        chance=None if chance is None else scale.place(chance),
    )


def _best_guess(table: Sequence[Record]) -> float | None:
    """What the best way to guess gets on these texts; None in an evaluation of before guesses had rows."""
    found = [value for guess in FLAG_RATES if (value := find_estimate(table, guess, "accuracy").value) is not None]
    return max(found, default=None)


def _mark(system: str, one: Estimate, scale: Scale) -> Mark:
    assert one.value is not None and one.low is not None and one.high is not None
    start, end = scale.place(one.low), scale.place(one.high)
    return Mark(
        name=system_name(system),
        start=start,
        width=round(end - start, 2),
        dot=scale.place(one.value),
        value=in_words(one),
        baseline=system in BASELINES,
    )
