"""A kill, or a power cut, at any change of the disk: that change and all after it do not happen.

A process cannot be killed a hundred times quickly, so it is only stopped from writing: what follows a kill, clean-up
included, finds every change refused. What had not been brought to the disk (fsync) when it came is lost by half.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
_fsync, _write = os.fsync, os.write


class Killed(BaseException):
    """No code under test catches it."""


class Disk:
    """Counts the changes below a folder; from the `last`-th on (0: never) they are refused."""

    def __init__(self, folder: Path, last: int) -> None:
        self.folder, self.last, self.changes = str(folder), last, 0
        self.safe: dict[int, int] = {}
        """Bytes of a file, by its number, that have been brought to the disk."""

    def change(self) -> bool:
        """Whether it is refused."""
        self.changes += 1
        return bool(self.last) and self.changes >= self.last


_disk: Disk | None = None


@contextmanager
def killed_at(folder: Path, change: int = 0) -> Iterator[Disk]:
    """Inside, the process dies at this change of the disk below `folder`; with 0 changes are counted alone."""
    global _disk
    _disk = Disk(folder, change)
    os.fsync, os.write = _killed_fsync, _killed_write
    try:
        yield _disk
    except Killed:
        pass
    finally:
        _disk = None
        os.fsync, os.write = _fsync, _write


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _disk is None:
        return
    if event == "open":
        path, _, flags = arguments
        if not (flags & _WRITES and isinstance(path, str | os.PathLike) and str(path).startswith(_disk.folder)):
            return
    elif event not in _CHANGES:
        return
    if _disk.change():
        raise Killed


def _killed_fsync(descriptor: int) -> None:
    global _disk
    disk, file = _disk, os.fstat(descriptor)
    assert disk is not None
    if not disk.change():
        disk.safe[file.st_ino] = file.st_size
        _fsync(descriptor)
        return
    if disk.changes == disk.last and stat.S_ISREG(file.st_mode):
        _disk = None  # the disk itself does this
        os.truncate(f"/proc/self/fd/{descriptor}", (disk.safe.get(file.st_ino, 0) + file.st_size) // 2)
        _disk = disk
    raise Killed


def _killed_write(descriptor: int, data: Any) -> int:
    assert _disk is not None
    if _disk.change():
        if _disk.changes == _disk.last:
            _write(descriptor, bytes(data)[: len(data) // 2])
        raise Killed
    return _write(descriptor, data)


sys.addaudithook(_hook)
