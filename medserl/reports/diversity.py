"""Does the Injector still try different things? Figures of a round's accepted edits, on the edited spans alone.

Case and punctuation aside, as everywhere in the game. Everything is computed from the rows of episodes.jsonl.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from medserl.game.text import split_words
from medserl.runs.records import Record

WordTuple = tuple[str, ...]

NO_MATCH = 0.1
"""What counts as matched where no n-gram of an order is (Chen and Cherry, WMT 2014, smoothing 1)."""


@dataclass(frozen=True)
class EditDiversity:
    """The accepted edits of one round.

    distinct_ratio: different edits / edits; 1 where no two are alike. self_bleu: see there, on the words that each
    edit writes; None where fewer than two write any. error_type_entropy: bits, over the error types that were asked
    for in the accepted error games; log2(5) = 2.32 where the five are alike.
    """

    round: int
    edits: int
    distinct_ratio: float
    self_bleu: float | None
    error_type_entropy: float | None


def edit_diversity(episodes: Iterable[Record]) -> list[EditDiversity]:
    """One row for each round that has an accepted note."""
    accepted: dict[int, list[Record]] = defaultdict(list)
    for episode in episodes:
        if episode.get("modified") is not None:
            accepted[episode["round"]].append(episode)
    return [_diversity(number, accepted[number]) for number in sorted(accepted)]


def _diversity(number: int, games: Sequence[Record]) -> EditDiversity:
    edits = [_edit_words(game) for game in games]
    types = Counter(game["error_type"] for game in games if game["mode"] == "error" and game.get("error_type"))
    return EditDiversity(
        round=number,
        edits=len(edits),
        distinct_ratio=len(set(edits)) / len(edits),
        self_bleu=self_bleu([written for _, written in edits]),
        error_type_entropy=entropy(types) if types else None,
    )


def _edit_words(game: Record) -> tuple[WordTuple, WordTuple]:
    """The words taken out and the words written, over all spans of the edit."""
    spans = game.get("edits") or []
    taken = tuple(word for span in spans for word in split_words(span["original"]).keys)
    written = tuple(word for span in spans for word in split_words(span["modified"]).keys)
    return taken, written


def self_bleu(texts: Iterable[Sequence[str]]) -> float | None:
    """Mean BLEU of each text against all others: 0 where none shares a word, 1 where all are written elsewhere too.

    Source: Zhu et al., SIGIR 2018; BLEU is Papineni et al.'s (ACL 2002), by sacrebleu. Orders 1 to 4, but none longer
    than the text, since most edits write a word or two. Texts without words are left out; None for fewer than two with
    words.
    """
    from sacrebleu.metrics.bleu import BLEU

    written = [" ".join(text) for text in texts if text]
    if len(written) < 2:
        return None
    bleu = BLEU(effective_order=True, smooth_method="floor", smooth_value=NO_MATCH, tokenize="none")
    others = (written[:place] + written[place + 1 :] for place in range(len(written)))
    return fmean(bleu.sentence_score(text, rest).score / 100 for text, rest in zip(written, others, strict=True))


def entropy(counts: Mapping[str, int]) -> float:
    """Shannon entropy in bits."""
    total = sum(counts.values())
    return sum(-n / total * math.log2(n / total) for n in counts.values() if n) + 0.0
