"""Columns of labels: which look like one, and which of their values says that a note has an error."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from medserl.data.rows import Table, simple
from medserl.errors import DataError

NO_LABELS = "none"
"""What `--label-column` is given where a column that looks like labels is none."""

_LONGEST_WORD = 40
MISSING = frozenset({"", "na", "n/a", "nan", "none", "null"})

_YES, _NO = ("1", "1.0", "true", "yes", "y", "t"), ("0", "0.0", "false", "no", "n", "f")
_CORRECT = (
    *("correct", "right", "ok", "okay", "clean", "valid", "accurate", "no error", "no errors", "error free"),
    *("without error", "not an error", "not incorrect"),
)
_INCORRECT = (
    *("incorrect", "wrong", "error", "errors", "erroneous", "has error", "with error", "contains error", "invalid"),
    *("inaccurate", "not correct", "mistake"),
)
_NAMES = re.compile(
    r"(?<![a-z])(labels?|targets?|class|classes|is_error|has_error|errors?|flag|flagged|y|verdict|gold|truth|correct"
    r"|incorrect|wrong|is_correct|correctness|judge?ment|annotation|outcome|mistakes?)(?![a-z])"
)
_ONE_IS_CORRECT = re.compile(
    r"(?<![a-z])(correct\w*|right|valid|accurate|ok|(no|without|free_of)_errors?|error_free)(?![a-z])"
)
_MOST_VALUES_SHOWN = 6


@dataclass(frozen=True)
class LabelMeaning:
    """Whether each value of a column, in its simple form, says that the note has an error."""

    column: str
    has_error: dict[str, bool]
    seen: tuple[str, ...]

    def of(self, value: Any) -> bool | None:
        """Whether the note has an error; None where the value is none that is known."""
        return self.has_error.get(_plain(value))

    def describe(self) -> str:
        errors = [value for value in self.seen if self.has_error.get(value)]
        return f"{' or '.join(errors)} is an error" if errors else "none of them is an error"


def is_missing(value: Any) -> bool:
    """Whether a cell says nothing: empty, None, or pandas' NaN."""
    if isinstance(value, float):
        return math.isnan(value)
    if isinstance(value, str):
        return not value or value.isspace() or (len(value) < _LONGEST_WORD and value.strip().casefold() in MISSING)
    return value is None


def label_meaning(table: Table, column: str) -> LabelMeaning:
    """What the values of a label column mean: words that say it, and 1 for an error.

    In a column that is named for correctness (`is_correct`, `no_error`) 1 is a correct note.

    Raises:
        DataError: most values, or all of one side, are none that is known; the message shows them.
    """
    one_is_error = not _ONE_IS_CORRECT.search(simple(column))
    meaning = dict.fromkeys(_YES, one_is_error) | dict.fromkeys(_NO, not one_is_error)
    meaning |= dict.fromkeys(_CORRECT, False) | dict.fromkeys(_INCORRECT, True)
    counts = _values(table, column)
    unknown = {value for value in counts if value not in meaning}
    sides = {meaning[value] for value in counts if value not in unknown}
    if unknown and (2 * sum(counts[value] for value in unknown) > counts.total() or len(sides) < 2):
        raise DataError(
            f"{table.file}: which value of {column!r} means an error? It holds {_shown(counts)}; write 1 for a note "
            f"with an error and 0 for a correct one, or pass the column over with --label-column {NO_LABELS}"
        )
    return LabelMeaning(column, meaning, tuple(counts))


def check_no_labels(table: Table, used: Collection[str]) -> None:
    """Raises DataError where a column that nobody named looks like labels: wrong notes would be taken for correct."""
    for column in look_like_labels(table, used)[:1]:
        raise DataError(
            f"{table.file}: {column!r} looks like labels ({_shown(_values(table, column))}): take them with "
            f"--label-column {column!r}, or pass it over with --label-column {NO_LABELS}"
        )


def look_like_labels(table: Table, used: Collection[str]) -> tuple[str, ...]:
    """The columns, but for those used for something else, that look like labels by their name or by their values."""
    return tuple(column for column in table.columns if column and column not in used and _is_like(table, column))


def _is_like(table: Table, column: str) -> bool:
    counts = _values(table, column)
    words = set(_YES + _NO + _CORRECT + _INCORRECT)
    return bool(counts) and bool(_NAMES.search(simple(column)) or (len(counts) == 2 and words >= set(counts)))


def _values(table: Table, column: str) -> Counter[str]:
    cells = (row.values.get(column) for row in table.rows)
    return Counter(_plain(value) for value in cells if not is_missing(value))


def _plain(value: Any) -> str:
    return " ".join(re.sub(r"[\s_]+|(?<=[^\W\d])-(?=[^\W\d])", " ", str(value).casefold()).split())


def _shown(counts: Counter[str]) -> str:
    most = [f"{value[:20]!r} x {count}" for value, count in counts.most_common(_MOST_VALUES_SHOWN)]
    return ", ".join(most) + (f" and {len(counts) - len(most)} values more" if len(counts) > len(most) else "")
