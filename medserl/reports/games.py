"""The games of a run, made ready for the report's browser: plain data, no markup."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

from medserl.game.roles import truth
from medserl.game.text import normalize
from medserl.game.vcf import Edit, apply_vcf
from medserl.runs.records import Record

GAMES_BYTES = 6_000_000
"""Room for games in the file; the rest of a report stays well under the 4 MB that this leaves of 10."""

LONGEST_COMPLETION = 4_000
"""Characters shown of a completion: a model that rambles must not crowd other games out."""

MOST_EDITS_LISTED = 8

Marked = list[str]
"""A text in pieces: plain, marked, plain ... A marked piece is empty where only the other note has words."""


@dataclass(frozen=True)
class ShownGames:
    """The games that fit into the report, in the order they were played, and how many there were in all."""

    games: list[dict[str, Any]]
    total: int

    @property
    def sampled(self) -> bool:
        return len(self.games) < self.total


def choose_games(episodes: Sequence[Record], budget: int = GAMES_BYTES, seed: int = 0) -> ShownGames:
    """All games where they fit into `budget` bytes of JSON, else an even random share of every round."""
    chosen: list[tuple[int, dict[str, Any]]] = []
    for index in _round_robin(episodes, random.Random(seed)):
        game = game_shown(episodes[index])
        budget -= len(json.dumps(game, ensure_ascii=False).encode("utf-8", "replace"))
        if budget < 0:
            break
        chosen.append((index, game))
    chosen.sort(key=lambda pair: pair[0])
    return ShownGames([game for _, game in chosen], len(episodes))


def _round_robin(episodes: Sequence[Record], rng: random.Random) -> Iterator[int]:
    """Positions of all games, one of each round in turn, in random order within a round."""
    by_round: dict[Any, list[int]] = defaultdict(list)
    for index, episode in enumerate(episodes):
        by_round[episode["round"]].append(index)
    for members in by_round.values():
        rng.shuffle(members)
    turns = zip_longest(*by_round.values())
    return (index for index in chain.from_iterable(turns) if index is not None)


def game_shown(episode: Record) -> dict[str, Any]:
    """One row of episodes.jsonl as the browser shows it."""
    original = episode["original"]
    attempts = episode.get("attempts") or []
    written = [attempt["modified"] for attempt in attempts if attempt["modified"] is not None]
    shown = written[-1] if written else None
    edits = apply_vcf(original, shown).edits if shown is not None else ()
    return {
        "round": episode["round"],
        "note": episode["note_id"],
        "fact": episode.get("fact_id"),
        "mode": episode["mode"],
        "type": episode.get("error_type"),
        "outcome": outcome(episode),
        "accepted": is_accepted(episode),
        "label": label(episode),
        "original": marked(original, [(edit.original_start, edit.original_end) for edit in edits]),
        "modified": marked(shown, [(e.modified_start, e.modified_end) for e in edits]) if shown else None,
        "attempts": [_show_attempt(original, attempt) for attempt in attempts],
        "assessor": _cut(episode.get("assessor_completion")),
        "verdict": episode.get("verdict"),
        "rewards": [episode.get("reward_injector"), episode.get("reward_assessor")],
    }


def is_accepted(episode: Record) -> bool:
    """Whether an attempt passed the VCF: always the last."""
    attempts = episode.get("attempts")
    return bool(attempts and attempts[-1]["reason"] is None)


def outcome(episode: Record) -> str:
    """How a game ended: `assessor` or `injector` (who won), `no_verdict`, `no_note` (none accepted), or `not_judged`,
    where no Assessor was asked."""
    if not is_accepted(episode):
        return "no_note"
    if episode.get("assessor_completion") is None:
        return "not_judged"
    if episode.get("verdict") is None:
        return "no_verdict"
    return "assessor" if episode["verdict"] == truth(episode["mode"]) else "injector"


def label(episode: Record) -> str | None:
    """The label that the mode gives, by the fact table: `right`, `wrong`, `unknown`; None where it was not asked."""
    still_true = episode.get("still_true")
    if still_true is None:
        return None
    if still_true == "unknown":
        return "unknown"
    return "right" if (still_true == "false") == (episode["mode"] == "error") else "wrong"


def marked(text: str, spans: Sequence[tuple[int, int]]) -> Marked:
    """`text` in its NFKC form, to which the VCF's spans refer, cut at them."""
    text = normalize(text)
    pieces, place = [], 0
    for start, end in spans:
        pieces += [text[place:start], text[start:end]]
        place = end
    return [*pieces, text[place:]]


def _show_attempt(original: str, attempt: Record) -> dict[str, Any]:
    modified = attempt["modified"]
    edits: Sequence[Edit] = apply_vcf(original, modified).edits if modified is not None else ()
    return {
        "reason": attempt["reason"],
        "jaccard": attempt["jaccard"],
        "word_edits": attempt["word_edits"],
        "class": attempt.get("edit_class"),
        "edits": [[edit.original, edit.modified] for edit in edits[:MOST_EDITS_LISTED]],
        "more": max(0, len(edits) - MOST_EDITS_LISTED),
        "completion": _cut(attempt["completion"]),
    }


def _cut(text: str | None) -> str | None:
    if text is None or len(text) <= LONGEST_COMPLETION:
        return text
    rest = len(text) - LONGEST_COMPLETION
    return f"{text[:LONGEST_COMPLETION]} … ({rest:,} more characters are in episodes.jsonl)"
