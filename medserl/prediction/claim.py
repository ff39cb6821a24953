"""One output, one question: whose answers are kept beside a file of predictions, so that it can be gone on with."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medserl import __version__
from medserl.data.readers import LoadedNotes
from medserl.errors import ConfigError, RunError
from medserl.files import private_folder, write_private
from medserl.game.note import Note
from medserl.prediction.assessor import judged_text

log = logging.getLogger("medserl")

_RECORD = "prediction.json"
"""In the folder of answers: which notes and weights they are of."""


def claim_output(target: Path, answers: Path, loaded: LoadedNotes, weights: str) -> dict[str, Any]:
    """The record of these predictions, once it is sure that they may go to `target`.

    A finished output may be written anew by the same weights, for the same notes and more of them. An unfinished one of
    other notes or weights is told, and begun anew.

    Raises:
        ConfigError: the output is a file of something else.
        RunError: the record of the one that is there cannot be read.
    """
    texts = {_digest(note) for note in loaded.notes}
    before = _record(answers / _RECORD)
    if before is None:
        if target.exists():
            raise ConfigError(f"--output {target}: a file that `medserl predict` did not write; name another")
    else:
        changes = [f"of other notes ({before['notes']})"] if set(before["texts"]) - texts else []
        changes += ["by another model, or to another prompt"] if before["weights"] != weights else []
        if changes and target.exists():
            raise ConfigError(
                f"--output {target}: holds predictions {' and '.join(changes)}; name another file, or delete it to "
                "judge anew"
            )
        if changes:
            log.warning("%s: was begun with predictions %s; judging anew", target, " and ".join(changes))
        elif new := len(texts - set(before["texts"])):
            log.info("%s: %d notes are new since it was begun", target, new)
    return {"medserl": __version__, "notes": loaded.source, "weights": weights, "texts": sorted(texts)}


def write_prediction_record(answers: Path, record: Mapping[str, Any]) -> None:
    """Raises OutputError where it cannot be written."""
    private_folder(answers)
    write_private(answers / _RECORD, json.dumps(record, indent=1))


def _record(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not all(isinstance(record[key], kind) for key, kind in (("notes", str), ("weights", str), ("texts", list))):
            raise ValueError("an entry is of another kind")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(f"{path}: cannot be read ({error}); delete its folder to judge anew") from None
    return dict(record)


def _digest(note: Note) -> str:
    return hashlib.sha256(judged_text(note).encode("utf-8", "surrogatepass")).hexdigest()
