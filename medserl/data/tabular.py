"""The one door for files of notes: any form that is read becomes a table of rows; `readers` says what a row means.

| ending, whatever its case | what is in it |
|---|---|
| .csv, .tsv | a header line, then rows; comma, semicolon, tab or pipe |
| .jsonl, .ndjson, .json | objects or texts, one a line or in a list; an object of columns |
| .txt | one note |
| .xlsx, .xls, .xlsb, .ods | the first sheet |
| .parquet | a table |
| a folder | .txt files, one note each; or what `datasets.save_to_disk` wrote, with `?split=NAME` |
| `hf:OWNER/NAME?split=NAME` | a data set of the Hugging Face hub |

Text files may be packed with gzip (`.csv.gz`).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

from medserl.data.delimited import read_delimited
from medserl.data.encodings import BROKEN_BYTE, TextFile, check_regular, examine
from medserl.data.json_rows import read_json
from medserl.data.rows import Row, Rows, SimpleNames, SkippedRow, Table, simple
from medserl.errors import DataError
from medserl.files import sha256_of

__all__ = ["NOT_NOTES", "Row", "SkippedRow", "Table", "read_table"]

log = logging.getLogger("medserl")

HUB = "hf:"
_DELIMITED, _JSON = (".csv", ".tsv"), (".jsonl", ".ndjson", ".json")
_WORKBOOKS = (".xlsx", ".xls", ".xlsb", ".xlsm", ".ods")
NOT_NOTES = ("._", "~$", ".DS_Store", "Thumbs.db", "desktop.ini")
"""What macOS, Windows and Office put beside the files that a person sees."""
_WANTED = "use a .csv or .jsonl file, .tsv, .json, .txt, .xlsx, .parquet or a folder of .txt files"


@dataclass(frozen=True)
class Place:
    """Where notes are, as a person names it: `PATH`, `FOLDER?split=NAME` or `hf:OWNER/NAME?split=NAME&config=NAME`."""

    given: str
    where: str
    split: str | None = None
    config: str | None = None

    @classmethod
    def of(cls, given: str | Path) -> Place:
        """Raises DataError where something other than `split` and `config` follows the question mark."""
        text = str(given)
        if "?" not in text or (not text.startswith(HUB) and Path(text).exists()):
            return cls(text, text)
        where, _, query = text.partition("?")
        asked = dict(parse_qsl(query, keep_blank_values=True))
        if not asked.keys() <= {"split", "config"} or not all(asked.values()):
            raise DataError(
                f"{text}: after the question mark only split=NAME and config=NAME can stand, with & between"
            )
        return cls(text, where, asked.get("split"), asked.get("config"))


def read_table(source: str | Path, known: SimpleNames = ()) -> Table:
    """Read a file, a folder or a data set of the hub; `known` are names that a header may hold, in simple form.

    Raises:
        DataError: it is missing, unreadable, empty, in no known form or encoding, or broken at a named line.
    """
    from medserl.data import stored_tables

    place = Place.of(source)
    if place.where.startswith(HUB):
        rows, sha256 = stored_tables.read_hub(place.where.removeprefix(HUB), place.config, place.split, place.given)
        return rows.table(sha256)
    path = Path(place.where)
    if path.is_dir():
        if stored_tables.is_saved_dataset(path):
            rows = stored_tables.read_saved_dataset(path, place.split, place.given)
            return rows.table(sha256_of(path))
        _refuse_split(place)
        return _folder_of_texts(path)
    _refuse_split(place)
    return _file(path, known)


def _refuse_split(place: Place) -> None:
    if place.split or place.config:
        raise DataError(f"{place.given}: only a saved data set or one of the hub has splits; give the path alone")


def _file(path: Path, known: SimpleNames) -> Table:
    from medserl.data import stored_tables

    if path.name.startswith(NOT_NOTES):
        raise DataError(f"{path}: a file that a system or editor keeps beside the real one; give the real one")
    check_regular(path)
    kind = _kind(path)
    if kind in _WORKBOOKS:
        return stored_tables.read_workbook(path, known).table(stored_tables.file_sha256(path))
    if kind == ".parquet":
        return stored_tables.read_parquet(path).table(stored_tables.file_sha256(path))
    text = examine(path)
    if kind in _DELIMITED:
        return read_delimited(text, known).table(text.sha256)
    if kind in _JSON:
        return read_json(text).table(text.sha256)
    rows = Rows(str(path), unit="file")
    content = _whole_text(text)
    _check_one_note(content, path, known)
    rows.add(1, {"note_id": _name(path), "note": content})
    return rows.table(text.sha256)


def _kind(path: Path) -> str:
    """The ending that says the form. Raises DataError where it says none that is known."""
    packed = path.suffix.lower() == ".gz"
    kind = _text_kind(path)
    readable = (*_DELIMITED, *_JSON, ".txt", *(() if packed else (*_WORKBOOKS, ".parquet")))
    if kind not in readable:
        raise DataError(f"{path}: cannot tell the format from the name; {_WANTED}")
    return kind


def _name(path: Path) -> str:
    """The file's name without its ending: the id of the note in it."""
    endings = path.suffixes[-2:] if path.suffix.lower() == ".gz" else path.suffixes[-1:]
    stem = path.name[: -sum(map(len, endings))]
    return stem.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _whole_text(text: TextFile) -> str:
    with text.lines() as lines:
        content = lines.read().removeprefix("\ufeff")
    broken = BROKEN_BYTE.search(content)
    if broken or "\0" in content:
        line = content.count("\n", 0, broken.start() if broken else content.index("\0")) + 1
        what = "a byte that is not UTF-8" if broken else "a zero byte"
        raise DataError(f"{text.path}, line {line}: {what}; save the file as UTF-8")
    return content


