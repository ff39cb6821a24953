"""The figures of the learning experiment: curves by round, and what each arm gained on its start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

Points = Sequence[tuple[float, float]]
"""Round and value."""
Gain = tuple[str, float, float, float]
"""Arm, difference in points, and the ends of its interval."""
COLUMNS = 3


def draw_curves(curves: Mapping[str, Mapping[str, Sequence[Points]]], path: Path) -> None:
    """A panel for each title, one colour an arm, one line a seed; a panel that no run has a line for is left out."""
    from matplotlib import pyplot

    drawn = {title: lines for title, lines in curves.items() if any(any(each) for each in lines.values())}
    arms = list(dict.fromkeys(arm for lines in drawn.values() for arm in lines))
    colours = dict(zip(arms, pyplot.colormaps["tab10"].colors, strict=False))
    high = -(-len(drawn) // COLUMNS)
    figure, axes = pyplot.subplots(high, COLUMNS, figsize=(13, 3.75 * high), squeeze=False, layout="constrained")
    for axis, (title, lines) in zip(axes.flat, drawn.items(), strict=False):
        for arm, each in lines.items():
            for line in each:
                axis.plot(*zip(*line, strict=True), color=colours[arm]) if line else None
        axis.set(title=title, ylim=(0, 1), xlabel="round")
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(drawn) :]:
        axis.set_axis_off()
    figure.legend(
        [pyplot.Line2D([], [], color=colours[arm]) for arm in arms], arms, loc="outside lower center", ncols=5
    )
    figure.savefig(path, dpi=100)


def draw_gains(gains: Mapping[str, Sequence[Gain]], path: Path) -> None:
    """A panel for each kind of test pair: right minus reversed, less that of the arm's start, with 95 % intervals."""
    from matplotlib import pyplot

    arms = list(dict.fromkeys(arm for each in gains.values() for arm, *_ in each))
    size = (4.3 * len(gains), 1.4 + 0.32 * len(arms))
    figure, axes = pyplot.subplots(
        1, len(gains), figsize=size, squeeze=False, sharex=True, sharey=True, layout="constrained"
    )
    for axis, (title, each) in zip(axes.flat, gains.items(), strict=True):
        for arm, value, low, high in each:
            axis.errorbar(
                value, arms.index(arm), xerr=[[value - low], [high - value]], fmt="o", color="tab:blue", capsize=3
            )
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set(yticks=range(len(arms)), yticklabels=arms, ylim=(len(arms) - 0.5, -0.5))
        axis.set_title(fill(title, 40), fontsize="medium")
        axis.grid(alpha=0.3, axis="x")
    figure.supxlabel("right minus reversed, points against the start (95 % intervals)", fontsize="medium")
    figure.savefig(path, dpi=100)
