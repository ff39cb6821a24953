"""Notes to JSON Lines: the form that `readers` reads back as the same notes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medserl.files import private_folder, write_private
from medserl.game.note import Note


def note_row(note: Note) -> dict[str, Any]:
    """A note as a JSON object: its text, and the other fields of `Note` that are known. Unlabelled, it claims none."""
    fields = asdict(note) | {"sentences": list(note.sentences) or None}
    note_id, text, labelled = (fields.pop(name) for name in ("note_id", "correct_note", "labelled"))
    known = {name: value for name, value in fields.items() if value is not None}
    return {"note_id": note_id, "correct_note" if labelled else "note": text, **known}


def note_lines(notes: Iterable[Note]) -> str:
    """One JSON object a line."""
    return "".join(_lines(notes))


def write_notes(path: Path, notes: Iterable[Note]) -> None:
    """The whole file or none of it, private. Raises OutputError where it cannot be written."""
    private_folder(path.parent)
    write_private(path, _lines(notes))


def _lines(notes: Iterable[Note]) -> Iterator[str]:
    return (json.dumps(note_row(note), ensure_ascii=False) + "\n" for note in notes)
