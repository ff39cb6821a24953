"""Files of findings: one row a note, as JSON Lines or CSV, with the note itself, so that a reviewer needs nothing else.

Such a file is also a file of notes: `medserl predict` reads it as any other.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medserl.files import write_private
from medserl.game.note import Note
from medserl.game.parsing import numbered_lines
from medserl.prediction.assessor import Finding, judged_text, shown_text


@dataclass(frozen=True)
class JudgedNote:
    """A note, what was found in it, and the threshold by which it was flagged."""

    note: Note
    finding: Finding
    threshold: float

    @property
    def text(self) -> str:
        """The text that was judged."""
        return judged_text(self.note)

    @property
    def sentences(self) -> tuple[str, ...]:
        """Its sentences as they were shown; the finding's number counts these."""
        return shown_text(self.note).sentences

    def row(self) -> dict[str, Any]:
        """The columns of a file: the finding's, the threshold, the text, and the source's own sentences if it has some.

        Without the latter the sentences are those that the text is split into.
        """
        sentences = numbered_lines(self.note.sentences) if self.note.sentences else None
        return {**asdict(self.finding), "threshold": self.threshold, "text": self.text, "sentences": sentences}


def by_suspicion(judged: Iterable[JudgedNote]) -> list[JudgedNote]:
    """The most suspicious first, those that could not be judged last; equal ones in their order."""

    def suspicion(one: JudgedNote) -> float:
        return -math.inf if one.finding.p_error is None else one.finding.p_error

    return sorted(judged, key=suspicion, reverse=True)


def write_findings(path: Path, judged: Sequence[JudgedNote]) -> None:
    """Write them whole or not at all, private, as CSV where its name says so, else as JSON Lines.

    Raises:
        OutputError: the file cannot be written.
    """
    write_private(path, _csv(judged) if path.suffix == ".csv" else _jsonl(judged))


def _jsonl(judged: Sequence[JudgedNote]) -> Iterator[str]:
    return (json.dumps(one.row(), ensure_ascii=False) + "\n" for one in judged)


def _csv(judged: Sequence[JudgedNote]) -> Iterator[str]:
    """As RFC 4180 has it: its line end, of which each half alone puts a cell into quotes."""
    rows = [one.row() for one in judged]
    for cells in [list(rows[0]) if rows else [], *(list(row.values()) for row in rows)]:
        line = io.StringIO(newline="")
        csv.writer(line).writerow("" if value is None else value for value in cells)
        yield line.getvalue()
