"""Files are private whatever the umask, and whole or not at all whatever happens while they are written."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from medserl.errors import OutputError
from medserl.files import append_private, private_folder, remove_folder, remove_leftovers, replace_folder, write_private


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_files_and_folders_are_their_owners_alone(tmp_path: Path) -> None:
    folder = private_folder(tmp_path / "deep" / "run")
    write_private(folder / "whole.txt", "note")
    append_private(folder / "log.txt", "note")
    assert mode(folder) == 0o700
    assert mode(folder / "whole.txt") == mode(folder / "log.txt") == 0o600


def test_files_of_an_earlier_version_become_private(tmp_path: Path) -> None:
    for write in (write_private, append_private):
        (tmp_path / "notes.txt").write_text("old\n")
        (tmp_path / "notes.txt").chmod(0o644)
        write(tmp_path / "notes.txt", "new\n")
        assert mode(tmp_path / "notes.txt") == 0o600


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir(mode=0o755)
    private_folder(tmp_path / "shared")
    assert mode(tmp_path / "shared") == 0o755


@pytest.mark.parametrize("content", ["a\r\n≥\ud800", ["a\r\n", "≥\ud800"], b"a\r\n\xe2\x89\xa5\xed\xa0\x80"])
def test_text_bytes_and_pieces_are_written_as_they_are(tmp_path: Path, content: str) -> None:
    write_private(tmp_path / "whole", content)
    append_private(tmp_path / "log", content)
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "log").read_bytes() == b"a\r\n\xe2\x89\xa5\xed\xa0\x80"


def test_a_writer_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    def pieces() -> Iterator[str]:
        yield "half"
        raise KeyboardInterrupt

    write_private(tmp_path / "file", "before")
    with pytest.raises(KeyboardInterrupt):
        write_private(tmp_path / "file", pieces())
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "before")]


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_FSIZE")
def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk."""
    code = """
import resource, signal, sys
from pathlib import Path
from medserl.errors import OutputError
from medserl.files import append_private, write_private

folder = Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for write in (write_private, append_private):
    write(folder / write.__name__, "before\\n")
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
for write in (write_private, append_private):
    try:
        write(folder / write.__name__, "x" * 100_000)
    except OutputError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert [line.partition(":")[2] for line in done.stdout.splitlines()] == [" cannot be written: File too large"] * 2
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "write_private": "before\n",
        "append_private": "before\n",
    }


def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for target, why in (
        (tmp_path, "it is a folder; give the name of a file"),
        (tmp_path / "none" / "file", "No such file or directory"),
        (tmp_path / "file" / "below", "Not a directory"),
        (tmp_path / "loop" / "below", "Too many levels of symbolic links"),
        (tmp_path / ("x" * 300), "File name too long"),
    ):
        with pytest.raises(OutputError, match=why) as caught:
            write_private(target, "text")
        assert "\n" not in str(caught.value)
    with pytest.raises(OutputError, match=r"file: cannot be written: File exists"):
        private_folder(tmp_path / "file")


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_device_is_written_to_and_stays_a_device(tmp_path: Path) -> None:
    before = os.stat("/dev/full")
    for write in (write_private, append_private):
        with pytest.raises(OutputError, match=r"/dev/full: cannot be written: No space left on device"):
            write(Path("/dev/full"), "text")
    write_private(Path("/dev/null"), "text")
    assert os.stat("/dev/full") == before


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "file")
    write_private(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "file").read_text() == "text"


def test_a_folder_is_replaced_and_removed_by_a_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("new", "place"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "file").write_text(name)
    replace_folder(tmp_path / "new", tmp_path / "place")
    assert [path.name for path in tmp_path.iterdir()] == ["place"]
    assert (tmp_path / "place" / "deep" / "file").read_text() == "new"

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove_folder(tmp_path / "place")
    assert not (tmp_path / "place").exists() or list((tmp_path / "place").rglob("file"))  # whole or gone
    (tmp_path / ".bashrc.old").touch()
    remove_leftovers(tmp_path, "pla*")
    remove_folder(tmp_path / "place")
    assert [path.name for path in tmp_path.iterdir()] == [".bashrc.old"]
