"""CSV and its relatives: which sign parts the columns, and rows that are not what the header promises."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from typing import TextIO

from medserl.data.columns import is_header_again
from medserl.data.encodings import BROKEN_BYTE, TextFile
from medserl.data.rows import BLANK_ROW, HEADER_AGAIN, Rows, SimpleNames, simple
from medserl.errors import DataError

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}

_LARGEST_FIELD = 2**31 - 1  # characters; the csv module's own limit of 131,072 is less than some notes
_NONE = "\x1f"
"""Parts nothing: a file of one column may have commas in its notes, unquoted."""
_END_OF_FILE = "\x1a"  # as DOS marked it
_HEAD = 1 << 16  # characters that the separator is judged by
_SEP_LINE = re.compile('\ufeff?"?sep=([^\r\n"])"?(\r\n|\r|\n)', re.IGNORECASE)
"""Excel's own first line, which names the separator."""


def read_delimited(text: TextFile, known: SimpleNames) -> Rows:
    """Rows of a CSV file whose separator is found by its header; `known` are names that a header may hold.

    Raises:
        DataError: quotes that do not match, two columns of one name, or a second header of other columns.
    """
    csv.field_size_limit(_LARGEST_FIELD)
    file = str(text.path)
    with text.lines() as lines:
        head = lines.read(_HEAD)
    named = _SEP_LINE.match(head)
    separator = named[1] if named else _separator(head, known, tab_first=".tsv" in text.path.name.lower())
    rows = Rows(file, separator=_named(separator))
    with text.lines() as lines:
        if named:
            lines.readline()
        _read(lines, separator, rows, known, before=1 if named else 0)
    return rows


def _read(lines: TextIO, separator: str, rows: Rows, known: SimpleNames, before: int) -> None:
    # newline="" leaves line breaks in a field as they are; strict refuses broken quotes instead of guessing.
    reader = csv.reader(_without_marks(lines), delimiter=separator, strict=True)
    header: tuple[str, ...] = ()
    begun = 1 + before
    try:
        for cells in reader:
            line = reader.line_num + before
            why = _unreadable(cells)
            if not any(cell.strip().strip(_END_OF_FILE) for cell in cells):
                rows.skip(line, BLANK_ROW)
            elif not header:
                header = _header(cells, rows.file, why)
                rows.columns = dict.fromkeys(filter(None, header))
            elif is_header_again(cells, header, known):
                _check_same_header(cells, header, f"{rows.file}, line {line}")
                rows.skip(line, HEADER_AGAIN)
            elif why or any(cell.strip() for cell in cells[len(header) :]):
                rows.skip(line, why or _too_many(cells, header, separator))
            else:
                cells += [""] * (len(header) - len(cells))
                rows.add(line, {name: cell for name, cell in zip(header, cells, strict=False) if name})
            begun = line + 1
    except csv.Error as error:
        line = max(reader.line_num + before, begun)
        opened = f"the row that begins at line {begun}" if begun < line else "this line"
        raise DataError(
            f"{rows.file}, line {line}: broken CSV ({error}), read with {rows.separator} as separator; "
            f"look in {opened} for a quotation mark that is not doubled or not closed"
        ) from None


def _without_marks(lines: TextIO) -> Iterator[str]:
    """Lines without a byte order mark at their head: files put together hold one in the middle."""
    for line in lines:
        yield line.removeprefix("\ufeff")


def _unreadable(cells: Sequence[str]) -> str | None:
    """What makes a row unusable whatever its columns mean."""
    joined = "\0".join(cells)
    broken = BROKEN_BYTE.search(joined)
    if broken:
        return f"a byte that is not UTF-8 (0x{ord(broken[0]) - 0xDC00:02x})"
    return "a zero byte" if joined.count("\0") >= max(1, len(cells)) else None


def _header(cells: Sequence[str], file: str, why: str | None) -> tuple[str, ...]:
    if why:
        raise DataError(f"{file}: the header holds {why}; save the file as UTF-8")
    names = [cell.strip() for cell in cells]
    twice = next((name for i, name in enumerate(names) if name and name in names[:i]), None)
    if twice is not None:
        raise DataError(f"{file}: two columns are called {twice!r}; rename one")
    return tuple(names)


def _check_same_header(cells: Sequence[str], header: Sequence[str], where: str) -> None:
    here = [simple(cell) for cell in cells if cell.strip()]
    if here != [simple(name) for name in header if name]:
        raise DataError(f"{where}: a second header with other columns than the first; make this a file of its own")


def _too_many(cells: Sequence[str], header: Sequence[str], separator: str) -> str:
    return f"{len(cells)} fields where the header has {len(header)} (a {_named(separator)} outside quotes?)"


def _separator(head: str, known: SimpleNames, *, tab_first: bool) -> str:
    """The sign that finds most known names in the header; where none finds one, the one that makes most columns."""
    order = ["\t", *SEPARATORS] if tab_first else list(SEPARATORS)

    def merit(separator: str) -> tuple[int, int, int]:
        cells = _first_row(head, separator)
        return sum(simple(cell) in known for cell in cells), len(cells), -order.index(separator)

    best = max(SEPARATORS, key=merit)
    return best if len(_first_row(head, best)) > 1 else _NONE


def _named(separator: str) -> str:
    return "nothing" if separator == _NONE else SEPARATORS.get(separator, repr(separator))


def _first_row(head: str, separator: str) -> list[str]:
    try:
        for cells in csv.reader(_without_marks_of(head), delimiter=separator):
            if any(cell.strip() for cell in cells):
                return cells
    except csv.Error:
        return []
    return []


def _without_marks_of(head: str) -> Iterator[str]:
    for line in re.split(r"(?<=\n)|(?<=\r)(?!\n)", head):
        yield line.removeprefix("\ufeff")
