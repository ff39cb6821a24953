"""The fresh-batch sampler: every note once an epoch, balanced batches, and a resume that forgets nothing."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.data import corpus, sample_paths
from medserl.data.sample_paths import sample_path
from medserl.errors import ConfigError, DataError, RunError
from medserl.game.note import ERROR_TYPES, Note
from medserl.rounds.sampler import FreshBatchSampler, sample_games

SIZES = st.tuples(st.integers(1, 70), st.integers(1, 20))
SEEDS = st.integers(0, 2**63)


def make_notes(count: int) -> list[Note]:
    return [Note(f"n{i}", f"Note {i}.", error_type="diagnosis") for i in range(count)]


def batches(sampler: FreshBatchSampler, count: int):
    return [sampler.next_batch() for _ in range(count)]


def epoch_of(sampler: FreshBatchSampler):
    return [game for batch in batches(sampler, sampler.batches_per_epoch) for game in batch]


@given(SIZES, SEEDS)
def test_every_note_once_an_epoch_in_balanced_batches(sizes, seed):
    count, size = sizes
    notes = make_notes(count)
    sampler = FreshBatchSampler(notes, size, seed)
    for epoch in range(3):
        played = []
        for number in range(sampler.batches_per_epoch):
            assert sampler.epoch == epoch
            batch = sampler.next_batch()
            last = number == sampler.batches_per_epoch - 1
            assert len(batch) == (count - number * size if last else size)
            modes = Counter(game.mode for game in batch)
            assert abs(modes["error"] - modes["benign"]) == len(batch) % 2
            played += [game.note for game in batch]
        assert Counter(played) == Counter(notes)


@given(SIZES, SEEDS)
def test_without_benign_games_every_note_is_an_error_once_an_epoch(sizes, seed):
    notes = make_notes(sizes[0])
    sampler = FreshBatchSampler(notes, sizes[1], seed, benign=False)
    orders = [epoch_of(sampler) for _ in range(3)]
    for games in orders:
        assert Counter(game.note for game in games) == Counter(notes)
        assert {game.mode for game in games} == {"error"} and None not in {game.error_type for game in games}


def test_a_state_that_says_nothing_of_benign_games_is_of_both_modes():
    sampler = FreshBatchSampler(make_notes(10), 4, 0)
    state = {name: value for name, value in sampler.state_dict().items() if name != "benign"}
    sampler.load_state_dict(state)
    with pytest.raises(RunError, match="benign is False, but was True"):
        FreshBatchSampler(make_notes(10), 4, 0, benign=False).load_state_dict(state)


@given(SIZES, SEEDS)
def test_two_epochs_play_every_note_in_both_modes(sizes, seed):
    sampler = FreshBatchSampler(make_notes(sizes[0]), sizes[1], seed)
    for _ in range(2):
        modes = {}
        for game in epoch_of(sampler) + epoch_of(sampler):
            modes.setdefault(game.note.note_id, set()).add(game.mode)
        assert set(map(frozenset, modes.values())) == {frozenset({"error", "benign"})}


@given(SIZES, SEEDS, st.integers(0, 40), st.integers(0, 40))
def test_a_resumed_sampler_gives_exactly_the_later_batches(sizes, seed, before, elsewhere):
    notes = make_notes(sizes[0])
    sampler = FreshBatchSampler(notes, sizes[1], seed)
    batches(sampler, before)
    state = json.loads(json.dumps(sampler.state_dict()))
    resumed = FreshBatchSampler(notes, sizes[1], seed)
    batches(resumed, elsewhere)  # wherever it stood
    resumed.load_state_dict(state)
    assert resumed.epoch == sampler.epoch
    assert batches(resumed, 12) == batches(sampler, 12)
    assert resumed.state_dict() == sampler.state_dict()


def test_a_state_says_where_it_stands():
    sampler = FreshBatchSampler(make_notes(10), 4, 0)
    seen = []
    for _ in range(4):
        sampler.next_batch()
        seen.append((sampler.state_dict()["epoch"], sampler.state_dict()["position"]))
    assert seen == [(0, 1), (0, 2), (1, 0), (1, 1)]


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (FreshBatchSampler(make_notes(10), 5, 0), "batch_size is 5, but was 4"),
        (FreshBatchSampler(make_notes(10), 4, 1), "seed is 1, but was 0"),
        (FreshBatchSampler(make_notes(9), 4, 0), "notes_sha256"),
        (FreshBatchSampler(make_notes(10)[::-1], 4, 0), "notes_sha256"),
        (FreshBatchSampler(make_notes(10), 4, 0, benign=False), "benign is False, but was True"),
    ],
)
def test_a_state_of_other_notes_or_settings_is_refused(other, what):
    state = FreshBatchSampler(make_notes(10), 4, 0).state_dict()
    with pytest.raises(RunError, match=what):
        other.load_state_dict(state)


def test_the_seed_decides_everything_and_changes_everything():
    notes = make_notes(64)
    assert epoch_of(FreshBatchSampler(notes, 8, 3)) == epoch_of(FreshBatchSampler(notes, 8, 3))
    orders = {tuple(game.note.note_id for game in epoch_of(FreshBatchSampler(notes, 8, seed))) for seed in range(5)}
    modes = {
        tuple(sorted(g.note.note_id for g in epoch_of(FreshBatchSampler(notes, 8, seed)) if g.mode == "error"))
        for seed in range(5)
    }
    assert len(orders) == len(modes) == 5


def test_epochs_have_orders_of_their_own_and_batches_mix_the_modes():
    sampler = FreshBatchSampler(make_notes(64), 32, 0)
    orders = [[game.note.note_id for game in epoch_of(sampler)] for _ in range(4)]
    assert len(set(map(tuple, orders))) == 4
    modes = [game.mode for game in sampler.next_batch()]
    assert modes != ["error", "benign"] * 16 and modes != ["benign", "error"] * 16


def test_error_types_are_drawn_evenly_and_only_in_error_mode():
    sampler = FreshBatchSampler(make_notes(2000), 50, 0)
    games = epoch_of(sampler)
    assert {game.error_type for game in games if game.mode == "benign"} == {None}
    drawn = Counter(game.error_type for game in games if game.mode == "error")
    assert set(drawn) == set(ERROR_TYPES)
    assert all(150 <= count <= 250 for count in drawn.values())  # 200 expected, standard deviation 13


def test_only_notes_with_a_correct_text_are_played(caplog):
    notes = [*make_notes(3), Note("wrong", None, "An error.")]
    sampler = FreshBatchSampler(notes, 2, 0)
    assert {game.note.note_id for game in epoch_of(sampler)} == {"n0", "n1", "n2"}
    assert caplog.messages == ["1 notes without a correct text are left out of play"]
    with pytest.raises(DataError, match="none of the 1 notes has a correct text"):
        FreshBatchSampler(notes[3:], 2, 0)


def test_bad_sizes(caplog):
    with pytest.raises(ConfigError, match="use at least 1"):
        FreshBatchSampler(make_notes(3), 0, 0)
    assert [len(batch) for batch in batches(FreshBatchSampler(make_notes(3), 8, 0), 2)] == [3, 3]
    assert caplog.messages == ["batches of 8 were asked for, but there are only 3 notes"]


def write_sample(folder: Path, count: int) -> Path:
    path = folder / "medec_train_sample.jsonl"
    rows = ({"note_id": f"n{i}", "correct_note": f"Note {i}."} for i in range(count))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_sample_games_from_a_file(tmp_path):
    path = write_sample(tmp_path, 70)
    games = sample_games(path=path)
    assert len({game.note for game in games}) == 64
    assert Counter(game.mode for game in games) == {"error": 32, "benign": 32}
    assert sample_games(path=path) == games != sample_games(path=path, seed=1)
    with pytest.raises(DataError, match="71 notes were asked for, but it has 70"):
        sample_games(71, path)


def test_the_repositorys_sample_notes_come_first(tmp_path, monkeypatch):
    monkeypatch.setattr(sample_paths, "_REPOSITORY_DATA", tmp_path)
    path = write_sample(tmp_path, 8)
    assert sample_path("train") == path
    assert {game.note.note_id for game in sample_games(8)} == {f"n{i}" for i in range(8)}


def test_without_a_repository_they_are_built_once_in_the_cache(tmp_path, monkeypatch):
    built = []

    def build(directory: Path) -> None:
        built.append(directory)
        for split in ("train", "validation", "test"):
            (directory / f"medec_{split}_sample.jsonl").write_text('{"correct_note": "Well."}\n', encoding="utf-8")

    monkeypatch.setattr(sample_paths, "_REPOSITORY_DATA", tmp_path / "nowhere")
    monkeypatch.setattr(corpus, "write_corpus", build)
    monkeypatch.setenv("MEDSERL_CACHE", str(tmp_path / "cache"))
    paths = [sample_path(split) for split in ("train", "validation", "test")]
    assert [path.name for path in paths] == list(corpus.FILES.values())
    assert all(path.is_file() for path in paths)
    assert len(built) == 1
    assert not built[0].exists()


def test_a_failed_build_leaves_nothing_half_done(tmp_path, monkeypatch):
    def build(directory: Path) -> None:
        (directory / "medec_train_sample.jsonl").write_text("{", encoding="utf-8")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sample_paths, "_REPOSITORY_DATA", tmp_path / "nowhere")
    monkeypatch.setattr(corpus, "write_corpus", build)
    monkeypatch.setenv("MEDSERL_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataError, match=r"cannot be written there \(No space left on device\); free some space"):
        sample_path("train")
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()] == []


def test_an_unknown_split_is_refused():
    with pytest.raises(DataError, match="no sample notes called 'tset'; there are train, validation, test"):
        sample_path("tset")
