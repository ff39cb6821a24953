"""Files to notes: MEDEC's published CSV files, pairs, and a user's own notes. No row is dropped unnamed."""

from __future__ import annotations

import io
import logging
import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medserl.data.columns import COLUMN_ROLES, ColumnNames, FoundColumns, find_columns, known_names
from medserl.data.labels import NO_LABELS, is_missing, look_like_labels
from medserl.data.tabular import Row, SkippedRow, Table, read_table
from medserl.display.progress import track
from medserl.errors import DataError
from medserl.game.note import ERROR_TYPES, Note
from medserl.game.text import HALF_A_CHARACTER, too_long

__all__ = [
    "ColumnNames",
    "LoadedNotes",
    "SkippedRow",
    "notes_from_table",
    "parse_sentences",
    "read_notes",
    "unique_ids",
]

log = logging.getLogger("medserl")

BY_GUESS = ColumnNames()
NO_TEXT = "no text"
_TEXTS = tuple(role for role in COLUMN_ROLES if role not in ("id", "flag", "sentences", "error_sentence_id", "patient"))


@dataclass(frozen=True)
class LoadedNotes:
    """Notes in the file's order, the rows that could not be used, and the SHA-256 of the file's bytes.

    `source` is the file as it was named, `columns` what its notes and labels were found in, for a person. `labels` are
    columns that look like labels and were passed over, as was asked.
    """

    notes: tuple[Note, ...]
    skipped: tuple[SkippedRow, ...]
    sha256: str
    source: str = ""
    columns: str = ""
    labels: tuple[str, ...] = ()

    def skipped_summary(self) -> str:
        """One line: how many rows were skipped, why, and where each kind first occurs; empty if none."""
        reasons = Counter(row.why for row in self.skipped)
        first = {row.why: f"{row.unit} {row.line}" for row in reversed(self.skipped)}
        parts = [f"{count} x {why} (first at {first[why]})" for why, count in reasons.most_common()]
        return f"{len(self.skipped)} rows skipped: " + "; ".join(parts) if parts else ""

    def summary(self) -> str:
        """One line: how many notes of which kind, in which columns, and how many rows were skipped."""
        of = f" ({self.columns})" if self.columns else ""
        skipped = f"; {len(self.skipped)} rows skipped" if self.skipped else ""
        return f"{self.source}: {kinds_of(self.notes)}{of}{skipped}"


_KINDS = ("pairs", "correct", "with an error but no correction", "without a label")


def kinds_of(notes: Iterable[Note]) -> str:
    """How many notes of which kind, in words."""
    counts = Counter(_kind(note) for note in notes)
    named = ", ".join(f"{counts[kind]} {kind}" for kind in _KINDS if counts[kind])
    return f"{counts.total()} note{'s' if counts.total() != 1 else ''}" + (f": {named}" if named else "")


def _kind(note: Note) -> str:
    if note.is_pair:
        return "pairs"
    if note.incorrect_note is not None:
        return "with an error but no correction"
    return "correct" if note.labelled else "without a label"


class _UnusableRow(Exception):
    """Why a row gives no note."""


def read_notes(source: str | Path, columns: ColumnNames = BY_GUESS, *, lenient: bool = False) -> LoadedNotes:
    """Read notes from any form that `tabular` reads; texts are kept to the letter.

    Each form gives `Note`s: MEDEC's CSV (a flag-1 row is a pair, a flag-0 row a correct note), pairs with the
    columns `correct_note` and `incorrect_note`, correct notes alone, or notes that nothing says a thing about
    (`labelled` is False). A flagged text without its correction is kept with `correct_note=None`: it can be judged,
    but not played. A note id that occurs again gets `#2`, `#3`, ..., and a log line says so; a missing one is made of
    the file's name and the line. `lenient` is for columns that were named for another file (`find_columns`).

    Raises:
        DataError: no file, an empty or broken one, columns that are not there, or no row that can be used.
    """
    loaded = notes_from_table(read_table(source, known_names(columns)), str(source), columns, lenient=lenient)
    if not loaded.notes:
        raise DataError(f"{source}: no usable note; {loaded.skipped_summary() or 'nothing follows the header'}")
    if loaded.skipped:
        log.warning("%s: %s", source, loaded.skipped_summary())
    return loaded


def notes_from_table(
    table: Table, source: str, columns: ColumnNames = BY_GUESS, *, lenient: bool = False, stem: str | None = None
) -> LoadedNotes:
    """The notes of a table, and the rows that give none; `source` is what it is called.

    A note without an id is called after its line and `stem`, which is the file's name if it is not given.

    Raises:
        DataError: columns that are not there, or that cannot be told apart.
    """
    found = find_columns(table, columns, lenient=lenient)
    stem = stem or re.sub(r"\s+", "_", Path(table.file).name.partition(".")[0]) or "note"
    notes: list[Note] = []
    skipped = list(table.skipped)
    for row in track(table.rows, f"reading {table.file}", heading=False):
        try:
            notes.append(_note(row, found, fallback_id=f"{stem}-{row.line}"))
        except _UnusableRow as why:
            skipped.append(SkippedRow(table.file, row.line, str(why), table.unit))
    skipped.sort(key=lambda row: row.line)
    labels = look_like_labels(table, found.names.values()) if columns.flag == NO_LABELS else ()
    return LoadedNotes(unique_ids(notes, table.file), tuple(skipped), table.sha256, source, found.describe(), labels)


