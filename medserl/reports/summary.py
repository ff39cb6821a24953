"""What a supervisor reads in a minute: what was run, what came of it, in sentences and a few figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medserl.config import Settings, validate
from medserl.models import shipped_warmup
from medserl.reports.run_files import Row, RunFiles
from medserl.reports.tables import in_words, interval
from medserl.reports.verdict import grounds, headline, held_out


@dataclass(frozen=True)
class Tile:
    name: str
    value: str
    detail: str = ""


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f}\u00a0%"


def sentences(run: RunFiles) -> list[str]:
    """The run in plain words, the outcome first."""
    found = held_out(run)
    return [headline(run, found), *grounds(run, found), _what_was_run(run), *_games_in_words(run), *_frozen(run)]


def _what_was_run(run: RunFiles) -> str:
    setting = run.settings.get
    trained = setting("roles_trained", "both")
    roles = "both roles" if trained == "both" else f"the {trained} alone"
    rank = setting("lora_rank")
    weights = "all weights" if rank == 0 else f"a LoRA adapter of rank {rank}" if rank else "its weights"
    counts = {row["trained_parameters"] for row in run.rounds if row.get("trained_parameters")}
    weights += f" ({counts.pop():,} parameters)" if len(counts) == 1 else ""
    games = sum(row["games"] for row in run.rounds)
    return (
        f"{setting('model', 'The model')} played {games:,} games in {_count(len(run.rounds), 'round')}, "
        f"as Injector and as Assessor, on {_notes(run)}. After each round REINFORCE++ updated {weights} "
        f"from the turns of {roles}. {_start(run)}"
    )


def _start(run: RunFiles) -> str:
    adapter = run.settings.get("adapter", "none")
    merged = ", merged into all weights" if run.settings.get("lora_rank") == 0 else ""
    if adapter not in ("none", "auto"):
        return f"Training started from the adapter {adapter}{merged}."
    named = {key: run.settings[key] for key in ("model", "injector_format", "prompts") if key in run.settings}
    if adapter == "auto" and shipped_warmup(validate(named)):
        return (
            f"Training started from the warm-up adapter shipped with MedSeRL{merged} (--rebuild-warmup makes it again)."
        )
    return "Training started from the model without an adapter."


def _notes(run: RunFiles) -> str:
    if run.uses_sample:
        return "the sample notes, whose patients are invented"
    return f"the notes of {Path(str(run.settings.get('prompt_data'))).name}"


def _games_in_words(run: RunFiles) -> list[str]:
    if not run.rounds:
        return []
    first, last = run.rounds[0], run.rounds[-1]
    line = (
        f"In round {first['round']} the VCF accepted an edit for {percent(first.get('vcf_acceptance_rate'))} "
        f"of the notes and the Assessor was right in {percent(first.get('assessor_accuracy'))} of these games"
    )
    if first is last:
        return [f"{line}."]
    later = (
        f"in round {last['round']} it was {percent(last.get('vcf_acceptance_rate'))} "
        f"and {percent(last.get('assessor_accuracy'))}"
    )
    both = run.settings.get("roles_trained", "both") == "both"
    caution = " Both sides learn, so a flat line can hide progress." if both else ""
    return [f"{line}; {later}.{caution}"]


def _frozen(run: RunFiles) -> list[str]:
    judged = [row for row in run.rows if row.get("frozen_accuracy") is not None]
    if len(judged) < 2:
        return []
    first, last = judged[0], judged[-1]
    return [
        f"Against a frozen opponent, {_count(len(run.frozen), 'edit')} that the starting policy made and that stay the "
        f"same, the Assessor was right in {percent(first['frozen_accuracy'])} of the cases in round {first['round']} "
        f"and in {percent(last['frozen_accuracy'])} in round {last['round']}."
    ]


def tiles(run: RunFiles) -> list[Tile]:
    """The key figures."""
    games = sum(row["games"] for row in run.rounds)
    accepted = sum(row.get("accepted_games") or 0 for row in run.rounds)
    notes = len({episode["note_id"] for episode in run.episodes})
    seconds = sum(value for row in run.rounds for key, value in row.items() if key.startswith("seconds_") and value)
    return [
        _held_out_tile(run),
        Tile("Rounds", f"{len(run.rounds):,}", _epochs(run.rounds)),
        Tile("Games", f"{games:,}", f"on {_count(notes, 'note')}" if notes else "no game was logged"),
        Tile("Edits accepted", percent(accepted / games if games else None), f"{accepted:,} of {games:,} games"),
        Tile("Time", _duration(seconds), "playing and learning, without evaluation"),
    ]


def _held_out_tile(run: RunFiles) -> Tile:
    found = held_out(run)
    if found is None:
        return Tile("Held-out accuracy", "–", "not measured before and after")
    intervals = [between for one in (found.before, found.after) if (between := interval(one))]
    detail = f"95\u00a0% intervals {' and '.join(intervals)}" if intervals else f"{found.source}, no intervals"
    return Tile("Held-out accuracy", f"{in_words(found.before)} → {in_words(found.after)}", detail)


def _epochs(rounds: Sequence[Row]) -> str:
    epochs = {row["epoch"] for row in rounds if row.get("epoch") is not None}
    return f"{_count(len(epochs), 'pass', 'passes')} over the notes" if epochs else ""


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def settings_rows(settings: Row) -> list[dict[str, Any]]:
    """Every setting with its meaning, and whether it differs from the default."""
    rows = []
    for name, value in settings.items():
        field = Settings.model_fields.get(name)
        about = (field.description or "") if field else ""
        changed = field is not None and value != field.default
        rows.append({"name": name, "value": str(value), "about": about, "changed": changed})
    return rows
