"""Tables that libraries keep: Excel workbooks, Parquet files, and data sets of the Hugging Face library."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medserl.data.columns import is_header_again
from medserl.data.rows import BLANK_ROW, HEADER_AGAIN, Rows, SimpleNames
from medserl.errors import DataError, first_line
from medserl.files import sha256_of

log = logging.getLogger("medserl")

_TROUBLE = (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError)
"""What Arrow and `datasets` raise on files that are not what their names say."""


def read_workbook(path: Path, known: SimpleNames) -> Rows:
    """Rows of the first sheet of an Excel or LibreOffice workbook; a line in the log names the others.

    Raises:
        DataError: no workbook, one with a password, or one whose first sheet is empty.
    """
    from python_calamine import CalamineError, CalamineWorkbook

    rows = Rows(str(path), unit="row")
    try:
        with CalamineWorkbook.from_path(path) as book:
            first, *others = book.sheet_names
            sheet = book.get_sheet_by_index(0)
            cells, above = sheet.to_python(), (sheet.start or (0, 0))[0]
    except (CalamineError, *_TROUBLE) as error:
        raise DataError(
            f"{path}: no workbook that can be read ({first_line(error)}); save it as .xlsx or .csv"
        ) from None
    if others:
        log.warning("%s: only the first sheet, %r, is read; there are %d more", path, first, len(others))
    header: list[str] = []
    for number, row in enumerate(cells, start=above + 1):
        values = [_cell(value) for value in row]
        texts = ["" if value is None else str(value).strip() for value in values]
        if not any(texts):
            rows.skip(number, BLANK_ROW)
        elif not header:
            header = texts
            _check_header(header, f"{path}, sheet {first!r}")
            rows.columns = dict.fromkeys(filter(None, header))
        elif is_header_again(texts, header, known):
            rows.skip(number, HEADER_AGAIN)
        else:
            rows.add(number, {name: value for name, value in zip(header, values, strict=False) if name})
    if not header:
        raise DataError(f"{path}: the first sheet, {first!r}, is empty; it should hold notes")
    return rows


def _cell(value: Any) -> Any:
    """Excel keeps every number as a float; an id of 7 is no 7.0. An empty cell is no text."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return None if value == "" else value


def _check_header(names: list[str], where: str) -> None:
    twice = next((name for i, name in enumerate(names) if name and name in names[:i]), None)
    if twice is not None:
        raise DataError(f"{where}: two columns are called {twice!r}; rename one")


def read_parquet(path: Path) -> Rows:
    """Rows of a Parquet file. Raises DataError where it is none."""
    import pyarrow.parquet as parquet

    rows = Rows(str(path), unit="row")
    try:
        with parquet.ParquetFile(path) as file:
            rows.columns = dict.fromkeys(file.schema_arrow.names)
            _add_batches(rows, file.iter_batches())
    except _TROUBLE as error:
        raise DataError(f"{path}: no Parquet file that can be read ({first_line(error)})") from None
    return rows


def _add_batches(rows: Rows, batches: Iterable[Any]) -> None:
    for batch in batches:
        for values in batch.to_pylist():
            rows.add(len(rows.rows) + 1, values)


def is_saved_dataset(folder: Path) -> bool:
    """Whether `datasets.save_to_disk` wrote this folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "dataset_info.json").is_file()


def read_saved_dataset(folder: Path, split: str | None, file: str) -> Rows:
    """Rows of a folder that `datasets.save_to_disk` wrote. Raises DataError where it is damaged, or lacks the split."""
    import datasets

    try:
        found = datasets.load_from_disk(str(folder))
    except _TROUBLE as error:
        raise DataError(f"{file}: no saved data set that can be read ({first_line(error)})") from None
    return _dataset_rows(found, split, file)


def read_hub(name: str, config: str | None, split: str | None, file: str) -> tuple[Rows, str]:
    """Rows of a data set of the Hugging Face hub, and a checksum of them.

    Raises:
        DataError: no network, no such data set, or no such split.
    """
    import datasets

    log.info("%s: asking the Hugging Face hub (or its cache on this machine)", file)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # of its attempts the last one is told, by us
    try:
        found = datasets.load_dataset(name, config, split=split)
    except _TROUBLE as error:
        raise DataError(
            f"{file}: cannot be had from the Hugging Face hub ({first_line(error)}); "
            "download it where there is a network, and give the file or folder"
        ) from None
    rows = _dataset_rows(found, None, file)
    digest = hashlib.sha256()
    for row in rows.rows:
        digest.update(json.dumps(row.values, sort_keys=True, default=str).encode("utf-8", "surrogatepass"))
    return rows, digest.hexdigest()


def _dataset_rows(found: Any, split: str | None, file: str) -> Rows:
    if isinstance(found, Mapping):
        found = _chosen_split(found, split, file)
    elif split is not None and split != str(found.split):
        raise DataError(f"{file}: this data set has no splits; leave ?split={split} out")
    rows = Rows(file, unit="row")
    classes = {name: feature.names for name, feature in found.features.items() if getattr(feature, "names", None)}
    rows.columns = dict.fromkeys(found.column_names)
    try:
        _add_batches(rows, found.with_format("arrow").iter(batch_size=1000))
    except _TROUBLE as error:
        raise DataError(f"{file}: no saved data set that can be read ({first_line(error)})") from None
    for row in rows.rows:
        for name, names in classes.items():
            value = row.values[name]
            if isinstance(value, int) and 0 <= value < len(names):
                row.values[name] = names[value]  # type: ignore[index]  # a dict of our own
    return rows


def _chosen_split(splits: Mapping[str, Any], split: str | None, file: str) -> Any:
    if split is None and len(splits) == 1:
        return next(iter(splits.values()))
    if split is None or split not in splits:
        asked = f"no split {split!r}" if split else "several splits"
        raise DataError(f"{file}: {asked}; it has {', '.join(splits)}: give one as ?split=NAME")
    return splits[split]


def file_sha256(path: Path) -> str:
    """Raises DataError where the file cannot be read."""
    try:
        return sha256_of(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
