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


@given(TURNS, BUDGETS, st.booleans())
def test_every_turn_can_be_read_back_from_its_row(turns: list[tuple[Ids, Ids]], budget: int, share: bool) -> None:
    rows = pack([completion(*turn) for turn in turns], budget, share=share)
    assert sorted(turns_of(rows)) == list(range(len(turns)))
    for row in rows:
        assert len(row) <= budget or len(row.turns) == 1
        assert share or len(row.turns) == 1
        for number, (i, path) in enumerate(zip(row.turns, row.paths, strict=True)):
            prompt, said = turns[i]
            assert tuple(row.ids[place] for place in path) == (prompt + said)[:-1]
            assert [row.positions[place] for place in path] == list(range(len(path)))
            assert row.targets[number] == said
            assert row.places(number) == path[len(prompt) - 1 :]


@given(TURNS, BUDGETS)
def test_a_token_sees_its_ancestors_and_itself_and_nothing_else(turns: list[tuple[Ids, Ids]], budget: int) -> None:
    rows = pack([completion(*turn) for turn in turns], budget)
    _, _, related = tensors(rows, pad_id=0)
    for row, visible in zip(rows, related, strict=True):
        for place in range(len(row)):
            path = next(path for path in row.paths if place in path)
            assert visible[place].nonzero().flatten().tolist() == sorted(p for p in path if p <= place)
        for place in range(len(row), visible.shape[0]):
            assert visible[place].nonzero().flatten().tolist() == [place]  # no empty softmax


@given(TURNS)
def test_a_row_holds_no_beginning_twice(turns: list[tuple[Ids, Ids]]) -> None:
    for row in pack([completion(*turn) for turn in turns], longest=10_000):
        beginnings = {path[: n + 1]: n for path in row.paths for n in range(len(path))}
        texts = {tuple(row.ids[place] for place in path) for path in beginnings}
        assert len(texts) == len(row)


@given(TURNS, BUDGETS)
def test_batches_hold_every_row_once_within_the_budget(turns: list[tuple[Ids, Ids]], budget: int) -> None:
    rows = pack([completion(*turn) for turn in turns], budget)
    passes = list(batches(rows, budget))
    assert sorted(turns_of([row for some in passes for row in some])) == list(range(len(turns)))
    for some in passes:
        ids, positions, _ = tensors(some, pad_id=0)
        assert ids.shape == positions.shape and ids.shape[1] % PAD_TO == 0
        assert len(some) == 1 or ids.numel() <= budget


def test_all_turns_on_a_note_are_one_row_and_strangers_share_nothing() -> None:
    """Two tries, the Assessor on the edit and on the original: the note once, the edited part once, each task once."""
    note, rest, edited, other = tuple(range(20)), tuple(range(20, 26)), (40, *range(21, 26)), tuple(range(50, 70))
    task, question = (90, 91, 92), (80, 81)
    said = [
        completion((*note, *rest, *task), (1, 2)),
        completion((*note, *rest, *task), (4, 5, 6)),
        completion((*note, *edited, *question), (7, 8)),
        completion((*note, *rest, *question), (7,)),
        completion(other, (3,)),
    ]
    rows = pack(said, longest=200)
    assert sorted(sorted(row.turns) for row in rows) == [[0, 1, 2, 3], [4]]
    first_try, second_try, twin, original = 1, 2, 6 + 2 + 1, 2
    assert {len(row) for row in rows} == {20 + 6 + 3 + first_try + second_try + twin + original, 20}


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
