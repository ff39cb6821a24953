"""What a supervisor reads in a minute: what was run, what came of it, in sentences and a few figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medserl.config import Settings
from medserl.display.shares import as_count, counted_in
from medserl.reports.run_files import RunFiles
from medserl.reports.tables import in_words, interval
from medserl.reports.verdict import before_and_after, grounds, headline, settings_of
from medserl.runs.records import Record


@dataclass(frozen=True)
class Tile:
    name: str
    value: str
    detail: str = ""


def _percent(value: float | None, n: int = 0) -> str:
    """`57 %`, of fewer than ten `3 of 4`; a dash where there is none, for tables alone."""
    if value is None:
        return "–"
    return as_count(value, n) or f"{100 * value:.0f}\u00a0%"


def sentences(run: RunFiles) -> list[str]:
    """The run in plain words, the outcome first."""
    found = before_and_after(run)
    return [headline(run, found), *grounds(run, found), _what_was_run(run), *_games_in_words(run), *_frozen(run)]


def _what_was_run(run: RunFiles) -> str:
    setting = run.settings.get
    trained = setting("roles_trained", "both")
    roles = "both roles" if trained == "both" else f"the {trained} alone"
    played, learnt = "as Injector and as Assessor", f"REINFORCE++ updated {{}} from the turns of {roles}"
    if not settings_of(run).is_rewarded:
        played, learnt = "as Injector", "the auxiliary SFT loss alone updated {}"
    rank = setting("lora_rank")
    weights = "all weights" if rank == 0 else f"a LoRA adapter of rank {rank}" if rank else "its weights"
    counts = {row["trained_parameters"] for row in run.rounds if row.get("trained_parameters")}
    weights += f" ({counts.pop():,} parameters)" if len(counts) == 1 else ""
    games = sum(row["games"] for row in run.rounds)
    return (
        f"{setting('model', 'The model')} played {games:,} games in {_count(len(run.rounds), 'round')}, "
        f"{played}, on {_notes(run)}. After each round {learnt.format(weights)}."
    )


def _notes(run: RunFiles) -> str:
    if run.uses_sample:
        return "the sample notes, whose patients are invented"
    return f"the notes of {Path(str(run.settings.get('prompt_data'))).name}"


def _games_in_words(run: RunFiles) -> list[str]:
    if not run.rounds:
        return []
    first, last = run.rounds[0], run.rounds[-1]
    lines = [_round_in_words(first)]
    if first is not last:
        lines.append(_round_in_words(last))
        if run.settings.get("roles_trained", "both") == "both":
            lines.append("Both sides learn, so a flat line can hide progress.")
    return [" ".join(lines)]


def _round_in_words(row: Record) -> str:
    """Acceptance and accuracy of a round, as far as there were games."""
    games, accepted = row["games"], row.get("accepted_games") or 0
    start = f"In round {row['round']}"
    if not games:
        return f"{start} no game was played."
    if not accepted:
        return f"{start} the VCF accepted no edit in {_count(games, 'game')}."
    line = f"{start} the VCF accepted an edit in {_share(accepted / games, games)} games"
    right, judged = row.get("assessor_accuracy"), counted_in("assessor_accuracy", row)
    if right is None:
        return f"{line}; no Assessor was asked about them, as nothing is learnt from verdicts."
    return f"{line}; of the accepted ones the Assessor judged {_share(right, judged)} rightly."


def _share(value: float, n: int) -> str:
    """`3 of 4`, or `57 % of 32`."""
    return as_count(value, n) or f"{_percent(value)} of {n:,}"


def _frozen(run: RunFiles) -> list[str]:
    judged = [row for row in run.rows if row.get("frozen_accuracy") is not None]
    if len(judged) < 2:
        return []
    first, last, n = judged[0], judged[-1], len(run.frozen)
    return [
        f"Against a frozen opponent, {_count(n, 'edit')} that the starting policy made of the validation notes and "
        f"that stay the same, the Assessor judged {_share(first['frozen_accuracy'], n)} rightly in round "
        f"{first['round']} and {_share(last['frozen_accuracy'], n)} in round {last['round']}, the mode being the truth."
    ]


def tiles(run: RunFiles) -> list[Tile]:
    """The key figures."""
    games = sum(row["games"] for row in run.rounds)
    accepted = sum(row.get("accepted_games") or 0 for row in run.rounds)
    seconds = sum(value for row in run.rounds for key, value in row.items() if key.startswith("seconds_") and value)
    of_games = f"{accepted:,} of {games:,} games" if games else "no game was played"
    return [
        _accuracy_tile(run),
        Tile("Rounds", f"{len(run.rounds):,}", _passes(run, games)),
        Tile("Games", f"{games:,}", _notes_played(run)),
        Tile("Edits accepted", _percent(accepted / games if games else None, games), of_games),
        Tile("Time", _duration(seconds), "playing and learning, without evaluation"),
    ]


def _accuracy_tile(run: RunFiles) -> Tile:
    found = before_and_after(run)
    if found is None:
        return Tile("Accuracy", "–", "not measured before and after")
    intervals = [between for one in (found.before, found.after) if (between := interval(one))]
    detail = f"95\u00a0% intervals {' and '.join(intervals)}" if intervals else "no intervals"
    return Tile("Accuracy", f"{in_words(found.before)} → {in_words(found.after)}", f"on {found.on}; {detail}")


def _notes_played(run: RunFiles) -> str:
    """`on 8 of 30 notes`, or on how many where it was not recorded how many there are."""
    played = len({episode["note_id"] for episode in run.episodes})
    there = _training_notes(run)
    if not played:
        return "no game was logged"
    return f"on {played:,} of {_count(there, 'note')}" if there >= played else f"on {_count(played, 'note')}"


def _passes(run: RunFiles, games: int) -> str:
    there = _training_notes(run)
    return f"{games / there:.1f} passes over {_count(there, 'note')}" if there and games else ""


def _training_notes(run: RunFiles) -> int:
    """How many notes can be played on, 0 where the run did not record it."""
    recorded = run.provenance.get("notes", {})
    return int(recorded.get("playable") or 0) if isinstance(recorded, dict) else 0


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def settings_rows(settings: Record) -> list[dict[str, Any]]:
    """Every setting with its meaning, and whether it differs from the default."""
    rows = []
    for name, value in settings.items():
        field = Settings.model_fields.get(name)
        about = (field.description or "") if field else ""
        changed = field is not None and value != field.default
        rows.append({"name": name, "value": str(value), "about": about, "changed": changed})
    return rows