def _check_one_note(content: str, path: Path, known: SimpleNames) -> None:
    """Raises DataError where a .txt file is plainly a table: as one note it would be a wrong one."""
    first, _, rest = content.strip().partition("\n")
    names = [simple(cell) for cell in first.replace(";", ",").replace("\t", ",").replace("|", ",").split(",")]
    if rest and len(names) > 1 and any(name in known for name in names) and all(len(name) < 40 for name in names):
        raise DataError(f"{path}: looks like a table, and a .txt file is one note; rename it to .csv")
    if first[:1] == "{":
        try:
            json.loads(first)
        except (ValueError, RecursionError):
            return
        raise DataError(f"{path}: looks like JSON lines, and a .txt file is one note; rename it to .jsonl")


def _folder_of_texts(folder: Path) -> Table:
    """One note a .txt file, the file's name its id; what else lies there is told in one line of the log."""
    rows = Rows(str(folder), unit="file")
    digest = hashlib.sha256()
    others: list[str] = []
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror or error}") from None
    for path in paths:
        if path.name.startswith((".", *NOT_NOTES)) or not path.is_file() or _text_kind(path) != ".txt":
            others.append(path.name + ("/" if path.is_dir() else ""))
            continue
        number = len(rows.rows) + len(rows.skipped) + 1
        try:
            text = examine(path)
            rows.add(number, {"note_id": _name(path), "note": _whole_text(text)})
            digest.update(f"{path.name}\0{text.sha256}\0".encode("utf-8", "surrogateescape"))
        except DataError as error:
            rows.skip(number, str(error).removeprefix(f"{folder}/"))
    if not rows.rows and not rows.skipped:
        has = f"it has {_some(others)}: give one of these" if others else "it is empty"
        raise DataError(f"{folder}: Is a directory without .txt files in it; {has}")
    if others:
        log.warning("%s: %d files and folders were passed over, not being .txt: %s", folder, len(others), _some(others))
    return rows.table(digest.hexdigest())


def _text_kind(path: Path) -> str:
    """The ending in small letters, without that of gzip."""
    endings = [ending.lower() for ending in path.suffixes]
    return (endings[-2:-1] or [""])[0] if endings[-1:] == [".gz"] else path.suffix.lower()


def _some(names: Iterable[str], most: int = 3) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
