"""How the games of a run ended, early and late, counted from episodes.jsonl, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from medserl.evaluation.statistics import Estimate, share_estimate
from medserl.reports.games import is_accepted, outcome
from medserl.runs.records import Record


@dataclass(frozen=True)
class Period:
    """A stretch of rounds and the games played in it."""

    name: str
    games: Sequence[Record]


def _is_judged(game: Record) -> bool:
    return outcome(game) not in ("no_note", "not_judged")


def _judged_in(mode: str) -> Callable[[Record], bool]:
    return lambda game: _is_judged(game) and game["mode"] == mode


def _assessor_won(game: Record) -> bool:
    return outcome(game) == "assessor"


SHARES: tuple[tuple[str, Callable[[Record], bool], Callable[[Record], bool]], ...] = (
    ("Notes with an accepted edit", lambda game: True, is_accepted),
    ("Assessor right (accuracy)", _is_judged, _assessor_won),
    ("Injected errors found (recall)", _judged_in("error"), _assessor_won),
    ("Harmless edits let pass (specificity)", _judged_in("benign"), _assessor_won),
    ("Accepted games without a verdict", _is_judged, lambda game: outcome(game) == "no_verdict"),
)
"""Name, which games count, which of these are hits."""


def periods(episodes: Sequence[Record]) -> list[Period]:
    """All rounds, and in runs of more than one the first and the last quarter of them."""
    rounds = sorted({episode["round"] for episode in episodes})
    if not rounds:
        return []
    whole = Period("all rounds", episodes)
    if len(rounds) == 1:
        return [whole]
    size = max(1, len(rounds) // 4)
    first, last = rounds[:size], rounds[-size:]
    return [
        Period(_name("first", size), [e for e in episodes if e["round"] <= first[-1]]),
        Period(_name("last", size), [e for e in episodes if e["round"] >= last[0]]),
        whole,
    ]


def count(games: Sequence[Record]) -> list[Estimate]:
    """One share for each of SHARES; its value is None where no game counts."""
    return [share_estimate([hit(game) for game in games if counts(game)]) for _, counts, hit in SHARES]


def _name(which: str, size: int) -> str:
    return f"{which} round" if size == 1 else f"{which} {size} rounds"
