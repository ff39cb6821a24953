"""Files to rows: encodings, and the syntax of CSV and JSON Lines; `readers` says what a row means."""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medserl.errors import DataError

log = logging.getLogger("medserl")

BLANK_ROW = "blank row"
_LARGEST_FIELD = 2**31 - 1  # characters; the csv module's own limit of 131,072 is less than some notes


@dataclass(frozen=True)
class SkippedRow:
    """A row that was not used. `line` counts from 1; a CSV row of several lines is named by its last one."""

    file: str
    line: int
    why: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.why}"


@dataclass(frozen=True)
class Row:
    """The values of one row by column; text in a CSV file, any JSON value in JSON Lines."""

    line: int
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows in the file's order, the rows that are blank or broken in themselves, and the file's checksum."""

    file: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    skipped: tuple[SkippedRow, ...]
    sha256: str


def read_table(path: str | Path) -> Table:
    """Read a .csv, .jsonl or .ndjson file.

    Raises:
        DataError: the file is missing, unreadable, empty, in no known encoding, or broken at a named line.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in (".csv", ".jsonl", ".ndjson"):
        raise DataError(f"{path}: cannot tell the format from the name; use a .csv or .jsonl file")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    text = decode(content, str(path))
    if not text.strip():
        raise DataError(f"{path}: the file is empty; it should hold notes")
    columns, rows, skipped = _csv_rows(text, str(path)) if kind == ".csv" else _json_rows(text, str(path))
    return Table(str(path), columns, tuple(rows), tuple(skipped), hashlib.sha256(content).hexdigest())


def decode(content: bytes, file: str) -> str:
    """Text of a file: by its byte order mark, else UTF-8, else Windows-1252 with a line in the log.

    Nothing is repaired: text that was damaged before it was published stays as it is.
    """
    try:
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            text = content.decode("utf-16")
        else:
            text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.encoding.startswith("utf-16"):
            raise DataError(f"{file}: broken UTF-16 at byte {error.start}; save the file as UTF-8") from None
        text = _decode_windows(content, file)
    if "\0" in text:
        raise DataError(f"{file}: holds zero bytes, so it is no text in a known encoding; save it as UTF-8")
    return text


def _decode_windows(content: bytes, file: str) -> str:
    try:
        text = content.decode("cp1252")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file}: byte {error.start} is neither UTF-8 nor Windows-1252 text; save the file as UTF-8"
        ) from None
    log.warning("%s: not UTF-8, so read as Windows-1252 (cp1252)", file)
    return text


def _csv_rows(text: str, file: str) -> tuple[tuple[str, ...], list[Row], list[SkippedRow]]:
    csv.field_size_limit(_LARGEST_FIELD)
    # newline="" leaves line breaks in a field as they are; strict refuses broken quotes instead of guessing.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: tuple[str, ...] = ()
    rows: list[Row] = []
    skipped: list[SkippedRow] = []
    try:
        for cells in reader:
            blank = not any(cell.strip() for cell in cells)
            if not columns and not blank:
                columns = _header(cells, file)
            elif blank:
                skipped.append(SkippedRow(file, reader.line_num, BLANK_ROW))
            elif any(cell.strip() for cell in cells[len(columns) :]):
                why = f"{len(cells)} fields where the header has {len(columns)} (a comma outside quotes?)"
                skipped.append(SkippedRow(file, reader.line_num, why))
            else:
                cells += [""] * (len(columns) - len(cells))
                rows.append(Row(reader.line_num, dict(zip(columns, cells, strict=False))))
    except csv.Error as error:
        raise DataError(
            f"{file}, line {reader.line_num}: broken CSV ({error}); "
            "look for a quotation mark that is not doubled or not closed"
        ) from None
    return columns, rows, skipped


def _header(cells: Sequence[str], file: str) -> tuple[str, ...]:
    names = [cell.strip() for cell in cells]
    twice = next((name for i, name in enumerate(names) if name and name in names[:i]), None)
    if twice is not None:
        raise DataError(f"{file}: two columns are called {twice!r}; rename one")
    return tuple(names)


def _json_rows(text: str, file: str) -> tuple[tuple[str, ...], list[Row], list[SkippedRow]]:
    columns: dict[str, None] = {}
    rows: list[Row] = []
    skipped: list[SkippedRow] = []
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        if not line.strip():
            skipped.append(SkippedRow(file, number, BLANK_ROW))
            continue
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{file}, line {number}: broken JSON ({error.msg} at column {error.colno}); mend or delete it"
            ) from None
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file}, line {number}: unreadable JSON ({error}); mend or delete it") from None
        if not isinstance(values, dict):
            raise DataError(f'{file}, line {number}: not a JSON object; each line should be one: {{"note": "..."}}')
        columns.update(dict.fromkeys(values))
        rows.append(Row(number, values))
    return tuple(columns), rows, skipped
