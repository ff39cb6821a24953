"""Files to notes: MEDEC's published CSV files, pairs, and a user's own notes. No row is dropped unnamed."""

from __future__ import annotations

import io
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from medserl.data.notes import ERROR_TYPES, Note
from medserl.data.tabular import Row, SkippedRow, Table, read_table
from medserl.errors import DataError

__all__ = ["ColumnNames", "LoadedNotes", "SkippedRow", "load_notes", "parse_sentences", "unique_ids"]

log = logging.getLogger("medserl")


@dataclass(frozen=True)
class ColumnNames:
    """Which column holds what; None is guessed from the usual names, whatever their case and spaces.

    With a `flag` column (MEDEC's "Error Flag": 0 or 1, also CORRECT or INCORRECT) and no `incorrect` column,
    `note` is the text that the flag judges and `corrected` its correct twin. Else `note` holds correct notes.
    """

    id: str | None = None
    note: str | None = None
    incorrect: str | None = None
    flag: str | None = None
    corrected: str | None = None
    error_type: str | None = None
    error_sentence: str | None = None
    corrected_sentence: str | None = None
    error_sentence_id: str | None = None
    sentences: str | None = None
    fact_id: str | None = None
    split: str | None = None


_GUESSES: dict[str, tuple[str, ...]] = {field.name: (field.name,) for field in fields(ColumnNames)} | {
    "id": ("note_id", "text_id", "id"),
    "note": ("correct_note", "note", "text"),
    "incorrect": ("incorrect_note",),
    "flag": ("error_flag",),
    "corrected": ("corrected_text",),
}
_MISSING = frozenset({"", "na", "n/a", "nan", "none", "null"})
_HAS_ERROR = dict.fromkeys(("0", "0.0", "false", "correct"), False) | dict.fromkeys(
    ("1", "1.0", "true", "incorrect"), True
)


@dataclass(frozen=True)
class LoadedNotes:
    """Notes in the file's order, the rows that could not be used, and the SHA-256 of the file's bytes."""

    notes: tuple[Note, ...]
    skipped: tuple[SkippedRow, ...]
    sha256: str

    def skipped_summary(self) -> str:
        """One line: how many rows were skipped, why, and where each kind first occurs; empty if none."""
        reasons = Counter(row.why for row in self.skipped)
        first = {row.why: row.line for row in reversed(self.skipped)}
        parts = [f"{count} x {why} (first at line {first[why]})" for why, count in reasons.most_common()]
        return f"{len(self.skipped)} rows skipped: " + "; ".join(parts) if parts else ""


class _UnusableRow(Exception):
    """Why a row gives no note."""


def load_notes(path: str | Path, columns: ColumnNames = ColumnNames()) -> LoadedNotes:
    """Read notes from a .csv or .jsonl file; texts are kept to the letter.

    Each form gives `Note`s: MEDEC's CSV (a flag-1 row is a pair, a flag-0 row a correct note), pairs with the
    columns `correct_note` and `incorrect_note`, or correct notes alone. A flagged text without its correction
    is kept with `correct_note=None`: it can be judged, but not played. A note id that occurs again gets `#2`,
    `#3`, ..., and a log line says so; a missing one is made of the file's name and the line.

    Raises:
        DataError: no file, an empty or broken one, columns that are not there, or no row that can be used.
    """
    table = read_table(path)
    found = _find_columns(table, columns)
    notes: list[Note] = []
    skipped = list(table.skipped)
    for row in table.rows:
        try:
            notes.append(_note(row, found, fallback_id=f"{Path(path).stem}-{row.line}"))
        except _UnusableRow as why:
            skipped.append(SkippedRow(table.file, row.line, str(why)))
    skipped.sort(key=lambda row: row.line)
    loaded = LoadedNotes(unique_ids(notes, table.file), tuple(skipped), table.sha256)
    if not notes:
        raise DataError(f"{path}: no usable note; {loaded.skipped_summary() or 'nothing follows the header'}")
    if skipped:
        log.warning("%s: %s", path, loaded.skipped_summary())
    return loaded


def _find_columns(table: Table, wanted: ColumnNames) -> dict[str, str]:
    """The file's name of each column that it has. Raises DataError where a named or needed one is missing."""
    simple = {_simple(name): name for name in reversed(table.columns)}
    found = {}
    for role, guesses in _GUESSES.items():
        named = getattr(wanted, role)
        if named is not None:
            if named not in table.columns and _simple(named) not in simple:
                raise DataError(f"{table.file}: no column {named!r}; it has {_listed(table.columns)}")
            found[role] = named if named in table.columns else simple[_simple(named)]
            continue
        match = next((simple[guess] for guess in guesses if guess in simple), None)
        if match is not None:
            found[role] = match
    if "note" not in found and "incorrect" not in found:
        raise DataError(
            f"{table.file}: no column of notes; it has {_listed(table.columns)}, "
            "wanted is one of correct_note, note, text (or name your own)"
        )
    return found


def _simple(name: str) -> str:
    return re.sub(r"[\W_]+", "_", name.casefold()).strip("_")


def _listed(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(repr(name if len(name) <= 40 else name[:37] + "...") for name in names[:most])
    return (shown or "none") + (f" and {len(names) - most} more" if len(names) > most else "")


def _note(row: Row, columns: Mapping[str, str], fallback_id: str) -> Note:
    cells = {role: row.values.get(name) for role, name in columns.items()}
    texts = {
        role: _text(cells.get(role), columns.get(role, role))
        for role in _GUESSES
        if role not in ("id", "flag", "sentences", "error_sentence_id")
    }
    correct, incorrect = texts["note"], texts["incorrect"]
    if "flag" in columns and "incorrect" not in columns:
        correct, incorrect = _by_flag(texts["note"], texts["corrected"], cells["flag"])
    if correct is None and incorrect is None:
        raise _UnusableRow("no text")
    if correct is not None and incorrect is not None and correct.split() == incorrect.split():
        raise _UnusableRow("the correct and the incorrect text are the same")
    note = Note(
        note_id=_identifier(cells.get("id")) or fallback_id,
        correct_note=correct,
        sentences=_sentences(cells.get("sentences")),
        fact_id=texts["fact_id"],
        split=texts["split"],
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


def _by_flag(text: str | None, corrected: str | None, flag: Any) -> tuple[str | None, str | None]:
    """(correct, incorrect) text of a row with an error flag."""
    if text is None:
        return None, None
    if _is_missing(flag):
        raise _UnusableRow("no label")
    has_error = _HAS_ERROR.get(str(flag).strip().casefold())
    if has_error is None:
        raise _UnusableRow(f"error flag {str(flag)[:20]!r} is neither 0 nor 1")
    return (corrected, text) if has_error else (text, None)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.strip().casefold() in _MISSING)


def _text(value: Any, column: str) -> str | None:
    """The text as it stands, or None where there is none."""
    if _is_missing(value):
        return None
    if not isinstance(value, str):
        raise _UnusableRow(f"{column!r} holds {type(value).__name__}, not text")
    if any("\ud800" <= char <= "\udfff" for char in value):
        raise _UnusableRow(f"{column!r} holds half a character (an unpaired surrogate)")
    return value


def _identifier(value: Any) -> str | None:
    return None if _is_missing(value) else str(value).strip()


def _sentence_id(value: Any) -> int | None:
    """MEDEC's number of the sentence with the error; -1 stands for none. Spreadsheets turn 5 into 5.0."""
    if _is_missing(value):
        return None
    match = re.fullmatch(r"(-?\d+)(\.0*)?", str(value).strip())
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
        return () if _is_missing(value) else parse_sentences(value)
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
