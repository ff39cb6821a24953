"""Folders that are no place for a run, or hold none: one line each. A run's own is its owner's alone."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from medserl.cli import main
from medserl.runs.runlog import read_settings

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="modes and links as POSIX has them")

TRAIN = [
    "train", "--engine", "scripted", "--rollout-batch-size", "2", "--max-rounds", "2", "--save-every", "1",
    "--eval-notes", "2", "--frozen-games", "2",
]  # fmt: skip


@pytest.fixture
def no_mask() -> Iterator[None]:
    """Files are as open as whoever writes them lets them be."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("no_mask")
def test_what_a_run_writes_is_its_owners_alone(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "one"
    main([*TRAIN, "--output-dir", str(run)])
    main(["train", "--resume", str(run), "--max-rounds", "3"])
    main(["evaluate", "--engine", "scripted", "--compare", "warmup", "--run", str(run), "--limit", "4"])
    main(["report", str(run)])
    modes = {str(path.relative_to(run)): stat.S_IMODE(path.stat().st_mode) for path in [run, *run.rglob("*")]}
    by_libraries = {name for name in modes if name.endswith("scripted.json")}
    assert {"report.html", "episodes.jsonl", "eval/table.md"} <= modes.keys() and by_libraries
    open_to_others = {name: oct(mode) for name, mode in modes.items() if mode & 0o077}
    assert open_to_others.keys() == by_libraries  # behind folders that are closed
    assert modes["."] == modes["checkpoints"] == 0o700


# -- places that are none ----------------------------------------------------------------------------------


def a_file(path: Path) -> None:
    path.write_text("in the way")


def below_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("in the way")


def a_loop(path: Path) -> None:
    path.symlink_to(path)


def a_dangling_link(path: Path) -> None:
    path.symlink_to(path.parent / "none")


def locked_by_a_folder(path: Path) -> None:
    (path / ".lock").mkdir(parents=True)


def refused_by_the_system(path: Path) -> None:
    path.symlink_to("/proc/1/medserl")


PLACES: list[Callable[[Path], None]] = [a_file, below_a_file, a_loop, locked_by_a_folder, refused_by_the_system]


def last_words(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ")
    return last


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_a_run_that_cannot_be_there(
    tmp_path: Path, place: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "folder" / "run"
    run.parent.mkdir()
    place(run)
    said = last_words(capsys, *TRAIN, "--output-dir", str(run))
    assert f"{run}: cannot write there: " in said


@pytest.mark.parametrize("place", [*PLACES, a_dangling_link, Path.mkdir], ids=lambda place: place.__name__)
def test_a_run_that_is_not_there(
    tmp_path: Path, place: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "folder" / "run"
    run.parent.mkdir()
    place(run)
    assert f"{run}: no config.toml there, so this is no run folder" in last_words(capsys, "train", "--resume", str(run))
    assert str(run) in last_words(capsys, "report", str(run))
    assert str(run) in last_words(capsys, "evaluate", "--engine", "scripted", "--run", str(run))


def test_a_run_without_permission(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may do everything: the system's answer to others stands in."""
    main([*TRAIN, "--output-dir", str(tmp_path / "run")])
    assert read_settings(tmp_path / "run").max_rounds == 2
    real = os.open

    def refuse(path: object, flags: int, *rest: object, **options: object) -> int:
        if str(path).startswith(str(tmp_path)) and flags & (os.O_WRONLY | os.O_RDWR):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, flags, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    run = str(tmp_path / "run")
    assert f"{run}: cannot write there: Permission denied" in last_words(capsys, "train", "--resume", run)
    said = last_words(capsys, "report", run)
    assert "report.html: cannot be written: Permission denied" in said and "--output FILE" in said
    main(["report", run, "--output", "/dev/null"])
