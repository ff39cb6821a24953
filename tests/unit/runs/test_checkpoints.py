"""A checkpoint is taken only where every file is as it was written; else the newest whole one is, and that is said."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from medserl.errors import RunError
from medserl.runs.checkpoints import MANIFEST, STATE_FILE, Checkpoints, find_damage


def write_model(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(b"weights" * 1000)
    (folder / "injector").mkdir()
    (folder / "injector" / "weights.bin").write_bytes(b"its own")
    (folder / "empty.txt").touch()


@pytest.fixture
def saved(tmp_path: Path) -> Checkpoints:
    checkpoints = Checkpoints(tmp_path)
    for number in (2, 4, 6):
        checkpoints.save({"round": number, "best": {"round": 2}}, write_model, keep=5)
    return checkpoints


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garble(path: Path) -> None:
    path.write_bytes(b"\x00" + path.read_bytes()[1:] if path.stat().st_size else b"\x00")


def make_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


FILES = [STATE_FILE, MANIFEST, "weights.bin", "injector/weights.bin", "empty.txt"]
DAMAGES: list[Callable[[Path], None]] = [truncate, garble, Path.unlink, make_a_folder]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", FILES)
def test_the_newest_whole_one_is_taken(
    saved: Checkpoints, name: str, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    if (name, damage) == ("empty.txt", truncate):
        pytest.skip("half of nothing is nothing")
    damage(saved.folder / "round_6" / name)
    found = saved.newest()
    assert found is not None and found[0].name == "round_4" and found[1]["round"] == 4
    (warning,) = caplog.messages
    assert f"checkpoint {saved.folder / 'round_6'} is damaged: {name} " in warning and "taking round_4" in warning


def test_damaged_ones_are_set_aside_and_never_push_a_whole_one_out(
    saved: Checkpoints, caplog: pytest.LogCaptureFixture
) -> None:
    truncate(saved.folder / "round_6" / "weights.bin")
    with caplog.at_level(logging.WARNING, "medserl"):
        saved.set_aside_after(4)
    assert "round_6 is now called damaged_round_6 and is not used any more: delete it" in caplog.text
    saved.save({"round": 5}, write_model, keep=2)
    assert sorted(path.name for path in saved.folder.iterdir()) == ["damaged_round_6", "round_4", "round_5"]


def test_where_none_is_whole_that_is_one_line(saved: Checkpoints) -> None:
    for folder in saved.folder.iterdir():
        (folder / MANIFEST).unlink()
    with pytest.raises(
        RunError, match=r"round_6 is damaged: manifest\.json is missing, and no other is whole"
    ) as caught:
        saved.newest()
    assert "\n" not in str(caught.value)


def test_a_damaged_best_is_one_line(saved: Checkpoints) -> None:
    assert saved.best() == saved.folder / "round_2"
    truncate(saved.folder / "round_2" / "weights.bin")
    with pytest.raises(RunError, match=r"round_2, the best of the run, is damaged: weights\.bin is not as"):
        saved.best()


def test_other_names_are_no_checkpoints(saved: Checkpoints) -> None:
    for name in ("round_x", "round_", "round_7.bak", ".round_8.partial"):
        shutil.copytree(saved.folder / "round_6", saved.folder / name)
    assert [folder.name for folder in saved.complete()] == ["round_2", "round_4", "round_6"]


def test_what_killed_writers_left_is_removed(saved: Checkpoints) -> None:
    for name in (".round_8.partial", ".round_1.old"):
        shutil.copytree(saved.folder / "round_6", saved.folder / name)
    saved.set_aside_after(6)
    assert sorted(path.name for path in saved.folder.iterdir()) == ["round_2", "round_4", "round_6"]


def test_an_old_checkpoint_that_cannot_be_removed_is_said_and_stays(
    saved: Checkpoints, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("medserl.files.shutil.rmtree", refuse)
    saved.save({"round": 7}, write_model, keep=1)
    assert "an old checkpoint stays" in caplog.text and find_damage(saved.folder / "round_7") is None
