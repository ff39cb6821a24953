"""Signal and noise: intervals, paired tests, and a plain sentence about each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest
from statsmodels.stats.proportion import proportion_confint

CONFIDENCE = 0.95
RESAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; `value` None where there was nothing to measure."""

    value: float | None
    low: float | None
    high: float | None
    n: int

    def __str__(self) -> str:
        if self.value is None:
            return "-"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def proportion(outcomes: Sequence[bool]) -> Estimate:
    """Share of true outcomes with Wilson's score interval (Wilson, JASA 1927)."""
    n = len(outcomes)
    if not n:
        return Estimate(None, None, None, 0)
    low, high = proportion_confint(sum(outcomes), n, alpha=1 - CONFIDENCE, method="wilson")
    return Estimate(sum(outcomes) / n, float(low), float(high), n)


def bootstrap(
    figure: Callable[[np.ndarray], float], clusters: Sequence[Sequence[int]], seed: int = 0
) -> Estimate:
    """Percentile bootstrap of `figure(indices)` over whole clusters: twins are drawn together (Efron, 1979)."""
    everything = np.concatenate([np.asarray(cluster) for cluster in clusters]) if clusters else np.empty(0, int)
    if not len(everything):
        return Estimate(None, None, None, 0)
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(RESAMPLES):
        drawn = rng.integers(len(clusters), size=len(clusters))
        values.append(figure(np.concatenate([np.asarray(clusters[i]) for i in drawn])))
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return Estimate(figure(everything), float(low), float(high), len(everything))


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Exact two-sided p-value that two systems are equally often right on the same items (McNemar, 1947)."""
    gained = sum(b and not a for a, b in zip(first, second, strict=True))
    lost = sum(a and not b for a, b in zip(first, second, strict=True))
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def compare_sentence(
    name: str, right: Sequence[bool], other: str, other_right: Sequence[bool], unit: str
) -> str:
    """Whether `name` differs from `other` in how many `unit` it gets right, in words."""
    p = mcnemar(other_right, right)
    if p >= 1 - CONFIDENCE:
        return f"{name} is not distinguishable from {other} in {unit} right (p = {p:.2g})."
    gain = 100 * (np.mean(right) - np.mean(other_right))
    return f"{name} is {'better' if gain > 0 else 'worse'} than {other} by {abs(gain):.1f} points of {unit} right (p = {p:.2g})."
