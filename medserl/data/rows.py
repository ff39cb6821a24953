"""A table of notes before anyone asks what its columns mean: rows, the ones left out, and where both stand."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

BLANK_ROW = "blank row"
HEADER_AGAIN = "the header again"


@dataclass(frozen=True)
class SkippedRow:
    """A row that was not used. `line` counts from 1; a CSV row of several lines is named by its last one.

    `unit` is what `line` counts: lines of a text file, rows of a workbook or table, items of a JSON list, files.
    """

    file: str
    line: int
    why: str
    unit: str = "line"

    def __str__(self) -> str:
        return f"{self.file}, {self.unit} {self.line}: {self.why}"


@dataclass(frozen=True)
class Row:
    """The values of one row by column: text in a CSV file, any value in the other forms."""

    line: int
    values: Mapping[str, Any]


@dataclass
class Rows:
    """What a reader of one form gathers: the columns, the rows in their order, and those left out.

    `separator` names what parts the columns of a text file; None where the form has no such thing.
    """

    file: str
    unit: str = "line"
    separator: str | None = None
    columns: dict[str, None] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    skipped: list[SkippedRow] = field(default_factory=list)

    def add(self, line: int, values: Mapping[str, Any]) -> None:
        """Keep a row; columns are those of all rows, in the order in which they first occur."""
        self.columns.update(dict.fromkeys(values))
        self.rows.append(Row(line, values))

    def skip(self, line: int, why: str) -> None:
        self.skipped.append(SkippedRow(self.file, line, why, self.unit))

    def table(self, sha256: str) -> Table:
        return Table(
            self.file, tuple(self.columns), tuple(self.rows), tuple(self.skipped), sha256, self.unit, self.separator
        )


@dataclass(frozen=True)
class Table:
    """Rows in the file's order, the rows that are blank or broken in themselves, and the file's checksum."""

    file: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    skipped: tuple[SkippedRow, ...]
    sha256: str
    unit: str = "line"
    separator: str | None = None


SimpleNames = Collection[str]
"""Names of columns in their simple form."""


def simple(name: str) -> str:
    """A name without its case and signs: `Text ID` and `textId` are `text_id`."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
    return re.sub(r"[\W_]+", "_", parted.casefold()).strip("_")
