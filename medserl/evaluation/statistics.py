"""How sure a figure is, and whether two systems differ: 95 % intervals, paired tests, several seeds.

The twins of a pair are no independent texts: the same note is judged twice. So texts come in *clusters* (the two twins
of a pair, or one lone text), and it is clusters that intervals and tests take to be independent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
SIGNIFICANCE = 0.05
RESAMPLES = 2000
PERMUTATIONS = 9999
_CHUNK = 200  # resamples drawn at once: bounds the memory for large sets

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure, its 95 % interval, and the number of texts, pairs or seeds it rests on; None where there is none."""

    value: float | None
    low: float | None
    high: float | None
    n: int


NOTHING = Estimate(None, None, None, 0)


@dataclass(frozen=True)
class Comparison:
    """System a against system b on the same texts: a's share minus b's, and the p-value of the named paired test."""

    difference: Estimate
    p_value: float
    test: str


def number_clusters(names: Sequence[str]) -> NDArray[np.intp]:
    """0, 1, 2, ... for every text, equal where the names are."""
    return np.unique(np.asarray(names, dtype=object), return_inverse=True)[1].reshape(-1)


def share_estimate(hits: Sequence[bool], clusters: Sequence[str] | None = None) -> Estimate:
    """The share of hits with its Wilson interval.

    Twins count as less than two texts as far as they go together: the interval is that of the effective sample size
    p (1 - p) / var(p), var(p) taken over clusters, never more than the texts there are (Korn and Graubard, Survey
    Methodology 24, 1998). For texts without twins that is the number of texts.
    """
    if not len(hits):
        return NOTHING
    values = np.asarray(hits, dtype=float)
    share = float(values.mean())
    size = _effective_size(values, clusters) if clusters is not None else float(len(values))
    low, high = wilson_interval(share, size)
    return Estimate(share, min(low, share), max(high, share), len(values))


def wilson_interval(share: float, size: float) -> tuple[float, float]:
    """The interval of a share (Wilson, JASA 22, 1927). SciPy's is for whole sizes alone; an effective one is none."""
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    middle = share + z**2 / (2 * size)
    half = z * math.sqrt(share * (1 - share) / size + z**2 / (4 * size**2))
    low, high = (middle - half) / (1 + z**2 / size), (middle + half) / (1 + z**2 / size)
    return max(0.0, low), min(1.0, high)  # rounding may end a little outside


def _effective_size(values: Array, clusters: Sequence[str]) -> float:
    cluster = number_clusters(clusters)
    share = values.mean()
    if share in (0.0, 1.0):  # no spread to measure: as if twins always went together
        return float(cluster.max() + 1)
    residuals = np.bincount(cluster, weights=values - share)
    variance = float((residuals**2).sum()) / len(values) ** 2
    return float(min(len(values), share * (1 - share) / variance)) if variance > 0 else float(len(values))


def bootstrap_estimate(
    figure: Callable[[Array], Array], columns: Array, clusters: Sequence[str], seed: int = 0
) -> Estimate:
    """A figure of sums over texts, with the percentile interval of 2,000 bootstrap resamples of clusters.

    Args:
        figure: from sums of shape (..., k) to values of shape (...); nan where it is not defined.
        columns: shape (texts, k).
        clusters: the cluster of every text.
    """
    if not len(columns):
        return NOTHING
    cluster = number_clusters(clusters)
    sums = np.zeros((int(cluster.max()) + 1, columns.shape[1]))
    np.add.at(sums, cluster, columns)
    return resampled_estimate(lambda times: figure(times @ sums), len(sums), len(columns), seed)


