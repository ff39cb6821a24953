"""What a review begins with: notes of a file, and what `medserl predict` found in them."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from medserl.config import Settings
from medserl.data.labels import is_missing
from medserl.data.rows import BLANK_ROW
from medserl.data.sources import load_unlabelled
from medserl.data.tabular import read_table
from medserl.errors import DataError
from medserl.files import write_private
from medserl.game.roles import Verdict
from medserl.game.text import too_long
from medserl.prediction.assessor import Finding, judged_text
from medserl.serve.options import ServeOptions
from medserl.serve.review import Item, check_text

log = logging.getLogger("medserl")

OPENED = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".xlsx", ".xls", ".ods", ".parquet")
"""Endings of files that are opened on the page."""


def _none_where_missing(value: Any) -> Any:
    """A CSV file says None by an empty cell."""
    return None if is_missing(value) else value


_Missing = BeforeValidator(_none_where_missing)
_Text = Annotated[str | None, _Missing]
_Number = Annotated[Annotated[int, Field(ge=0)] | None, _Missing]
_Probability = Annotated[Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None, _Missing]


class _Row(BaseModel):
    """One row of predictions; from a CSV file every value is text. Columns that are not ours are passed over."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)

    note_id: Annotated[str, Field(min_length=1)]
    text: _Text = None
    verdict: Annotated[Verdict | None, _Missing] = None
    p_error: _Probability = None
    flagged: Annotated[bool | None, _Missing] = None
    sentence: _Number = None
    sentence_text: _Text = None
    says: _Text = None
    should_say: _Text = None
    correction: _Text = None
    reason: _Text = None
    windows: Annotated[int, Field(ge=0)] = 1
    threshold: _Probability = None

    def item(self, text: str) -> Item:
        finding = Finding(**self.model_dump(exclude={"text", "threshold"}))
        return Item(self.note_id, text, finding, self.threshold)


def items_of(options: ServeOptions, settings: Settings) -> tuple[list[Item], list[Item]]:
    """The notes to review, with what was found in them, and those of them that are still to be judged.

    Raises:
        DataError: a file cannot be used, or the predictions are of other notes.
    """
    notes = _notes(options.notes, settings) if options.notes else {}
    if options.predictions is None:
        return list(notes.values()), list(notes.values())
    judged = {}
    for row in read_findings(options.predictions):
        flagged = row if options.threshold is None else _flagged(row, options.threshold)
        judged[row.note_id] = flagged.item(_text_of(row, notes, options))
    unjudged = [item for note_id, item in notes.items() if note_id not in judged]
    if unjudged:
        log.info("%s lacks %d of the notes; they are judged now", options.predictions, len(unjudged))
    return [*judged.values(), *unjudged], unjudged


def items_in(name: str, content: bytes, settings: Settings) -> list[Item]:
    """The notes of a file that a reviewer opened; with what was found in them, if `medserl predict` wrote it.

    Of the name only letters, digits and the ending are used, and the copy that is read lies in a folder of its own.

    Raises:
        DataError: the file cannot be used, or is of no kind that is opened here.
    """
    ending = Path(name).suffix.lower()
    if ending not in OPENED:
        raise DataError(f"{name!r}: cannot be opened here; give one of {', '.join(OPENED)}")
    safe = re.sub(r"\W+", "_", Path(name).stem).strip("_")[:60] or "notes"
    with tempfile.TemporaryDirectory(prefix="medserl-") as folder:
        path = Path(folder) / f"{safe}{ending}"
        write_private(path, content)
        try:
            columns = read_table(path, frozenset(_Row.model_fields)).columns
            if {"note_id", "p_error", "text"} <= set(columns):
                return items_of(ServeOptions(predictions=path), settings)[0]
            return list(_notes(str(path), settings).values())
        except DataError as error:
            raise DataError(str(error).replace(str(path), name)) from None


def read_findings(path: Path) -> list[_Row]:
    """The rows of a file that `medserl predict` wrote, JSONL or CSV.

    Raises:
        DataError: no such file, or a row that is no prediction; the message names it.
    """
    table = read_table(path, frozenset(_Row.model_fields))
    rows: dict[str, _Row] = {}
    lost = [row for row in table.skipped if row.why != BLANK_ROW]
    if lost:
        raise DataError(f"{lost[0]}; a file of predictions is read whole or not at all")
    for row in table.rows:
        where = f"{table.file}, {table.unit} {row.line}"
        try:
            read = _Row.model_validate(dict(row.values))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            name = ".".join(str(part) for part in first["loc"])
            raise DataError(f"{where}: not what `medserl predict` writes: {name}: {first['msg']}") from None
        check_text("".join(str(value) for value in row.values.values()), where)
        if read.note_id in rows:
            raise DataError(f"{where}: note {read.note_id[:80]!r} stands twice")
        rows[read.note_id] = read
    return list(rows.values())


def _notes(source: str, settings: Settings) -> dict[str, Item]:
    """The notes by their ids, not judged yet."""
    return {
        note.note_id: Item(note.note_id, judged_text(note), sentences=note.sentences)
        for note in load_unlabelled(source, settings).notes
    }


def _flagged(row: _Row, threshold: float) -> _Row:
    flagged = None if row.p_error is None else row.p_error >= threshold
    return row.model_copy(update={"threshold": threshold, "flagged": flagged})


def _text_of(row: _Row, notes: Mapping[str, Item], options: ServeOptions) -> str:
    text = notes[row.note_id].text if row.note_id in notes else row.text
    if text is None:
        rest = f" nor in {options.notes}" if options.notes else "; give the notes it was made of with --notes FILE"
        raise DataError(f"{options.predictions}: the text of note {row.note_id[:80]!r} is not in it{rest}")
    if row.text is not None and row.text != text:
        raise DataError(f"{options.predictions}: note {row.note_id[:80]!r} has another text in {options.notes}")
    if why := too_long(text):
        raise DataError(f"{options.predictions}: note {row.note_id[:80]!r} {why}")
    return text
