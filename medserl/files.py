"""The one way MedSeRL writes files: private, because they hold notes, and whole or not at all, because runs get killed.

Private is mode 0600 for a file and 0700 for a folder, whatever the umask. Whole means that a file is written beside its
place, brought to the disk (fsync) and renamed: a kill or a full disk leaves what was there before. All functions raise
OutputError, one line that names the file and the reason.

    write_private(path, text)          a whole file, of text, bytes or an iterable of them
    append_private(path, text)         lines added to a log
    private_folder(path)               a folder, and its parents
    replace_folder(scratch, target)    a folder written beside its place, brought to the disk and put there
    remove_folder(path)                a folder that is gone at once, whenever the process is killed
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from platformdirs import user_cache_path

from medserl.errors import OutputError

FILE_MODE, FOLDER_MODE = 0o600, 0o700
Content = str | bytes | Iterable[str] | Iterable[bytes]


def cache_dir() -> Path:
    """Where built files are kept, weights and sample notes: `$MEDSERL_CACHE`, else the user's cache folder."""
    return Path(os.environ.get("MEDSERL_CACHE") or user_cache_path("medserl"))


def private_folder(path: Path) -> Path:
    """The folder, made with mode 0700 where it is not there; one that is there keeps its mode."""
    with _errors_named(path):
        if not path.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(mode=FOLDER_MODE, exist_ok=True)  # another process may have been quicker
    return path


def write_private(path: Path, content: Content) -> None:
    """Write the file whole or not at all, piece by piece where `content` is an iterable.

    Text is written as UTF-8, line ends as they are; half a surrogate pair is written as it came (`surrogatepass`). A
    link is followed. A device or a pipe (`/dev/stdout`) is written to as it is.
    """
    with _errors_named(path):
        _refuse_folder(path)
        if path.exists() and not path.is_file():
            with path.open("wb") as device:
                device.writelines(_pieces(content))
            return
        target = Path(os.path.realpath(path))
        scratch = target.with_name(f".{target.name}.partial")
        try:
            scratch.unlink(missing_ok=True)  # a killed process left it
            with os.fdopen(_open(scratch, os.O_CREAT | os.O_EXCL), "wb") as file:
                file.writelines(_pieces(content))
                file.flush()
                os.fsync(file.fileno())
            os.replace(scratch, target)
        except BaseException:
            with suppress(OSError):  # the first error is the one to tell, and what is left is removed next time
                scratch.unlink(missing_ok=True)
            raise
        _sync(target.parent)


def append_private(path: Path, content: Content) -> None:
    """Add to the end of the file, which is made where it is not there, and bring it to the disk: all of it or none."""
    rest = memoryview(b"".join(_pieces(content)))
    with _errors_named(path):
        file = _open(path, os.O_CREAT | os.O_APPEND)
        before = os.fstat(file)
        ordinary = stat.S_ISREG(before.st_mode)
        try:
            if ordinary and stat.S_IMODE(before.st_mode) & ~FILE_MODE:
                os.fchmod(file, FILE_MODE)  # a file of an earlier version
            while rest:
                rest = rest[os.write(file, rest) :]
            if ordinary:
                os.fsync(file)
        except OSError:
            if ordinary:
                os.ftruncate(file, before.st_size)  # half a line would spoil the next one
            raise
        finally:
            os.close(file)


def replace_folder(scratch: Path, target: Path) -> None:
    """Put the folder `scratch` in the place of `target`, after all that is in it has come to the disk."""
    with _errors_named(target):
        for path in scratch.rglob("*"):
            if not path.is_symlink():
                _sync(path)
        _sync(scratch)
        if target.exists():
            remove_folder(target)
        os.replace(scratch, target)
        _sync(target.parent)


def remove_folder(path: Path) -> None:
    """Rename the folder to `.NAME.old`, then delete it: a kill in between leaves nothing that looks whole."""
    with _errors_named(path):
        old = path.with_name(f".{path.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(path, old)
        shutil.rmtree(old)


def remove_leftovers(folder: Path, name: str) -> None:
    """Remove what killed writers left of the files or folders called `name` (`*` stands for anything)."""
    with _errors_named(folder):
        for path in [*folder.glob(f".{name}.partial"), *folder.glob(f".{name}.old")]:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file; of a folder, that of the names and contents of all files below it."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        listing = "".join(f"{sha256_of(file)}  {file.relative_to(path).as_posix()}\n" for file in files)
        return hashlib.sha256(listing.encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error


def _refuse_folder(path: Path) -> None:
    if path.is_dir():
        raise OutputError(f"{path}: cannot be written: it is a folder; give the name of a file")


def _open(path: Path, flags: int) -> int:
    return os.open(path, os.O_WRONLY | flags | getattr(os, "O_BINARY", 0), FILE_MODE)


def _sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk. Windows knows that of files alone."""
    if os.name != "posix" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (path.is_dir() and error.errno in (errno.EINVAL, errno.ENOTSUP)):  # not every file system does folders
            raise
    finally:
        os.close(descriptor)


def _pieces(content: Content) -> Iterator[bytes]:
    for piece in [content] if isinstance(content, str | bytes) else content:
        yield piece.encode("utf-8", "surrogatepass") if isinstance(piece, str) else piece
