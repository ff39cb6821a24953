"""Where an evaluation is written, so that none overwrites another; and where those of a run are found.

An evaluation is what was asked: which texts, how, of whom. The same question again, be it after an interruption, goes
to the same folder. Another one in a run's `eval` goes to a folder of its own in it, `eval/DATA-HASH`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medserl.errors import ConfigError, RunError
from medserl.evaluation.options import EvaluationOptions
from medserl.files import private_folder, write_private

log = logging.getLogger("medserl")

RECORD = "evaluation.json"
"""What was judged, by whom and how: options, files with hashes, counts, thresholds, scores that were left out."""
TABLE = "table.json"
QUESTION = ("texts", "options", "systems")
"""The parts of the record that tell one evaluation from another."""


def claim_folder(options: EvaluationOptions, record: Mapping[str, Any], data: str) -> Path:
    """The folder of this evaluation, with the record in it that makes it its own; `data` names what is judged.

    Raises:
        ConfigError: the folder that --output names holds another evaluation.
        RunError: it cannot be read or written.
    """
    folder = options.folder
    if not _is_free(folder, record):
        if options.output is not None:
            raise ConfigError(
                f"--output {folder}: holds an evaluation of other texts, systems or options; choose another"
            )
        name = re.sub(r"[^\w.-]+", "_", data)[:40].strip(".") or "data"
        folder = folder / f"{name}-{_key(record)[:8]}"
        log.info("%s holds another evaluation; this one goes to %s", options.folder, folder)
    if not (folder / RECORD).is_file():
        write_evaluation_record(folder, record)
    return folder


def write_evaluation_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Raises OutputError where it cannot be written."""
    private_folder(folder)
    write_private(folder / RECORD, json.dumps(record, indent=1))


def give_up(folder: Path) -> None:
    """Free the folder again where nothing but the record is in it, as after a model that is refused."""
    if folder.is_dir() and [path.name for path in folder.iterdir()] == [RECORD]:
        (folder / RECORD).unlink()
        if not folder.is_symlink():
            folder.rmdir()


def find_evaluations(folder: Path) -> list[Path]:
    """The folders of finished evaluations in a run's `eval`, or in another folder of them: its own first."""
    places = [folder, *sorted(path for path in folder.glob("*") if path.is_dir())]
    return [place for place in places if (place / TABLE).is_file()]


def _is_free(folder: Path, record: Mapping[str, Any]) -> bool:
    """Whether nothing, or this very evaluation, is in the folder."""
    path = folder / RECORD
    if not path.exists():
        return not (folder / TABLE).exists()
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path}: cannot be read ({error}); move the folder away, or choose another --output") from None
    return isinstance(there, dict) and all(part in there for part in QUESTION) and _key(there) == _key(record)


def _key(record: Mapping[str, Any]) -> str:
    asked = json.dumps([record[part] for part in QUESTION], sort_keys=True)
    return hashlib.sha256(asked.encode("utf-8", "surrogatepass")).hexdigest()
