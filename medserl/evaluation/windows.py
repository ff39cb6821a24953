"""Windows of whole sentences: how a note that is longer than the model's context is read piece by piece."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

OVERLAP = 1
"""Sentences that a window shares with the one before it: an error may show only beside what was said just before."""

Window = tuple[int, int]
"""The sentences from the first number up to, but without, the second."""


def windows(count: int, fits: Callable[[int, int], bool]) -> list[Window] | int:
    """Windows, in order, that together hold each of `count` sentences; or the number of one that does not fit alone.

    `fits(start, end)` says whether sentences `start` to `end` have room together; what fits must fit without its last
    sentence. Each window is as long as it can be, and begins `OVERLAP` sentences before the end of the last one, unless
    that would leave no room for a new sentence.
    """
    found: list[Window] = []
    start = end = 0
    while end < count:
        start = max(end - OVERLAP, 0)
        if start < end and not fits(start, end + 1):
            start = end
        if not fits(start, end + 1):
            return end
        end += bisect_left(range(end + 1, count + 1), True, key=lambda stop: not fits(start, stop))
        found.append((start, end))
    return found
