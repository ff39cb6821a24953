"""Notes from standard input, in any form that a file of them may have: what comes says itself which one it is."""

from __future__ import annotations

import json
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medserl.data.encodings import GZIP
from medserl.data.rows import SimpleNames, simple
from medserl.errors import DataError
from medserl.files import write_private

NAME = "standard_input"
"""Of its notes' ids, where they have none of their own."""

_BY_MARK = {b"PK\x03\x04": ".xlsx", b"\xd0\xcf\x11\xe0": ".xls", b"PAR1": ".parquet"}
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_HEAD = 1 << 16


@contextmanager
def spooled(known: SimpleNames) -> Iterator[Path]:
    """All of standard input as a private file with the ending of its form, while this is under way.

    `known` are names that a header may hold, in simple form.

    Raises:
        DataError: standard input is closed, a terminal, or empty.
    """
    content = _read()
    with tempfile.TemporaryDirectory(prefix="medserl-") as folder:
        path = Path(folder) / f"{NAME}{form_of(content, known)}"
        write_private(path, content)
        try:
            yield path
        except DataError as error:
            raise DataError(str(error).replace(str(path), "standard input")) from None


def _read() -> bytes:
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None or sys.stdin.closed:
        raise DataError("standard input is closed; give a file, or pipe notes in")
    if stream.isatty():
        raise DataError("standard input is the keyboard; give a file, or pipe notes in")
    content: bytes = stream.read()
    if not content.strip():
        raise DataError("standard input is empty")
    return content


def form_of(content: bytes, known: SimpleNames) -> str:
    """The ending that a file of this content would have: JSON by its first line, a table by its header, else one note.

    Bytes that are no text are told by their mark.
    """
    if content.startswith(GZIP):
        return form_of(_unpacked_head(content), known) + ".gz"
    for mark, ending in _BY_MARK.items():
        if content.startswith(mark):
            return ending
    head = content[:_HEAD].decode("utf-16" if content.startswith(_UTF16) else "utf-8-sig", "replace").strip()
    first, _, rest = head.partition("\n")
    if _is_json(first) or (first[:1] in "[{" and _is_json(content)):
        return ".json"
    for separator in ",;\t|":
        names = {simple(cell.strip().strip('"')) for cell in first.split(separator)}
        if rest and names & set(known):
            return ".csv"
    return ".txt"


def _is_json(text: str | bytes) -> bool:
    try:
        return isinstance(json.loads(text), dict | list | str)
    except (ValueError, RecursionError):
        return False


def _unpacked_head(content: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(content, _HEAD)
    except zlib.error:
        return b""
