"""What a run left on disk, read once for the report."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from medserl.config.removed import renamed
from medserl.data.sample_names import is_sample
from medserl.errors import RunError
from medserl.evaluation.cross_table import CROSS_PLAY, is_record
from medserl.evaluation.places import RECORD, TABLE, find_evaluations
from medserl.runs.records import Record, RecordsOnDisk, read_rows
from medserl.runs.runlog import CONFIG, EPISODES, FROZEN_GAMES, METRICS, PROVENANCE

EVAL = "eval"
COMPARISONS = "comparisons.json"

TABLE_KEYS = {"system", "figure", "value", "low", "high", "n"}
COMPARISON_KEYS = {"system", "against", "unit", "difference", "low", "high", "n", "p_value", "test"}

Kind = TypeVar("Kind", list[Any], dict[str, Any])


@dataclass(frozen=True)
class RunFiles:
    """The contents of a run folder; everything but the settings is empty where the run has none of it."""

    path: Path
    settings: Record
    code_version: str
    rows: list[dict[str, Any]]
    episodes: Sequence[dict[str, Any]]
    """Read from disk each time they are asked for: all games of a run may take more memory than there is."""
    frozen: list[dict[str, Any]]
    table: list[dict[str, Any]]
    comparisons: list[dict[str, Any]]
    evaluation: Record
    provenance: Record
    cross_play: Record
    other_evaluations: tuple[str, ...] = ()
    """Folders of the run's evaluations besides the newest one, which is the one shown, each with what was judged."""

    @cached_property
    def rounds(self) -> list[dict[str, Any]]:
        """The rows of rounds that were played: round 0, where there is one, only evaluates."""
        return [row for row in self.rows if "games" in row]

    @property
    def uses_sample(self) -> bool:
        """Whether the notes are the embedded, invented ones, asked for by name or by file."""
        return is_sample(str(self.settings.get("prompt_data", "sample")))


def read_run(path: Path) -> RunFiles:
    """Everything the report shows.

    Raises:
        RunError: there is no such folder, it holds no run, or one of its files cannot be read.
    """
    if not os.path.isdir(path):  # unlike Path.is_dir it never raises
        raise RunError(f"{path}: no such folder; give the run folder that `medserl train` named")
    config = path / CONFIG
    if not os.path.isfile(config):
        raise RunError(f"{path}: no {CONFIG} there, so this is no run folder")
    text = _read_text(config)
    try:
        settings = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RunError(f"{config}: cannot be read as TOML: {error}") from None
    shown, *others = _evaluations(path / EVAL) or [(path / EVAL, {})]
    return RunFiles(
        path=path,
        settings=renamed(settings),
        code_version=_leading_comment(text),
        rows=_rows(path / METRICS, "round"),
        episodes=_episodes(path / EPISODES),
        frozen=_rows(path / FROZEN_GAMES, "mode"),
        table=_table(shown[0] / TABLE, TABLE_KEYS),
        comparisons=_table(shown[0] / COMPARISONS, COMPARISON_KEYS),
        evaluation=shown[1],
        provenance=_json(path / PROVENANCE, dict),
        cross_play=_cross_play(path / CROSS_PLAY),
        other_evaluations=tuple(f"{place.relative_to(path)} ({_judged(record)})" for place, record in others),
    )


def _evaluations(folder: Path) -> list[tuple[Path, Record]]:
    """The finished evaluations with their records, the newest first."""
    found: list[tuple[Path, Record]] = [(place, _json(place / RECORD, dict)) for place in find_evaluations(folder)]
    return sorted(found, key=lambda each: str(each[1].get("finished", "")), reverse=True)


def _judged(record: Record) -> str:
    file = record.get("files", {}).get("judged", {}).get("name", "texts")
    return f"{file}, by {', '.join(record.get('systems', {})) or 'unknown systems'}"


def _leading_comment(text: str) -> str:
    """`medserl 0.1.0, git 0a1b2c`: what the run wrote above its settings."""
    first = text.partition("\n")[0].strip()
    return first.removeprefix("#").strip() if first.startswith("#") else "not recorded"


def _episodes(path: Path) -> RecordsOnDisk:
    games = RecordsOnDisk(path)
    _require(path, games, "mode")
    return games


def _rows(path: Path, needed: str) -> list[dict[str, Any]]:
    rows = read_rows(path)
    _require(path, rows, needed)
    return rows


def _require(path: Path, rows: Iterable[Record], needed: str) -> None:
    for number, row in enumerate(rows, start=1):
        if needed not in row:
            raise RunError(f"{path}: line {number} has no {needed!r}: was this file written by medserl?")


def _table(path: Path, keys: set[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = _json(path, list)
    for number, row in enumerate(rows, start=1):
        missing = keys.difference(row) if isinstance(row, dict) else keys
        if missing:
            raise RunError(f"{path}: entry {number} has no {min(missing)!r}; run `medserl evaluate` again")
    return rows


def _cross_play(path: Path) -> Record:
    record: Record = _json(path, dict)
    if record and not is_record(record):
        raise RunError(f"{path}: is no record of cross-play; delete it, or run `medserl evaluate --cross-play` again")
    return record


def _json(path: Path, kind: type[Kind]) -> Kind:
    if not os.path.exists(path):
        return kind()
    text = _read_text(path)
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise RunError(f"{path}: line {error.lineno} is no JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: is no JSON of ours: {error}") from None
    if not isinstance(found, kind):
        raise RunError(f"{path}: expected a JSON {kind.__name__}, found {type(found).__name__}")
    return found


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from None
