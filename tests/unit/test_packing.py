"""Turns that share a row: nothing lost, nothing seen that is not one's own, and only what is worth it shared."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from medserl.engines.base import WeightedTurn, split_by_note
from medserl.engines.packing import PAD_TO, Ids, batches, pack, tensors, turns_of
from medserl.game.episode import Completion, Turn

TOKENS = st.lists(st.integers(0, 3), min_size=1, max_size=8).map(tuple)
TURNS = st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=8)
BUDGETS = st.integers(1, 200)


def completion(prompt: tuple[int, ...], said: tuple[int, ...]) -> Completion:
    return Completion("", prompt, said, (0.0,) * len(said), "stop")


@given(TURNS, BUDGETS)
def test_every_turn_can_be_read_back_from_its_row(turns: list[tuple[Ids, Ids]], budget: int) -> None:
    completions = [completion(*turn) for turn in turns]
    rows = pack(completions, budget)
    assert sorted(turns_of(rows)) == list(range(len(turns)))
    for row in rows:
        assert len(row) <= budget or len(row.turns) == 1
        for branch, (i, places) in enumerate(zip(row.turns, row.places, strict=True), start=1):
            mine = [place for place, owner in enumerate(row.branches) if owner in (0, branch)]
            prompt, said = turns[i]
            assert tuple(row.ids[place] for place in mine) == prompt + said
            assert [row.positions[place] for place in mine] == list(range(len(mine)))
            assert tuple(row.ids[place + 1] for place in places) == said
            assert all(row.branches[place] == branch for place in places)


@given(TURNS, BUDGETS)
def test_a_token_sees_its_own_turn_up_to_itself_and_nothing_else(turns: list[tuple[Ids, Ids]], budget: int) -> None:
    rows = pack([completion(*turn) for turn in turns], budget)
    _, _, related = tensors(rows, pad_id=0)
    for row, visible in zip(rows, related, strict=True):
        for place in range(visible.shape[0]):
            seen = visible[place].nonzero().flatten().tolist()
            if place >= len(row):
                assert place in seen and all(other >= len(row) for other in seen)  # no empty softmax
                continue
            owners = {0, row.branches[place]}
            assert seen == [other for other in range(place + 1) if row.branches[other] in owners]


@given(TURNS, BUDGETS)
def test_batches_hold_every_row_once_within_the_budget(turns: list[tuple[Ids, Ids]], budget: int) -> None:
    rows = pack([completion(*turn) for turn in turns], budget)
    passes = list(batches(rows, budget))
    assert sorted(turns_of([row for some in passes for row in some])) == list(range(len(turns)))
    for some in passes:
        ids, positions, _ = tensors(some, pad_id=0)
        assert ids.shape == positions.shape and ids.shape[1] % PAD_TO == 0
        assert len(some) == 1 or ids.numel() <= budget


def test_attempts_at_one_note_share_its_prompt_and_strangers_share_nothing() -> None:
    prompt, other = tuple(range(20)), tuple(range(50, 70))
    rows = pack([completion(prompt, (1, 2)), completion(other, (3,)), completion(prompt, (4, 5, 6))], longest=100)
    assert sorted(sorted(row.turns) for row in rows) == [[0, 2], [1]]
    assert {len(row) for row in rows} == {19 + 3 + 4, 21}


def test_little_in_common_is_not_worth_a_row() -> None:
    head = (9, 9, 9)
    assert len(pack([completion((*head, *range(10)), (1,)), completion((*head, *range(20, 30)), (1,))], 100)) == 2


def test_no_turns_give_no_rows() -> None:
    assert pack([], 100) == [] and list(batches([], 100)) == []


# -- mini-batches ------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 6), min_size=1, max_size=30), st.integers(1, 5))
def test_mini_batches_keep_the_turns_of_a_note_together_and_lose_none(notes: list[int], parts: int) -> None:
    turns = [
        WeightedTurn(Turn("injector", (), Completion("", (1,), (1,), (0.0,), "stop")), (0.0,), (1.0,), str(note))
        for note in notes
    ]
    mini_batches = split_by_note(turns, parts)
    assert len(mini_batches) == min(parts, len(set(notes))) and all(mini_batches)
    assert sum(map(len, mini_batches)) == len(turns)
    owners = [{turn.note_id for turn in mine} for mine in mini_batches]
    assert sum(map(len, owners)) == len(set(notes))


def test_one_mini_batch_is_the_whole_batch_in_order() -> None:
    turns = [
        WeightedTurn(Turn("injector", (), Completion("", (1,), (1,), (0.0,), "stop")), (0.0,), (1.0,), name)
        for name in ("a", "b", "c")
    ]
    assert split_by_note(turns, 1) == [turns]