def resampled_estimate(figure: Callable[[Array], Array], clusters: int, n: int, seed: int = 0) -> Estimate:
    """The same for a figure of how often each cluster counts: from shape (..., clusters) to (...)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(figure(np.ones(clusters)))
        if np.isnan(value):
            return Estimate(None, None, None, n)
        rng = np.random.default_rng(seed)
        resampled = np.concatenate(
            [
                figure(rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=_CHUNK).astype(float))
                for _ in range(RESAMPLES // _CHUNK)
            ]
        )
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.nanpercentile(resampled, [tail, 100 - tail])
    return Estimate(value, float(low), float(high), n)


def mean_estimate(values: Sequence[float], clusters: Sequence[str] | None = None) -> Estimate:
    """The mean with its bootstrap interval; without clusters all values are independent."""
    if not len(values):
        return NOTHING
    if clusters is None:
        clusters = [str(i) for i in range(len(values))]
    columns = np.column_stack([np.asarray(values, dtype=float), np.ones(len(values))])
    return bootstrap_estimate(lambda sums: sums[..., 0] / sums[..., 1], columns, clusters)


def compare(a: Sequence[bool], b: Sequence[bool], clusters: Sequence[str]) -> Comparison:
    """Is system a right more often than b, on the same texts?

    The p-value is McNemar's exact one where all texts are independent, else that of a permutation test which swaps
    the systems pair by pair.
    """
    independent = len(set(clusters)) == len(clusters)
    difference = mean_estimate(np.asarray(a, dtype=float) - np.asarray(b, dtype=float), clusters)
    if independent:
        return Comparison(difference, mcnemar_p(a, b), "McNemar's exact test")
    return Comparison(difference, permutation_p(a, b, clusters), "permutation test by pair")


def share_against(found: Estimate, chance: float) -> Comparison:
    """A share of independent hits against a known one: two-sided exact binomial test."""
    from scipy.stats import binomtest

    assert found.value is not None and found.low is not None and found.high is not None
    p = float(binomtest(round(found.value * found.n), found.n, chance).pvalue)
    difference = Estimate(found.value - chance, found.low - chance, found.high - chance, found.n)
    return Comparison(difference, min(1.0, p), "exact binomial test")


def mcnemar_p(a: Sequence[bool], b: Sequence[bool]) -> float:
    """Two-sided p-value of McNemar's exact test on paired hits (McNemar, Psychometrika 12, 1947)."""
    from scipy.stats import binomtest

    x, y = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    only_x, only_y = int((x & ~y).sum()), int((~x & y).sum())
    apart = only_x + only_y
    return min(1.0, float(binomtest(only_x, apart, 0.5).pvalue)) if apart else 1.0


def permutation_p(a: Sequence[float], b: Sequence[float], clusters: Sequence[str], seed: int = 0) -> float:
    """Two-sided p-value of a permutation test that swaps the two systems in whole clusters.

    Exact where at most 13 clusters differ, else of 9,999 random swaps (Good, Permutation Tests, 2000).
    """
    from scipy.stats import permutation_test

    cluster = number_clusters(clusters)
    x, y = (np.bincount(cluster, weights=np.asarray(values, dtype=float)) for values in (a, b))
    differ = x != y  # swapping equal clusters changes nothing
    if differ.sum() < 2:
        return 1.0
    found = permutation_test(
        (x[differ], y[differ]),
        lambda left, right, axis: (left - right).mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        batch=1000,
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def comparison_sentence(
    name: str, other: str, comparison: Comparison, unit: str, *, better_than_guessing: bool = True
) -> str:
    """`trained is better than base by 4.1 points of texts right (p = 0.012).`, or that they cannot be told apart.

    Who is better than another and not than guessing is not praised for it.
    """
    p = format_p(comparison.p_value)
    points = comparison.difference.value
    if points is None or comparison.p_value >= SIGNIFICANCE:
        return f"{name} is not distinguishable from {other} in {unit} right ({p})."
    word = "better" if points > 0 else "worse"
    but = ", but no better than guessing" if points > 0 and not better_than_guessing else ""
    return f"{name} is {word} than {other} by {100 * abs(points):.1f} points of {unit} right ({p}){but}."


def format_p(p_value: float) -> str:
    """`p = 0.41`, `p = 0.012`, `p < 0.001`."""
    if p_value < 0.001:
        return "p < 0.001"
    return f"p = {p_value:.3f}" if p_value < 0.1 else f"p = {p_value:.2f}"


def over_seeds(values: Sequence[float]) -> Estimate:
    """The mean of one figure over several seeds, with Student's t interval; a single seed has no interval."""
    if not len(values):
        return NOTHING
    mean = float(np.mean(values))
    if len(values) == 1:
        return Estimate(mean, None, None, 1)
    from scipy.stats import t

    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    reach = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error
    return Estimate(mean, mean - reach, mean + reach, len(values))
