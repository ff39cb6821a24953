"""What `medserl evaluate` found of a model, as its card tells it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medserl.errors import RunError
from medserl.evaluation.guessing import FLAG_RATES
from medserl.evaluation.places import RECORD, TABLE, find_evaluations
from medserl.evaluation.statistics import Estimate
from medserl.evaluation.table import HEADERS, cell
from medserl.models.base_names import last_part

_FIGURES = ("accuracy", "pairwise_accuracy", "right_minus_reversed", "pair_ordering", "auroc", "recall", "specificity",
            "f1", "balanced_accuracy", "no_verdict_rate", "brier", "ece", "sentence accuracy", "ROUGE-1-F")  # fmt: skip


@dataclass(frozen=True)
class EvaluationRow:
    """A figure of the model in words, and of the best way to guess."""

    name: str
    mine: str
    guess: str


@dataclass(frozen=True)
class Evaluation:
    """An evaluation of one model: of how many texts of which file, and what came of it."""

    n: int
    data: str
    sample: bool
    overlap: str
    rows: list[EvaluationRow]


def find_evaluation(folder: Path, run: Path | None) -> Evaluation | None:
    """The newest evaluation below the run's `eval` that judged the model or adapter of `folder`.

    Raises:
        RunError: an evaluation cannot be read.
    """
    found: list[tuple[str, Evaluation]] = []
    for place in find_evaluations(run / "eval") if run else []:
        record, table = _json(place / RECORD), _json(place / TABLE)
        for system, settings in record.get("systems", {}).items():
            if _is_of(settings, folder):
                found.append((str(record.get("finished", "")), _evaluation(record, table, system)))
                break
    return max(found, key=lambda each: each[0], default=("", None))[1]


def _is_of(settings: Any, folder: Path) -> bool:
    """Whether a system of an evaluation is what lies in the folder. A run may have been moved since: then its own name,
    that of `checkpoints` and that of the round count."""
    if not isinstance(settings, Mapping):
        return False
    wanted = folder.resolve()
    for name in (settings.get("adapter"), settings.get("model")):
        given = Path(str(name))
        if given.resolve() == wanted or given.parts[-3:] == wanted.parts[-3:]:
            return True
    return False


def _evaluation(record: Mapping[str, Any], table: list[Mapping[str, Any]], system: str) -> Evaluation:
    by_system: dict[str, dict[str, Estimate]] = {}
    for row in table:
        if row.get("group", "all") == "all":
            estimate = Estimate(row["value"], row["low"], row["high"], row["n"] or 0)
            by_system.setdefault(row["system"], {})[row["figure"]] = estimate
    mine, texts = by_system.get(system, {}), record.get("texts", {})
    rows = [
        EvaluationRow(HEADERS.get(name, name), cell(name, mine[name]), _best_guess(by_system, name))
        for name in _FIGURES
        if name in mine and mine[name].value is not None
    ]
    return Evaluation(
        n=int(texts.get("n") or 0),
        data=last_part(str(record.get("files", {}).get("judged", {}).get("name", ""))) or "an unnamed file",
        sample=bool(texts.get("sample")),
        overlap=_overlap(texts.get("notes")),
        rows=rows,
    )


def _best_guess(by_system: Mapping[str, Mapping[str, Estimate]], figure: str) -> str:
    guesses = [by_system[name][figure] for name in FLAG_RATES if figure in by_system.get(name, {})]
    known = [guess for guess in guesses if guess.value is not None]
    if figure not in ("accuracy", "balanced_accuracy", "pairwise_accuracy") or not known:
        return ""
    return cell(figure, max(known, key=lambda guess: guess.value or 0.0))


def _overlap(notes: Any) -> str:
    if not isinstance(notes, Mapping):
        return "whether they are among the training notes was not recorded."
    if notes.get("in_both"):
        return f"{notes['in_both']} of their {notes['judged']} notes are among the training notes."
    return "none of their notes is among the training notes."


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {} if path.name == RECORD else []
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path}: cannot be read ({error}); run `medserl evaluate` again") from None
