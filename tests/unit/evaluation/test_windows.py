"""Windows of whole sentences."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from medserl.evaluation.windows import OVERLAP, windows

LENGTHS = st.lists(st.integers(1, 12), max_size=40)


@given(LENGTHS, st.integers(1, 40))
def test_every_sentence_is_in_a_window_and_no_window_is_too_long(lengths: list[int], room: int) -> None:
    found = windows(len(lengths), lambda start, end: sum(lengths[start:end]) <= room)
    if isinstance(found, int):
        assert lengths[found] > room
        assert all(length <= room for length in lengths[:found])
        return
    assert all(length <= room for length in lengths)
    assert {sentence for window in found for sentence in range(*window)} == set(range(len(lengths)))
    assert all(start < end and sum(lengths[start:end]) <= room for start, end in found)


@given(LENGTHS, st.integers(1, 40))
def test_windows_overlap_where_there_is_room_and_are_as_long_as_they_can_be(lengths: list[int], room: int) -> None:
    found = windows(len(lengths), lambda start, end: sum(lengths[start:end]) <= room)
    if isinstance(found, int):
        return
    assert all(sum(lengths[start : end + 1]) > room for start, end in found if end < len(lengths))
    for (start, end), (following, _) in itertools.pairwise(found):
        assert start < following
        assert following == end - OVERLAP or (following == end and lengths[end - 1] + lengths[end] > room)


def test_a_note_that_fits_is_one_window_and_an_empty_one_has_none() -> None:
    assert windows(5, lambda start, end: True) == [(0, 5)]
    assert windows(0, lambda start, end: True) == []
    assert windows(6, lambda start, end: end - start <= 3) == [(0, 3), (2, 5), (4, 6)]
    assert windows(3, lambda start, end: start > 1 or end < 2) == 1
