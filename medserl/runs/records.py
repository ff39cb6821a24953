"""Rows of metrics.jsonl and episodes.jsonl, read line by line: the games of a run take hundreds of megabytes.

A line that is no JSON object is left out, and the log names it. So is a last line without its end: a kill cut it short.
"""

from __future__ import annotations

import json
import logging
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from medserl.config.removed import with_figures_renamed
from medserl.errors import RunError

log = logging.getLogger("medserl")

Record = Mapping[str, Any]
"""A JSON object that a run or an evaluation wrote, for reading: a row of figures, a game, what was evaluated."""

_LINES_NAMED = 3


class RecordsOnDisk(Sequence[dict[str, Any]]):
    """The rows of a file as a sequence that holds their places alone; each row is read when it is asked for.

    Raises RunError where the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places = array("Q", (place for place, _, _ in _scan(path)))

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._read(self._places)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return list(self._read(self._places[index]))
        return next(self._read([self._places[index]]))

    def _read(self, places: Sequence[int]) -> Iterator[dict[str, Any]]:
        if not places:  # there may be no file
            return
        try:
            with self.path.open("rb") as file:
                for place in places:
                    file.seek(place)
                    yield json.loads(file.readline())
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path}: it changed while it was read ({error}); try again") from None


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All rows of a file that is small enough to hold; none where there is no such file.

    Raises:
        RunError: the file cannot be read.
    """
    return [row for _, _, row in _scan(path)]


def lines_up_to(path: Path, round_number: int) -> Iterator[bytes]:
    """The lines, as they are, of the rows of rounds up to this one.

    Raises:
        RunError: the file cannot be read.
    """
    for _, line, row in _scan(path):
        if row["round"] <= round_number:
            yield line


def rounds_in(path: Path) -> set[int]:
    """The rounds that the rows are of."""
    return {row["round"] for _, _, row in _scan(path)}


def json_lines(records: Iterable[Record]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _scan(path: Path) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
    """Place, line and row of every good line."""
    place, broken, torn = 0, [], False
    try:
        with path.open("rb") as file:  # bytes end at newlines alone: U+2028 inside a string is no line's end
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    torn = True
                elif (row := _row(line)) is None:
                    broken.append(number)
                else:
                    yield place, line, row
                place += len(line)
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror or error}") from None
    if broken:
        named = ", ".join(map(str, broken[:_LINES_NAMED])) + (", ..." if len(broken) > _LINES_NAMED else "")
        lines = f"line {named} is no record and was" if len(broken) == 1 else f"lines {named} are no records and were"
        log.warning("%s: %s left out (%d of them)", path, lines, len(broken))
    if torn:
        log.warning("%s: the last line is incomplete and was left out", path)


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(row, dict) and isinstance(row.get("round", 0), int)
    return with_figures_renamed(row) if whole else None
