"""The reviewer's decisions: a JSONL file of labelled notes, one row a note, that `--prompt-data` takes as it is.

    accepted, with a correction     a pair: `incorrect_note` is the note, `correct_note` the note corrected
    accepted, without one           `incorrect_note` alone: a note with an error, for evaluation
    rejected                        `correct_note` alone: the note is correct
    a comment alone                 neither; readers of notes leave the row out and say so

Every decision is on the disk before it is answered. A note that is decided again keeps one row, the later one: the file
is then written anew, whole or not at all. One process at a time may write to it.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Literal, get_args

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from medserl.errors import DataError, OutputError
from medserl.files import FILE_MODE, append_private, private_folder, write_private
from medserl.runs.records import json_lines

log = logging.getLogger("medserl")

Choice = Literal["accept", "reject"]
CHOICES: tuple[Choice, ...] = get_args(Choice)


class Decision(BaseModel):
    """What a person said of one note. `decision` is None where it was only commented on.

    `correct_note`, `incorrect_note` and what follows are columns of labelled notes (`data.columns`). `commented_note`
    is the text of a note that has a comment alone. `p_error` and `threshold` are the model's at that time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    note_id: str
    decision: Choice | None
    comment: str = ""
    correct_note: str | None = None
    incorrect_note: str | None = None
    error_type: str | None = None
    error_sentence_id: int | None = None
    error_sentence: str | None = None
    corrected_sentence: str | None = None
    commented_note: str | None = None
    p_error: float | None = None
    threshold: float | None = None
    decided_at: str = ""

    @property
    def text(self) -> str | None:
        """The note that was decided on."""
        return self.incorrect_note or self.correct_note or self.commented_note


class DecisionFile:
    """The decisions of one file, held by one process from `open` to `close`."""

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path = path
        self._lock = lock
        self._writing = threading.Lock()
        self._rows: dict[str, Decision] = {}

    @classmethod
    def open(cls, path: Path) -> DecisionFile:
        """The file with what it holds; a new one is made with the first decision.

        Raises:
            OutputError: another process writes to it, or the place cannot be written.
            DataError: the file holds something else than decisions.
        """
        path = Path(os.path.realpath(path))
        if path.is_dir():
            raise OutputError(f"--decisions {path}: it is a folder; give the name of a file")
        private_folder(path.parent)
        lock = FileLock(path.with_name(f".{path.name}.lock"), mode=FILE_MODE)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise OutputError(
                f"{path}: another `medserl serve` writes to this file; end it, or give another --decisions FILE"
            ) from None
        except (OSError, NotImplementedError) as error:
            raise OutputError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from None
        file = cls(path, lock)
        try:
            file._read()
        except BaseException:
            lock.release()
            raise
        return file

    def of(self, note_id: str) -> Decision | None:
        return self._rows.get(note_id)

    def rows(self) -> list[Decision]:
        return list(self._rows.values())

    def __len__(self) -> int:
        return len(self._rows)

    def record(self, decision: Decision) -> None:
        """Bring the decision to the disk, in the place of an earlier one on the same note.

        Raises:
            OutputError: it cannot be written; the file is as it was.
        """
        with self._writing:
            if decision.note_id in self._rows or (self._rows and not self.path.exists()):
                self._write({**self._rows, decision.note_id: decision})
            else:
                append_private(self.path, json_lines([decision.model_dump()]))
                self._rows[decision.note_id] = decision

    def withdraw(self, note_id: str) -> None:
        """Take the note's row out of the file. Raises OutputError where that cannot be written."""
        with self._writing:
            if note_id in self._rows:
                self._write({name: row for name, row in self._rows.items() if name != note_id})

    def close(self) -> None:
        self._lock.release()

    def _write(self, rows: dict[str, Decision]) -> None:
        write_private(self.path, (json_lines([row.model_dump()]) for row in rows.values()))
        self._rows = rows

    def _read(self) -> None:
        """Half a line at the end, of a killed writer, is dropped; of two rows on a note the later one counts."""
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be read: {error.strerror or error}") from None
        torn = lines.pop()
        count = 0
        for number, line in enumerate(lines, start=1):
            if line.strip():
                row = _decision(line, f"{self.path}, line {number}")
                self._rows.pop(row.note_id, None)
                self._rows[row.note_id] = row
                count += 1
        if torn.strip():
            log.warning("%s: the last line is incomplete, a killed process left it, and was dropped", self.path)
        if torn or count > len(self._rows):
            self._write(self._rows)


def _decision(line: bytes, where: str) -> Decision:
    """Raises DataError: this is somebody's file of another kind, which must not be written to."""
    try:
        return Decision.model_validate_json(line)
    except ValidationError:
        raise DataError(f"{where}: not a decision of a review; give --decisions another file") from None
