"""Bytes to text: whether a file is text at all, in which encoding, and which of its bytes are broken.

A file is read twice, a piece at a time: once to decide by the whole of it, once to give its lines. What is not UTF-8 in
a file that mostly is comes as lone surrogates (`BROKEN_BYTE`), so that its rows can be left out by name.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import logging
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from medserl.errors import DataError

log = logging.getLogger("medserl")

BROKEN_BYTE = re.compile("[\udc80-\udcff]")
"""A byte that is not UTF-8, as Python's `surrogateescape` shows it."""

_PIECE = 1 << 20
GZIP = b"\x1f\x8b"
_OTHER_KINDS = {
    b"PK\x03\x04": "a zip archive (an Excel workbook is read as .xlsx); unpack or rename it",
    b"%PDF": "a PDF; copy its text into a .txt file",
    b"PAR1": "a Parquet file; rename it to .parquet",
    b"\xd0\xcf\x11\xe0": "an old Word or Excel file; save it as .xlsx or .csv",
    b"BZh": "packed with bzip2; unpack it",
    b"\xfd7zXZ": "packed with xz; unpack it",
    b"\x28\xb5\x2f\xfd": "packed with zstd; unpack it",
}
_MARKS = (  # the longer ones first: UTF-32's mark begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1a\x1b")) + b"\x7f"
_MOST_CONTROLS = 0.002
"""Share of control characters above which a file is no text; a stray one happens in exports."""
_MOST_ACCENTS = 0.3
"""Share of characters beyond ASCII above which a file of unknown encoding is not Windows-1252."""
# No Western text has these between two letters; other code pages have letters there.
_NOT_WITHIN_WORDS = re.compile(r"[^\W\d_](?=(?:(?![^\W\d_])|(?=[¹²³¼½¾]))[^\s\x00-\x7f’–—…·\xad®™][^\W\d_])")


@dataclass(frozen=True)
class TextFile:
    """A file that is text: how to decode it, and the SHA-256 of its bytes as they lie on the disk."""

    path: Path
    encoding: str
    sha256: str

    @contextmanager
    def lines(self, newline: str | None = "") -> Iterator[TextIO]:
        """The text, opened; `newline` is that of `open`.

        Raises:
            DataError: the file cannot be read to its end, or its bytes are broken UTF-16.
        """
        errors = "surrogateescape" if self.encoding == "utf-8-sig" else "strict"
        with (
            _reading(self.path),
            io.TextIOWrapper(_open(self.path), encoding=self.encoding, errors=errors, newline=newline) as file,
        ):
            yield file


def examine(path: Path) -> TextFile:
    """Decide how to decode a file: by its byte order mark, else UTF-8, else Windows-1252 with a line in the log.

    Nothing is repaired: text that was damaged before it was published stays as it is.

    Raises:
        DataError: no regular file, an unreadable or empty one, or one that is no text in a known encoding.
    """
    check_regular(path)
    with _reading(path):
        digest = hashlib.sha256()
        with path.open("rb") as raw:
            while piece := raw.read(_PIECE):
                digest.update(piece)
        with _open(path) as file:
            head = file.read(64)
        if not head.strip(codecs.BOM_UTF8 + b" \t\r\n"):
            _refuse_if_blank(path)
        kind = next((what for mark, what in _OTHER_KINDS.items() if head.startswith(mark)), None)
        if kind:
            raise DataError(f"{path}: not a text file but {kind}")
        marked = next((name for mark, name in _MARKS if head.startswith(mark)), None)
        encoding = marked if marked and marked != "utf-8-sig" else _unmarked(path)
    return TextFile(path, encoding, digest.hexdigest())


def check_regular(path: Path) -> None:
    """Raises DataError where there is no ordinary file: a pipe would be waited for, a device may never end."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the path") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if stat.S_ISDIR(mode):
        raise DataError(f"{path}: cannot be read: Is a directory")
    if not stat.S_ISREG(mode):
        what = "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
        raise DataError(f"{path}: {what}, not a file; save what it gives to a file first")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: broken gzip ({error}); pack or copy it again") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: broken {error.encoding.upper()} ({error.reason}); save the file as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def _open(path: Path) -> BinaryIO:
    """The file's bytes, unpacked where gzip packed them, whatever its name says."""
    with path.open("rb") as file:
        packed = file.read(len(GZIP)) == GZIP
    return cast(BinaryIO, gzip.open(path, "rb") if packed else path.open("rb"))


def _pieces(path: Path) -> Iterator[bytes]:
    with _open(path) as file:
        while piece := file.read(_PIECE):
            yield piece


def _refuse_if_blank(path: Path) -> None:
    if not any(piece.strip(codecs.BOM_UTF8 + b" \t\r\n") for piece in _pieces(path)):
        raise DataError(f"{path}: the file is empty; it should hold notes")


def _unmarked(path: Path) -> str:
    """The encoding of a file without a mark of UTF-16 or UTF-32."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    size = controls = zeros = broken = beyond_ascii = 0
    for piece in _pieces(path):
        size += len(piece)
        zeros += piece.count(0)
        controls += len(piece) - len(piece.translate(None, delete=_CONTROLS))
        if not piece.isascii() or decoder.getstate()[0]:
            text = decoder.decode(piece)
            broken += len(BROKEN_BYTE.findall(text))
            beyond_ascii += sum(map(len, re.findall(r"[^\x00-\x7f]+", text)))
    broken += len(decoder.decode(b"", final=True))
    if zeros > size / 5:
        raise DataError(f"{path}: holds zero bytes, as UTF-16 without a byte order mark does; save it as UTF-8")
    whole = beyond_ascii - broken
    if broken and broken > whole:
        if controls > 2 + size * _MOST_CONTROLS:
            raise DataError(f"{path}: neither UTF-8 nor Windows-1252 but full of control characters, so no text file")
        _check_windows(path, whole)
        return "cp1252"
    return "utf-8-sig"


def _check_windows(path: Path, utf8_like: int) -> None:
    """Say that the file is read as Windows-1252. Raises DataError where it cannot be that, or is unlikely to be."""
    size = accents = odd = first = lines = 0
    example = ""
    with io.TextIOWrapper(_open(path), encoding="cp1252", errors="surrogateescape", newline=None) as text:
        for line in text:
            lines += 1
            broken = BROKEN_BYTE.search(line)
            if broken:
                byte = ord(broken[0]) - 0xDC00
                raise DataError(
                    f"{path}, line {lines}: byte 0x{byte:02x} is neither UTF-8 nor Windows-1252; save the file as UTF-8"
                )
            size += len(line)
            if not line.isascii():
                accents += sum(map(len, re.findall(r"[^\x00-\x7f]+", line)))
                odd += len(_NOT_WITHIN_WORDS.findall(line))
                first, example = first or lines, example or re.findall(r"[^\x00-\x7f]", line)[0]
    if accents > size * _MOST_ACCENTS or odd > accents / 4:
        raise DataError(
            f"{path}, line {first}: not UTF-8, and read as Windows-1252 it would hold signs that make no words; "
            "save the file as UTF-8"
        )
    mixed = f"; {utf8_like} characters look like UTF-8" if utf8_like else ""
    log.warning("%s: not UTF-8, so read as Windows-1252 (cp1252), first at line %d: %r%s", path, first, example, mixed)
