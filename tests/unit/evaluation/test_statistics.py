"""Intervals and paired tests, against closed forms, enumeration and known behaviour."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.evaluation.statistics import (
    NOTHING,
    Comparison,
    Estimate,
    bootstrap_estimate,
    compare,
    comparison_sentence,
    format_p,
    mcnemar_p,
    mean_estimate,
    over_seeds,
    permutation_p,
    share_estimate,
    wilson_interval,
)

Z = 1.959963984540054  # the normal distribution's 97.5 % point


def wilson(share: float, n: float) -> tuple[float, float]:
    """Wilson 1927, written out."""
    centre = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    reach = Z / (1 + Z * Z / n) * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return centre - reach, centre + reach


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 10), (10, 10), (299, 574), (1, 1)])
def test_shares_of_independent_texts_have_wilson_intervals(hits: int, n: int) -> None:
    outcomes = [True] * hits + [False] * (n - hits)
    for clusters in (None, [str(i) for i in range(n)]):
        found = share_estimate(outcomes, clusters)
        low, high = wilson(hits / n, n)
        assert found.n == n
        assert found.value == pytest.approx(hits / n, abs=1e-12)
        assert found.low == pytest.approx(max(0.0, low), abs=1e-9)
        assert found.high == pytest.approx(min(1.0, high), abs=1e-9)


def test_twins_that_always_go_together_count_once() -> None:
    outcomes = [i < 14 for i in range(20) for _ in range(2)]
    clusters = [str(i) for i in range(20) for _ in range(2)]
    found = share_estimate(outcomes, clusters)
    assert (found.low, found.high) == pytest.approx(wilson(0.7, 20), abs=1e-9)
    assert found.n == 40


def test_twins_that_never_go_together_count_as_two_texts_and_not_more() -> None:
    outcomes, clusters = [True, False] * 20, [str(i) for i in range(20) for _ in range(2)]
    found = share_estimate(outcomes, clusters)
    assert (found.low, found.high) == pytest.approx(wilson(0.5, 40), abs=1e-9)


def test_without_spread_twins_count_once() -> None:
    found = share_estimate([True] * 20, [str(i) for i in range(10) for _ in range(2)])
    assert (found.low, found.high) == pytest.approx(wilson(1, 10), abs=1e-9)


def test_nothing_has_no_figure() -> None:
    assert share_estimate([]) == share_estimate([], []) == mean_estimate([], []) == over_seeds([]) == NOTHING


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=1, max_size=60))
def test_intervals_hold_their_share_and_stay_within_0_and_1(texts: list[tuple[bool, int]]) -> None:
    found = share_estimate([hit for hit, _ in texts], [str(cluster) for _, cluster in texts])
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high


def test_bootstrap_matches_the_normal_interval_of_a_mean() -> None:
    values = np.random.default_rng(1).normal(5.0, 2.0, 400)
    found = mean_estimate(list(values), [str(i) for i in range(400)])
    error = values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - Z * error, abs=0.1 * error + 0.02)
    assert found.high == pytest.approx(values.mean() + Z * error, abs=0.1 * error + 0.02)


def test_bootstrap_draws_whole_clusters() -> None:
    doubled = [float(i % 2) for i in range(100) for _ in range(2)]
    once = mean_estimate([float(i % 2) for i in range(100)], [str(i) for i in range(100)])
    twice = mean_estimate(doubled, [str(i) for i in range(100) for _ in range(2)])
    assert (twice.value, twice.low, twice.high) == (once.value, once.low, once.high)
    assert mean_estimate(doubled, [str(i) for i in range(200)]).low > once.low


def test_bootstrap_is_the_same_every_time_and_knows_undefined_figures() -> None:
    values, clusters = [0.1, 0.5, 0.7, 0.9], ["a", "b", "c", "c"]
    assert mean_estimate(values, clusters) == mean_estimate(values, clusters)
    nothing = bootstrap_estimate(lambda sums: sums[..., 0] / 0, np.zeros((4, 1)), clusters)
    assert nothing == Estimate(None, None, None, 4)


def test_mcnemar_is_the_two_sided_binomial_test() -> None:
    a = [True] * 9 + [False] * 3 + [True] * 5 + [False] * 4
    b = [False] * 9 + [True] * 3 + [True] * 5 + [False] * 4
    exact = 2 * sum(math.comb(12, k) for k in range(4)) / 2**12  # 3 or fewer of 12
    assert mcnemar_p(a, b) == pytest.approx(exact, abs=1e-12)
    assert mcnemar_p(b, a) == pytest.approx(exact, abs=1e-12)
    assert mcnemar_p(a, a) == 1.0


def test_an_interval_of_a_share_ends_in_0_and_1() -> None:
    ends = [end for size in range(1, 200) for share in (0.0, 1.0) for end in wilson_interval(share, size)]
    assert all(0 <= end <= 1 and math.copysign(1, end) == 1 for end in ends)


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 6)), min_size=1, max_size=14))
def test_permutation_test_equals_enumeration(texts: list[tuple[bool, bool, int]]) -> None:
    a, b, clusters = [t[0] for t in texts], [t[1] for t in texts], [str(t[2]) for t in texts]
    differences = [sum(x - y for x, y, c in texts if c == cluster) for cluster in sorted({t[2] for t in texts})]
    totals = [
        sum(s * d for s, d in zip(signs, differences, strict=True))
        for signs in product((1, -1), repeat=len(differences))
    ]
    exact = np.mean([abs(total) >= abs(sum(differences)) for total in totals])
    assert permutation_p(a, b, clusters) == pytest.approx(exact, abs=1e-9)


def test_permutation_test_of_many_clusters_is_near_the_normal_one() -> None:
    clusters = [str(i) for i in range(400)]
    a, b = [i < 230 for i in range(400)], [i >= 230 for i in range(400)]  # 230 against 170
    z = 60 / math.sqrt(400)
    normal = math.erfc((z - 1 / 20) / math.sqrt(2))  # continuity: totals come in steps of 2
    assert permutation_p(a, b, clusters) == pytest.approx(normal, rel=0.25)


def test_twins_are_compared_by_permutation_and_lone_texts_by_mcnemar() -> None:
    a, b = [True, True, True, False], [False, True, False, False]
    lone = compare(a, b, ["1", "2", "3", "4"])
    assert (lone.test, lone.p_value) == ("McNemar's exact test", 0.5)
    assert (lone.difference.value, lone.difference.n) == (0.5, 4)
    twins = compare(a, b, ["1", "1", "2", "2"])
    assert (twins.test, twins.p_value) == ("permutation test by pair", 0.5)


def test_sentences_say_what_is_signal() -> None:
    gain = Comparison(Estimate(0.041, 0.01, 0.07, 500), 0.012, "any")
    assert comparison_sentence("trained", "base", gain, "texts") == (
        "trained is better than base by 4.1 points of texts right (p = 0.012)."
    )
    loss = Comparison(Estimate(-0.1, -0.2, -0.01, 500), 0.0004, "any")
    assert comparison_sentence("trained", "base", loss, "pairs") == (
        "trained is worse than base by 10.0 points of pairs right (p < 0.001)."
    )
    same = Comparison(Estimate(0.01, -0.2, 0.3, 500), 0.41, "any")
    assert comparison_sentence("trained", "base", same, "texts") == (
        "trained is not distinguishable from base in texts right (p = 0.41)."
    )


@pytest.mark.parametrize(
    ("p", "text"),
    [(1.0, "p = 1.00"), (0.0999, "p = 0.100"), (0.05, "p = 0.050"), (0.001, "p = 0.001"), (0.0009, "p < 0.001")],
)
def test_p_values_are_written_short(p: float, text: str) -> None:
    assert format_p(p) == text


def test_seeds_have_students_interval() -> None:
    found = over_seeds([0.50, 0.54, 0.58])
    reach = 4.302652729911275 * 0.04 / math.sqrt(3)  # t(0.975, 2), standard deviation 0.04
    assert found.value == pytest.approx(0.54)
    assert (found.low, found.high) == pytest.approx((0.54 - reach, 0.54 + reach), abs=1e-9)
    assert over_seeds([0.5]) == Estimate(0.5, None, None, 1)
