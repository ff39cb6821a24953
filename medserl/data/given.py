"""Notes that are given from Python, as a list, instead of in a file; and the public ways to a list of notes.

Each item is read by the rules of a JSON file (`readers`), so that a list and a file of the same notes are the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from medserl.data.labels import NO_LABELS
from medserl.data.readers import BY_GUESS, NO_TEXT, ColumnNames, LoadedNotes, notes_from_table, unique_ids
from medserl.data.rows import Rows, SkippedRow
from medserl.data.sample_names import SampleSplit
from medserl.data.writing import note_lines, note_row
from medserl.errors import DataError
from medserl.game.note import Note

NoteLike = Note | Mapping[str, Any] | str
"""A note, a row of a JSON file, or the text of a note."""

_TEXT, _ROW, _LABELLED, _UNLABELLED = "text", "row", "labelled note", "unlabelled note"


def load_notes(
    path: str | Path,
    *,
    note_column: str | None = None,
    incorrect_column: str | None = None,
    id_column: str | None = None,
    label_column: str | None = None,
) -> list[Note]:
    """The notes of a file, in its order: CSV, JSONL, workbook, Parquet, text or a folder (docs/data.md).

    The columns are guessed from the usual names where they are not named. A row that holds no note is left out, and a
    line of the log says which and why.

    Args:
        path: File or folder; `sample` is the embedded training notes.
        note_column: Column of the correct notes.
        incorrect_column: Column of their incorrect twins.
        id_column: Column of the notes' ids.
        label_column: Column that says which notes have an error; `none` passes over one that looks like it.

    Raises:
        DataError: the file is missing or broken, a column is not there, or no row holds a note.
    """
    from medserl.config import Settings
    from medserl.data.sources import load

    named = {
        "note_column": note_column,
        "incorrect_column": incorrect_column,
        "id_column": id_column,
        "label_column": label_column,
    }
    return list(load(str(path), "train", Settings().with_overrides(**named)).notes)


def sample_notes(split: SampleSplit = "train", size: int | None = None, seed: int = 0) -> list[Note]:
    """The embedded notes of invented patients, for trying things out; not for clinical use.

    Args:
        split: `train`, `validation` or `test`.
        size: So many of them, drawn by `seed`; default all, in their order.
        seed: What the draw follows from.

    Raises:
        DataError: there is no such split, or it has fewer notes than asked for.
    """
    from medserl.data.sources import SAMPLE, load

    notes = list(load(SAMPLE, split).notes)
    if size is None:
        return notes
    if not 0 < size <= len(notes):
        raise DataError(f"{size} sample notes were asked for; the split {split!r} has {len(notes)}")
    return Random(seed).sample(notes, size)


def given_notes(given: Iterable[NoteLike], what: str = "notes", columns: ColumnNames = BY_GUESS) -> LoadedNotes:
    """The notes of a list, checked as those of a file are; `what` is the name of the argument, for messages.

    A text alone is a correct note. `columns` are names in the rows. An item without an id is called by its place:
    `note-1` is the first.

    Raises:
        DataError: it is no list, is empty, or an item is no note.
    """
    placed, skipped = _read(_items(given, what), what, columns)
    if skipped:
        more = f" (and {len(skipped) - 1} more)" if len(skipped) > 1 else ""
        raise DataError(f"{skipped[0]}{more}; mend it, or leave it out")
    notes = unique_ids((placed[place] for place in sorted(placed)), what)
    return LoadedNotes(notes, (), hashlib.sha256(note_lines(notes).encode()).hexdigest(), what)


def notes_to_judge(given: Iterable[NoteLike], what: str = "notes") -> list[Note]:
    """The same for notes that are to be judged: no label is looked at, and an item without a text is a note without
    one, so that there is one for each item.

    Raises:
        DataError: it is no list, is empty, or an item is no note.
    """
    items = [Note(f"note-{i}", each, labelled=False) if isinstance(each, str) else each
             for i, each in enumerate(_items(given, what), start=1)]  # fmt: skip
    rows = {place: each for place, each in enumerate(items, start=1) if not isinstance(each, Note)}
    placed, skipped = _read(rows, what, ColumnNames(flag=NO_LABELS)) if rows else ({}, [])
    wrong = next((row for row in skipped if row.why != NO_TEXT), None)
    if wrong:
        raise DataError(f"{wrong}; mend it, or leave it out")
    return [
        each if isinstance(each, Note) else placed.get(place, Note(f"note-{place}", "", labelled=False))
        for place, each in enumerate(items, start=1)
    ]


def _read(
    items: Sequence[Any] | Mapping[int, Any], what: str, columns: ColumnNames
) -> tuple[dict[int, Note], list[SkippedRow]]:
    """Notes by their place, and the items that give none. Each kind is a table of its own: columns are a table's."""
    tables: dict[str, Rows] = {}
    places = items.items() if isinstance(items, Mapping) else enumerate(items, start=1)
    for number, item in places:
        kind = _kind(item, what, number)
        row = {"correct_note": item} if kind == _TEXT else note_row(item) if isinstance(item, Note) else dict(item)
        tables.setdefault(kind, Rows(what, unit="item")).add(number, row)
    placed: dict[int, Note] = {}
    skipped: list[SkippedRow] = []
    for kind, rows in tables.items():
        read = notes_from_table(rows.table(""), what, columns if kind == _ROW else BY_GUESS, stem="note")
        left_out = {row.line for row in read.skipped}
        placed |= zip((row.line for row in rows.rows if row.line not in left_out), read.notes, strict=True)
        skipped += read.skipped
    return placed, sorted(skipped, key=lambda row: row.line)


def require_alike(notes: Sequence[Note], what: str) -> None:
    """A file says of all of its notes whether they have labels, so a list that is kept as one must too.

    Raises:
        DataError: some notes have a label and some have none.
    """
    unlabelled = [note.note_id for note in notes if not note.labelled]
    if unlabelled and len(unlabelled) < len(notes):
        raise DataError(
            f"{what}: {len(unlabelled)} of the {len(notes)} notes have no label (first: {unlabelled[0]!r}), the others "
            "have one; set labelled=True on those that are known to be correct, or give one kind alone"
        )


def _items(given: Any, what: str) -> list[Any]:
    if isinstance(given, str | bytes | Mapping | Note | Path):
        raise DataError(f"{what}: give a list of notes, not {_named(given)}; of a file load_notes(path) makes one")
    if hasattr(given, "columns"):  # a table of pandas or polars, which would give the names of its columns
        raise DataError(f"{what}: give a list of rows, not a table: df.to_dict('records') of pandas makes one")
    try:
        items = list(given)
    except TypeError:
        raise DataError(f"{what}: give a list of notes, not {_named(given)}") from None
    if not items:
        raise DataError(f"{what}: the list is empty")
    return items


def _kind(item: Any, what: str, number: int) -> str:
    if isinstance(item, Note):
        return _LABELLED if item.labelled else _UNLABELLED
    if isinstance(item, str):
        return _TEXT
    if isinstance(item, Mapping):
        return _ROW
    raise DataError(f"{what}, item {number}: give a Note, a row (dict) or a text, not {_named(item)}")


def _named(value: Any) -> str:
    return {str: "a text", bytes: "bytes", Note: "one note"}.get(type(value), f"a {type(value).__name__}")
