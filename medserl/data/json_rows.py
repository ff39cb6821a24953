"""JSON: one object or text a line, a list of either, or one object of columns; the content says which."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from medserl.data.encodings import BROKEN_BYTE, TextFile
from medserl.data.rows import BLANK_ROW, Rows
from medserl.errors import DataError

PLAIN_TEXT = "note"
"""The column of notes in a list of texts."""


class _Doubled(ValueError):
    """A name that stands twice in one object: which of the two is meant, nobody can say."""


def read_json(text: TextFile) -> Rows:
    """Rows of a JSON or JSON Lines file.

    Raises:
        DataError: broken JSON, by its line, or one that is none of the known forms.
    """
    return _by_lines(text) if _is_lines(text) else _as_whole(text)


def _is_lines(text: TextFile) -> bool:
    """Whether the first line is a value of its own, as in JSON Lines; a lone object of columns is a whole document."""
    with text.lines(newline=None) as lines:
        first = next((line for line in lines if line.strip("\ufeff \t\r\n")), "")
        more = any(line.strip() for line in lines)
    try:
        value = _parse(first)
    except (ValueError, RecursionError):
        return first.lstrip("\ufeff \t")[:1] not in ("[", "{") or (more and first.strip("\ufeff \t\r\n")[-1:] == "}")
    return not isinstance(value, list) and (more or not _columns(value))


def _by_lines(text: TextFile) -> Rows:
    rows = Rows(str(text.path))
    with text.lines(newline=None) as lines:
        for number, line in enumerate(lines, start=1):
            line = line.removesuffix("\n").removeprefix("\ufeff")
            if not line.strip():
                rows.skip(number, BLANK_ROW)
            elif broken := BROKEN_BYTE.search(line):
                rows.skip(number, f"a byte that is not UTF-8 (0x{ord(broken[0]) - 0xDC00:02x})")
            elif "\0" in line:
                rows.skip(number, "a zero byte")
            else:
                _add(rows, number, _parsed(line, f"{rows.file}, line {number}"))
    return rows


def _as_whole(text: TextFile) -> Rows:
    rows = Rows(str(text.path), unit="item")
    with text.lines(newline=None) as lines:
        content = lines.read().removeprefix("\ufeff")
    broken = BROKEN_BYTE.search(content)
    if broken:
        line = content.count("\n", 0, broken.start()) + 1
        raise DataError(f"{rows.file}, line {line}: a byte that is not UTF-8; save the file as UTF-8")
    value = _parsed(content, rows.file)
    items: Sequence[Any] = value if isinstance(value, list) else _columns(value) or [value]
    if not items:
        raise DataError(f"{rows.file}: the list is empty; it should hold notes")
    for number, item in enumerate(items, start=1):
        _add(rows, number, item)
    return rows


def _add(rows: Rows, number: int, value: Any) -> None:
    if isinstance(value, str):
        value = {PLAIN_TEXT: value}
    if not isinstance(value, dict):
        raise DataError(
            f"{rows.file}, {rows.unit} {number}: not a JSON object or a text; each should be one: "
            '{"note": "..."} or "..."'
        )
    rows.add(number, value)


def _columns(value: Any) -> list[dict[str, Any]]:
    """The rows of an object of columns, each a list or (as pandas writes it) an object by row; none where it is not."""
    if not isinstance(value, Mapping) or not value:
        return []
    if all(isinstance(column, list) for column in value.values()):
        keys: Sequence[Any] = range(max(map(len, value.values())))
        if any(len(column) != len(keys) for column in value.values()):
            return []
    elif all(isinstance(column, dict) for column in value.values()):
        keys = list(dict.fromkeys(key for column in value.values() for key in column))
        return [{name: column.get(key) for name, column in value.items()} for key in keys]
    else:
        return []
    return [{name: column[key] for name, column in value.items()} for key in keys]


def _parsed(content: str, where: str) -> Any:
    try:
        return _parse(content)
    except json.JSONDecodeError as error:
        line = f", line {error.lineno}" if ", line" not in where else ""
        raise DataError(
            f"{where}{line}: broken JSON ({error.msg} at column {error.colno}); mend or delete it"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: unreadable JSON ({error}); mend or delete it") from None


def _parse(content: str) -> Any:
    return json.loads(content.removeprefix("\ufeff"), object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Doubled(f"{next(name for name in names if names.count(name) > 1)!r} stands twice in one object")
    return found
