"""Curves by round as small inline SVG: drawn from metrics.jsonl, coloured by the page's style sheet.

No plotting library: what the page needs is a dozen small line and bar charts whose colours follow the
reader's light or dark setting through CSS, in a file of a few hundred kilobytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from medserl.display.shares import as_count, counted_in
from medserl.reports.convergence import Notice
from medserl.runs.records import Record

WIDTH, HEIGHT = 370, 210
LEFT, RIGHT, TOP, BOTTOM = 50, 8, 10, 30
MOST_POINTS = 120
"""Longer runs are drawn as means over equal stretches of rounds."""
MOST_MARKERS = 40
MOST_STACKED = 7
"""Colours that a reader can tell apart: of more curves in a stack the smallest are drawn as one."""

Unit = Literal["percent", "points", "number", "count", "seconds", "reward"]


@dataclass(frozen=True)
class ChartPlan:
    """What one chart shows: `curves` are (metric, name) pairs, stacked as bars or drawn as lines."""

    title: str
    about: str
    unit: Unit
    curves: tuple[tuple[str, str], ...]
    stacked: bool = False


@dataclass(frozen=True)
class Tick:
    place: float
    label: str


@dataclass(frozen=True)
class Series:
    """One drawn curve: `shape` and `markers` are SVG path data, `labels` the values in words."""

    name: str
    shape: str
    markers: str
    labels: list[str]


@dataclass(frozen=True)
class Flag:
    """The round that a notice begins in: where it lies, and the round in words."""

    place: float
    label: str


@dataclass(frozen=True)
class Chart:
    plan: ChartPlan
    series: list[Series]
    flags: list[Flag]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    readout: dict[str, Any]


@dataclass(frozen=True)
class Curve:
    """What is drawn as one: a metric, or the sum of several."""

    metrics: tuple[str, ...]
    name: str

    def value(self, row: Record) -> float | None:
        values = [row[metric] for metric in self.metrics if is_number(row.get(metric))]
        return sum(values) if values else None


@dataclass(frozen=True)
class Point:
    """The mean of `rows` (one round, or a stretch of rounds in a long run)."""

    rows: Sequence[Record]

    @property
    def round(self) -> float:
        return fmean(row["round"] for row in self.rows)

    @property
    def label(self) -> str:
        first, last = self.rows[0]["round"], self.rows[-1]["round"]
        return f"round {first}" if first == last else f"rounds {first}–{last}"

    def value(self, curve: Curve) -> float | None:
        values = [number for row in self.rows if (number := curve.value(row)) is not None]
        return fmean(values) if values else None

    def counted(self, curve: Curve) -> str | None:
        """`3 of 4` where the figure is a share of the few games of one round."""
        if len(self.rows) != 1 or len(curve.metrics) != 1:
            return None
        return as_count(curve.value(self.rows[0]), counted_in(curve.metrics[0], self.rows[0]))

    def measured(self, curve: Curve) -> bool:
        """Whether the figure was asked for here, be it without result."""
        return any(metric in row for row in self.rows for metric in curve.metrics)


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def rounds_per_point(rows: Sequence[Record]) -> int:
    return max(1, math.ceil(len(rows) / MOST_POINTS))


def draw(plan: ChartPlan, rows: Sequence[Record], notices: Sequence[Notice] = ()) -> Chart | None:
    """The chart of `plan`, or None where no row holds any of its figures. A stack leaves out what is always 0."""
    curves = _curves(plan, rows)
    if not curves:
        return None
    step = rounds_per_point(rows)
    points = [Point(rows[i : i + step]) for i in range(0, len(rows), step)]
    points = [point for point in points if any(point.measured(curve) for curve in curves)]
    frame = _frame(plan, curves, points)
    series = []
    base = [0.0] * len(points)
    for order, curve in enumerate(curves):
        values = [point.value(curve) for point in points]
        if plan.stacked:
            tops = [low + (value or 0.0) for low, value in zip(base, values, strict=True)]
            shape, markers = frame.bars(base, tops), ""
            base = tops
        else:
            known = [point.measured(curve) for point in points]
            shape, markers = frame.line(values, known), frame.markers(values, order)
        labels = [
            point.counted(curve) or format_value(value, plan.unit) for point, value in zip(points, values, strict=True)
        ]
        series.append(Series(curve.name, shape, markers, labels))
    readout = {
        "x": [round(x, 1) for x in frame.xs],
        "rounds": [point.label for point in points],
        "series": [{"name": one.name, "values": one.labels} for one in series],
    }
    shown = {metric for curve in curves for metric in curve.metrics}
    starts = sorted({notice.round for notice in notices if notice.figure in shown})
    flags = [Flag(frame.x(number), f"round {number}") for number in starts]
    return Chart(plan, series, flags, frame.x_ticks(), frame.y_ticks(), readout)


def _curves(plan: ChartPlan, rows: Sequence[Record]) -> list[Curve]:
    every = [Curve((metric,), name) for metric, name in plan.curves]
    values = {curve: [value for row in rows if (value := curve.value(row)) is not None] for curve in every}
    if not plan.stacked:
        return [curve for curve in every if values[curve]]
    sums = {curve: sum(found) for curve, found in values.items() if any(found)}
    room = MOST_STACKED if len(sums) <= MOST_STACKED else MOST_STACKED - 1
    kept = sorted(sums, key=lambda curve: -sums[curve])[:room]
    rest = tuple(metric for curve in sums if curve not in kept for metric in curve.metrics)
    return [curve for curve in sums if curve in kept] + ([Curve(rest, "others")] if rest else [])


@dataclass(frozen=True)
class Frame:
    """Where rounds and values lie in the drawing, in SVG units."""

    xs: list[float]
    rounds: list[float]
    low: float
    high: float
    unit: Unit
    bar: float

    def x(self, number: float) -> float:
        first, last = self.rounds[0], self.rounds[-1]
        return _scale(min(max(number, first), last), first, last, self.xs[0], self.xs[-1])

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def line(self, values: Sequence[float | None], known: Sequence[bool]) -> str:
        """A path that breaks where a figure was asked for and is missing, not where nobody asked."""
        parts, command = [], "M"
        for x, value, asked in zip(self.xs, values, known, strict=True):
            if value is not None:
                parts.append(f"{command}{x:.1f} {self.y(value):.1f}")
                command = "L"
            elif asked:
                command = "M"
        return "".join(parts)

    def markers(self, values: Sequence[float | None], order: int) -> str:
        """A mark on every point, of another shape for each curve: colour is not all that tells them apart."""
        found = [(x, self.y(v)) for x, v in zip(self.xs, values, strict=True) if v is not None]
        if len(self.xs) > MOST_MARKERS:
            found = found if len(found) == 1 else []
        return "".join(marker(order, x, y) for x, y in found)

    def bars(self, lows: Sequence[float], highs: Sequence[float]) -> str:
        return "".join(
            f"M{x - self.bar / 2:.1f} {self.y(low):.1f}V{self.y(high):.1f}h{self.bar:.1f}V{self.y(low):.1f}z"
            for x, low, high in zip(self.xs, lows, highs, strict=True)
            if high > low
        )

    def x_ticks(self) -> list[Tick]:
        first, last = self.rounds[0], self.rounds[-1]
        places = [v for v in nice_steps(first, last, 7) if v == int(v) and first <= v <= last] or [first]
        return [Tick(self.x(v), f"{v:.0f}") for v in places]

    def y_ticks(self) -> list[Tick]:
        return [Tick(self.y(v), format_tick(v, self.unit)) for v in nice_steps(self.low, self.high, 5)]


def marker(order: int, x: float, y: float) -> str:
    """A circle, square, triangle or diamond around a point, as path data."""
    shapes = (
        f"M{x - 3:.1f} {y:.1f}a3 3 0 1 0 6 0a3 3 0 1 0-6 0z",
        f"M{x - 2.7:.1f} {y - 2.7:.1f}h5.4v5.4h-5.4z",
        f"M{x - 3.5:.1f} {y + 2.7:.1f}h7l-3.5-6z",
        f"M{x - 3.8:.1f} {y:.1f}l3.8-3.8l3.8 3.8l-3.8 3.8z",
    )
    return shapes[order % len(shapes)]


def _frame(plan: ChartPlan, curves: Sequence[Curve], points: Sequence[Point]) -> Frame:
    rounds = [point.round for point in points]
    room = WIDTH - LEFT - RIGHT
    bar = min(28.0, 0.8 * room / len(points)) if plan.stacked else 0.0
    pad = bar / 2 + 4
    xs = [_scale(r, rounds[0], rounds[-1], LEFT + pad, WIDTH - RIGHT - pad) for r in rounds]
    low, high = _range(plan, curves, points)
    return Frame(xs, rounds, low, high, plan.unit, bar)


def _range(plan: ChartPlan, curves: Sequence[Curve], points: Sequence[Point]) -> tuple[float, float]:
    if plan.unit == "percent":
        return 0.0, 1.0
    if plan.unit == "reward":
        return -1.0, 1.0
    if plan.stacked:
        totals = [sum(point.value(curve) or 0.0 for curve in curves) for point in points]
    else:
        totals = [value for point in points for curve in curves if (value := point.value(curve)) is not None]
    low, high = min(0.0, *totals, 0.0), max(0.0, *totals, 0.0)
    if low == high:
        return 0.0, 1.0
    steps = nice_steps(low, high, 5)
    width = steps[1] - steps[0]
    return math.floor(low / width + 1e-9) * width, math.ceil(high / width - 1e-9) * width


def _scale(value: float, low: float, high: float, start: float, end: float) -> float:
    return (start + end) / 2 if low == high else start + (value - low) / (high - low) * (end - start)


def nice_steps(low: float, high: float, most: int) -> list[float]:
    """At most `most` + 1 round numbers (1, 2 or 5 times a power of ten apart) that lie in low..high."""
    if high <= low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    width = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first = math.ceil(low / width - 1e-9)
    last = math.floor(high / width + 1e-9)
    return [step * width for step in range(first, last + 1)]


def format_value(value: float | None, unit: Unit) -> str:
    """A figure as a reader sees it: `57 %`, `+3.1 points`, `12 s`, `0.031`; a dash where there is none."""
    if value is None:
        return "–"
    if unit == "percent":
        return f"{100 * value:.0f}\u00a0%"
    if unit == "points":
        return f"{100 * value:+.1f}\u00a0points".replace("-", "−")
    text = f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{text}\u00a0s" if unit == "seconds" else text.replace("-", "−")


def format_tick(value: float, unit: Unit) -> str:
    if unit == "percent":
        return f"{100 * value:.0f}\u00a0%"
    if unit == "points":
        value *= 100
    return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}").replace("-", "−")