def _note(row: Row, columns: FoundColumns, fallback_id: str) -> Note:
    cells = {role: row.values.get(name) for role, name in columns.names.items()}
    texts = {role: _text(cells.get(role), columns.names.get(role, role)) for role in _TEXTS}
    correct, incorrect = texts["note"], texts["incorrect"]
    if columns.labels:
        correct, incorrect = _by_flag(texts["note"], texts["corrected"], cells["flag"], columns)
    if correct is None and incorrect is None:
        raise _UnusableRow(NO_TEXT)
    for text in (correct, incorrect):
        if text is not None and (why := too_long(text)):
            raise _UnusableRow(f"the note {why}")
    if correct is not None and incorrect is not None and correct.split() == incorrect.split():
        raise _UnusableRow("the correct and the incorrect text are the same")
    note = Note(
        note_id=_identifier(cells.get("id"), "id") or fallback_id,
        correct_note=correct,
        sentences=_sentences(cells.get("sentences")),
        fact_id=texts["fact_id"],
        split=texts["split"],
        labelled=columns.labelled,
        patient=_identifier(cells.get("patient"), "patient"),
    )
    if incorrect is None:
        return note
    return replace(
        note,
        incorrect_note=incorrect,
        error_type=_error_type(texts["error_type"]),
        error_sentence=texts["error_sentence"],
        corrected_sentence=texts["corrected_sentence"],
        error_sentence_id=_sentence_id(cells.get("error_sentence_id")),
    )


def _by_flag(
    text: str | None, corrected: str | None, flag: Any, columns: FoundColumns
) -> tuple[str | None, str | None]:
    """(correct, incorrect) text of a row with a label."""
    if text is None:
        return None, None
    if is_missing(flag):
        raise _UnusableRow("no label")
    has_error = columns.labels.of(flag) if columns.labels else None
    if has_error is None:
        raise _UnusableRow(f"{columns.names['flag']!r} is {str(flag)[:20]!r}, neither correct nor an error")
    return (corrected, text) if has_error else (text, None)


def _text(value: Any, column: str) -> str | None:
    """The text as it stands, or None where there is none."""
    if is_missing(value):
        return None
    if not isinstance(value, str):
        raise _UnusableRow(f"{column!r} holds {_type_name(value)}, not text")
    if HALF_A_CHARACTER.search(value):
        raise _UnusableRow(f"{column!r} holds half a character (an unpaired surrogate)")
    return value


def _type_name(value: Any) -> str:
    return "Infinity" if isinstance(value, float) and math.isinf(value) else type(value).__name__


def _identifier(value: Any, what: str) -> str | None:
    """An id as text. pandas makes a float of every number in a column with gaps: 7.0 is 7."""
    if is_missing(value):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value in (math.inf, -math.inf):
        raise _UnusableRow(f"the {what} is {_type_name(value)}, neither text nor a number")
    try:
        return _text(str(value).strip(), what)
    except ValueError:
        raise _UnusableRow(f"the {what} is a number of too many digits") from None


def _sentence_id(value: Any) -> int | None:
    """MEDEC's number of the sentence with the error; -1 stands for none. Spreadsheets turn 5 into 5.0."""
    if is_missing(value):
        return None
    match = re.fullmatch(r"(-?\d{1,9})(\.0*)?", _identifier(value, "error sentence id") or "")
    if not match:
        raise _UnusableRow(f"error sentence id {str(value)[:20]!r} is no whole number")
    number = int(match[1])
    return number if number >= 0 else None


def _error_type(value: str | None) -> str | None:
    """MEDEC's spelling of a known type (`causal organism`, `CAUSALORGANISM`); any other type as it stands."""
    known = {name.casefold(): name for name in ERROR_TYPES}
    return None if value is None else known.get(re.sub(r"[\W_]+", "", value.casefold()), value)


def _sentences(value: Any) -> tuple[str, ...]:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if isinstance(value, str):
        return () if is_missing(value) else parse_sentences(value)
    if value is None:
        return ()
    raise _UnusableRow("the sentences are neither text nor a list of texts")


def parse_sentences(text: str) -> tuple[str, ...]:
    """Sentences of MEDEC's numbered form: `sentences[n]` is the one with number n.

    A line opens sentence n if it begins with n and n is next; any other line, a blank one too, goes on with
    the sentence before it. Only the line break before the next number is dropped.
    """
    sentences: list[str] = []
    for line in io.StringIO(text, newline=""):
        number = str(len(sentences))
        if line.startswith(f"{number} ") or line.rstrip("\r\n") == number:
            if sentences:
                sentences[-1] = re.sub(r"(\r\n|\r|\n)\Z", "", sentences[-1])
            sentences.append(line[len(number) :].removeprefix(" "))
        elif sentences:
            sentences[-1] += line
        else:  # unnumbered from the start
            sentences.append(line)
    return tuple(sentences)


def unique_ids(notes: Iterable[Note], source: str) -> tuple[Note, ...]:
    """The notes; an id that occurs again gets `#2`, `#3`, ..., which a log line says, naming `source`."""
    notes = tuple(notes)
    taken = {note.note_id for note in notes}
    times: Counter[str] = Counter()
    result, renamed = [], []
    for note in notes:
        times[note.note_id] += 1
        new = note.note_id
        if times[note.note_id] > 1:
            while (new := f"{note.note_id}#{times[note.note_id]}") in taken:
                times[note.note_id] += 1
            taken.add(new)
            renamed.append(f"{note.note_id} -> {new}")
        result.append(replace(note, note_id=new))
    if renamed:
        log.warning("%s: %d repeated note ids were renamed (first: %s)", source, len(renamed), renamed[0])
    return tuple(result)
