"""Which column holds what: the usual names, a person's own, and what is refused rather than guessed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

from medserl.data.labels import NO_LABELS, LabelMeaning, check_no_labels, label_meaning
from medserl.data.rows import Table, simple
from medserl.errors import DataError, listed


@dataclass(frozen=True)
class ColumnNames:
    """Which column holds what; None is guessed from the usual names, whatever their case and spaces.

    With a `flag` column (MEDEC's "Error Flag": 0 or 1, also CORRECT or INCORRECT) and no `incorrect` column,
    `note` is the text that the flag judges and `corrected` its correct twin. Else `note` holds correct notes, or,
    where nothing says that they are correct, notes without a label. The flag `none` is for a file whose columns that
    look like labels are to be passed over.
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
    patient: str | None = None


FLAGS = {"id": "--id-column", "note": "--note-column", "incorrect": "--incorrect-column", "flag": "--label-column"}
"""What a person gives to name a column."""

_RANKS: dict[str, tuple[tuple[str, ...], ...]] = {field.name: ((field.name,),) for field in fields(ColumnNames)} | {
    "id": (("note_id",), ("text_id",), ("id",)),
    "note": (("correct_note",), ("note", "text", "notes", "note_text", "clinical_note")),
    "incorrect": (("incorrect_note",),),
    "flag": (("error_flag",),),
    "corrected": (("corrected_text",),),
    "patient": (("patient_id",), ("patient",), ("subject_id",), ("person_id",), ("mrn",)),
}
"""The usual names of each column, the best first. Between two columns with names of one rank a person must choose."""

COLUMN_ROLES = tuple(_RANKS)
_LONGEST_NAME = 200
_SAID_CORRECT = "correct_note"
"""A column of this name says itself that its notes are correct; one called `note` or `text` does not."""


def known_names(wanted: ColumnNames) -> frozenset[str]:
    """Simple names that a header may hold: the usual ones, and those that a person gave."""
    usual = {name for ranks in _RANKS.values() for rank in ranks for name in rank}
    given = (getattr(wanted, role) for role in COLUMN_ROLES)
    return frozenset(usual | {simple(name) for name in given if name})


def is_header_again(cells: Sequence[str], header: Iterable[str], known: Collection[str]) -> bool:
    """Whether a row repeats a header, as where files were put together: every cell is the name of a column."""
    if max(map(len, cells), default=0) > _LONGEST_NAME:
        return False
    own = {simple(name) for name in header}
    found = [simple(cell) for cell in cells if cell.strip()]
    return bool(found) and all(name in own or name in known for name in found) and bool(own & set(found))


@dataclass(frozen=True)
class FoundColumns:
    """The file's name of each column that it has, by role, and what its label column means, if it has one.

    `labelled` says whether the file tells which of its notes are correct.
    """

    names: Mapping[str, str]
    labels: LabelMeaning | None
    labelled: bool

    def __contains__(self, role: str) -> bool:
        return role in self.names

    def describe(self) -> str:
        """The columns of notes and labels for a person."""
        note = self.names.get("note") or self.names["incorrect"]
        said = f"column {note!r}"
        if "incorrect" in self.names and "note" in self.names:
            said = f"columns {note!r} and {self.names['incorrect']!r}"
        return said + (f", labels in {self.labels.column!r}: {self.labels.describe()}" if self.labels else "")


def find_columns(table: Table, wanted: ColumnNames, *, lenient: bool = False) -> FoundColumns:
    """The columns of a table. `lenient` guesses where a named one is missing: the name was given for another file.

    Raises:
        DataError: a named or needed column is missing, two may hold the notes, or one looks like labels.
    """
    found: dict[str, str] = {}
    for role in COLUMN_ROLES:
        name = _find(table, role, getattr(wanted, role), lenient)
        if name is not None:
            found[role] = name
    if "note" not in found and "incorrect" not in found:
        parted = f" (the separator found is a {table.separator})" if table.separator and len(table.columns) > 1 else ""
        raise DataError(
            f"{table.file}: no column of notes; it has {listed(table.columns, 12)}{parted}; wanted is one of "
            "correct_note, note, text: name yours with --note-column; a file without a header line needs one"
        )
    if "incorrect" in found and wanted.flag not in (None, NO_LABELS):
        raise DataError(
            f"{table.file}: {found['incorrect']!r} holds the notes with an error, so no column of labels is needed; "
            "leave --label-column out"
        )
    if "flag" not in found and "incorrect" not in found and wanted.flag != NO_LABELS:
        check_no_labels(table, set(found.values()))
    labels = None
    if "flag" in found and "incorrect" not in found:
        labels = label_meaning(table, found["flag"])
    said_correct = simple(found.get("note", "")) == _SAID_CORRECT
    return FoundColumns(found, labels, labelled="incorrect" in found or labels is not None or said_correct)


def _find(table: Table, role: str, named: str | None, lenient: bool) -> str | None:
    if role == "flag" and named == NO_LABELS:
        return None
    by_simple: dict[str, list[str]] = {}
    for column in table.columns:
        by_simple.setdefault(simple(column), []).append(column)
    if named is not None:
        if named in table.columns:
            return named
        if simple(named) in by_simple:
            return by_simple[simple(named)][0]
        if not lenient:
            flag = f"; name it with {FLAGS[role]}" if role in FLAGS else ""
            raise DataError(f"{table.file}: no column {named!r}; it has {listed(table.columns, 12)}{flag}")
    for rank in _RANKS[role]:
        matches = [column for name in rank for column in by_simple.get(name, [])]
        if len(matches) > 1:
            todo = f"name the one that is meant with {FLAGS[role]}" if role in FLAGS else "rename one"
            raise DataError(f"{table.file}: {listed(matches, 12)} could each be the column of the {role}; {todo}")
        if matches:
            return matches[0]
    return None
