"""Which turns share a pass, and on which rank: every turn once, no pass empty, all ranks in step. Pure Python.

ZeRO's collectives want every rank to make the same number of passes, but accepted games vary in number from round to
round. So the passes are planned for the turns at hand, and never the turns for the passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class PassPlan:
    """Passes of one sweep over the turns, as indices of turns: rank 0's passes first, then rank 1's, and so on.

    `copies` is how often each turn occurs: 1, or the number of ranks where there are fewer turns than ranks. Then
    every rank sees all turns, and a mean over their tokens is what it would be on one rank.
    """

    passes: tuple[tuple[int, ...], ...]
    copies: int


def plan_passes(lengths: Sequence[int], ranks: int, token_budget: int) -> PassPlan:
    """Plan one sweep over turns of these lengths (tokens), with passes of at most `token_budget` padded tokens.

    Where turns and ranks leave no other way, the shortest passes are put together beyond the budget.

    Raises:
        ValueError: there is no turn at all.
    """
    if not lengths:
        raise ValueError("there is nothing to plan: no turns")
    if len(lengths) < ranks:
        return PassPlan(tuple(ranks * list(_within_budget(lengths, token_budget))), copies=ranks)
    passes = list(_within_budget(lengths, token_budget))
    wanted = _round_up(len(passes), ranks)
    if wanted > len(lengths):
        wanted -= ranks
    _split(passes, wanted)
    _join(passes, wanted)
    passes.sort(key=lambda members: -_padded(members, lengths))
    dealt = [passes[start : start + ranks] for start in range(0, len(passes), ranks)]  # alike passes at the same time
    return PassPlan(tuple(group[rank] for rank in range(ranks) for group in dealt), copies=1)


def _within_budget(lengths: Sequence[int], token_budget: int) -> Iterator[tuple[int, ...]]:
    """Turns of similar length together, each pass as full as the budget allows; a longer turn is alone."""
    members: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if members and (len(members) + 1) * lengths[i] > token_budget:
            yield tuple(members)
            members = []
        members.append(i)
    yield tuple(members)


def _split(passes: list[tuple[int, ...]], wanted: int) -> None:
    """Halve the passes with most turns until there are as many as wanted."""
    while len(passes) < wanted:
        largest = max(passes, key=len)
        passes.remove(largest)
        half = len(largest) // 2
        passes += [largest[:half], largest[half:]]


def _join(passes: list[tuple[int, ...]], wanted: int) -> None:
    """Put the two smallest passes together until there are as few as wanted."""
    while len(passes) > wanted:
        passes.sort(key=len, reverse=True)
        passes.append(passes.pop() + passes.pop())


def _padded(members: Sequence[int], lengths: Sequence[int]) -> int:
    return len(members) * max(lengths[i] for i in members)


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
