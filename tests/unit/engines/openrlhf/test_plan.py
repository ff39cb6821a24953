"""Passes for any number of turns on any number of ranks: nobody is left out, nobody is invented, ranks keep step."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.engines.openrlhf.plan import plan_passes

LENGTHS = st.lists(st.integers(2, 600), min_size=1, max_size=60)
RANKS = st.integers(1, 9)
BUDGETS = st.integers(256, 4096)


def padded(members: tuple[int, ...], lengths: list[int]) -> int:
    return len(members) * max(lengths[i] for i in members)


@given(LENGTHS, RANKS, BUDGETS)
def test_every_turn_occurs_equally_often(lengths: list[int], ranks: int, budget: int) -> None:
    plan = plan_passes(lengths, ranks, budget)
    counts = Counter(i for members in plan.passes for i in members)
    assert counts == dict.fromkeys(range(len(lengths)), plan.copies)
    assert plan.copies == (1 if len(lengths) >= ranks else ranks)


@given(LENGTHS, RANKS, BUDGETS)
def test_ranks_make_equally_many_passes_and_none_is_empty(lengths: list[int], ranks: int, budget: int) -> None:
    passes = plan_passes(lengths, ranks, budget).passes
    assert len(passes) % ranks == 0
    assert all(passes)


@given(LENGTHS, st.integers(1, 4), BUDGETS)
def test_passes_stay_within_the_budget_where_turns_allow(lengths: list[int], ranks: int, budget: int) -> None:
    """On one rank always, but for a single turn longer than the budget; on more, unless turns are too few to deal."""
    passes = plan_passes(lengths, ranks, budget).passes
    over = [members for members in passes if len(members) > 1 and padded(members, lengths) > budget]
    assert not over if ranks == 1 or len(lengths) % ranks == 0 else len(over) <= ranks


@given(LENGTHS, RANKS, BUDGETS)
def test_passes_at_the_same_time_are_alike(lengths: list[int], ranks: int, budget: int) -> None:
    """Rank r's n-th pass is never larger than rank 0's n-th and never smaller than rank 0's next."""
    plan = plan_passes(lengths, ranks, budget)
    if plan.copies > 1:
        return
    sizes = [padded(members, lengths) for members in plan.passes]
    each = len(sizes) // ranks
    by_rank = [sizes[rank * each : (rank + 1) * each] for rank in range(ranks)]
    in_time = [by_rank[rank][n] for n in range(each) for rank in range(ranks)]
    assert in_time == sorted(in_time, reverse=True)


def test_three_turns_on_two_ranks() -> None:
    """The case in which OpenRLHF itself made no optimizer step and lost a sample."""
    assert plan_passes([10, 10, 10], 2, 10).passes in (((1, 2), (0,)), ((2, 1), (0,)))


def test_fewer_turns_than_ranks_go_to_all_of_them() -> None:
    plan = plan_passes([10, 10], 4, 1000)
    assert plan.passes == ((0, 1),) * 4
    assert plan.copies == 4


def test_no_turns() -> None:
    with pytest.raises(ValueError, match="no turns"):
        plan_passes([], 2, 1000)
