"""How a run moved: diversity of the Injector's edits, gold against self-made errors, and notices of what went wrong.

Everything is computed from the rows of metrics.jsonl and episodes.jsonl (DESIGN, section 7). A figure that a row lacks,
or has as null, is passed over.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from medserl.game.text import split_words

Row = Mapping[str, Any]

PATIENCE = 3
"""Rounds in a row that a sign must last before it is a notice: one round of some dozen games proves nothing."""

COLLAPSED_SHARE = 0.95
FEWEST_EDITS = 8
REPEATING_RATIO = 0.5
RUNAWAY_KL = 0.5
FALLEN_ACCEPTANCE = 0.7
REWARD_RISE = 0.1
ACCURACY_FALL = 0.05

NoticeKind = Literal[
    "verdict_collapse", "injector_repeats", "kl_runaway", "acceptance_falls", "reward_up_accuracy_down"
]


@dataclass(frozen=True)
class EditDiversity:
    """The accepted edits of one round, looked at on the edited spans alone, case and punctuation aside.

    distinct_ratio: different edits / edits; 1 where no two are alike. self_bleu: share of the words written in an edit
    that some other edit of the round writes too, a mean over the edits that write words; it is self-BLEU (Zhu et al.,
    SIGIR 2018) with single words and without the brevity penalty, since most edits write a word or two. None where
    fewer than two do. error_type_entropy: bits, over the error types of accepted error games; log2(5) = 2.32 where the
    five are alike.
    """

    round: int
    edits: int
    distinct_ratio: float
    self_bleu: float | None
    error_type_entropy: float | None


@dataclass(frozen=True)
class GoldGap:
    """Self-made minus gold, at a round that was evaluated: recall on errors, and accuracy.

    Self-made figures are means over the rounds since the evaluation before. A growing gap: the Assessor learns the
    Injector's habits, not medicine. Games are sampled, evaluations greedy.
    """

    round: int
    self_made_recall: float | None
    gold_recall: float | None
    recall_gap: float | None
    accuracy_gap: float | None


@dataclass(frozen=True)
class Notice:
    """Something a reader should know, and the first round of it."""

    kind: NoticeKind
    round: int
    text: str


@dataclass(frozen=True)
class Convergence:
    diversity: list[EditDiversity]
    gold_gaps: list[GoldGap]
    notices: list[Notice]


def convergence(rows: Sequence[Row], episodes: Iterable[Row]) -> Convergence:
    """All of it, from the rows of metrics.jsonl and episodes.jsonl."""
    diversity = edit_diversity(episodes)
    return Convergence(diversity, gold_gaps(rows), notices(rows, diversity))


# -- diversity ---------------------------------------------------------------------------------------------------------


def edit_diversity(episodes: Iterable[Row]) -> list[EditDiversity]:
    """One row for each round that has an accepted note."""
    accepted: dict[int, list[Row]] = defaultdict(list)
    for episode in episodes:
        if episode.get("modified") is not None:
            accepted[episode["round"]].append(episode)
    return [_diversity(number, accepted[number]) for number in sorted(accepted)]


def _diversity(number: int, games: Sequence[Row]) -> EditDiversity:
    edits = [_edit_words(game) for game in games]
    types = Counter(game["error_type"] for game in games if game["mode"] == "error" and game.get("error_type"))
    return EditDiversity(
        round=number,
        edits=len(edits),
        distinct_ratio=len(set(edits)) / len(edits),
        self_bleu=self_bleu([written for _, written in edits]),
        error_type_entropy=entropy(types) if types else None,
    )


def _edit_words(game: Row) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words taken out and the words written, over all spans of the edit."""
    spans = game.get("edits") or []
    taken = tuple(word for span in spans for word in split_words(span["original"]).keys)
    written = tuple(word for span in spans for word in split_words(span["modified"]).keys)
    return taken, written


def self_bleu(texts: Sequence[Sequence[str]]) -> float | None:
    """Mean share of a text's words that another text has too; None for fewer than two texts with words."""
    written = [text for text in texts if text]
    if len(written) < 2:
        return None
    holders = Counter(word for text in written for word in set(text))
    return fmean(fmean(holders[word] > 1 for word in text) for text in written)


def entropy(counts: Mapping[str, int]) -> float:
    """Shannon entropy in bits."""
    total = sum(counts.values())
    return sum(-n / total * math.log2(n / total) for n in counts.values() if n) + 0.0


# -- gold and self-made ------------------------------------------------------------------------------------------------


def gold_gaps(rows: Sequence[Row]) -> list[GoldGap]:
    """One row for each evaluated round; an evaluation before any game has no self-made side."""
    gaps, since = [], []
    for row in rows:
        since.append(row)
        if _number(row, "eval_accuracy") is None:
            continue
        recall, gold = _mean(since, "assessor_recall"), _number(row, "eval_recall")
        gaps.append(
            GoldGap(
                round=row["round"],
                self_made_recall=recall,
                gold_recall=gold,
                recall_gap=_minus(recall, gold),
                accuracy_gap=_minus(_mean(since, "assessor_accuracy"), _number(row, "eval_accuracy")),
            )
        )
        since = []
    return gaps


# -- notices -----------------------------------------------------------------------------------------------------------


def notices(rows: Sequence[Row], diversity: Sequence[EditDiversity]) -> list[Notice]:
    """What went wrong, each kind once (KL once a role), with the round in which it began; in the order of rounds."""
    found = [
        _verdict_collapse(rows),
        _injector_repeats(diversity),
        _kl_runaway(rows, "injector"),
        _kl_runaway(rows, "assessor"),
        _acceptance_falls(rows),
        _reward_up_accuracy_down(rows),
    ]
    return sorted((notice for notice in found if notice), key=lambda notice: notice.round)


def _verdict_collapse(rows: Sequence[Row]) -> Notice | None:
    """One answer, or none, in at least 95 % of the games of three rounds in a row; half of the games have an error."""
    starts = []
    for answer, share in _ANSWERS.items():
        judged = [row for row in rows if share(row) is not None]
        start = _first_stretch([_at_least(share(row), COLLAPSED_SHARE) for row in judged])
        if start is not None:
            starts.append((judged[start]["round"], answer))
    if not starts:
        return None
    number, answer = min(starts)
    text = f"From round {number} on the Assessor's answer is {answer} in at least {COLLAPSED_SHARE:.0%} of the games."
    return Notice("verdict_collapse", number, text)


def _passed(row: Row) -> float | None:
    flagged, silent = _number(row, "assessor_flag_rate"), _number(row, "no_verdict_rate")
    return None if flagged is None else 1 - flagged - (silent or 0.0)


_ANSWERS: dict[str, Callable[[Row], float | None]] = {
    "INCORRECT": lambda row: _number(row, "assessor_flag_rate"),
    "CORRECT": _passed,
    "no verdict": lambda row: _number(row, "no_verdict_rate"),
}
"""Share of a round's games with each answer."""


def _injector_repeats(diversity: Sequence[EditDiversity]) -> Notice | None:
    """Less than half of a round's edits are different ones, three rounds in a row; rounds with few edits aside."""
    judged = [(one, one.distinct_ratio) for one in diversity if one.edits >= FEWEST_EDITS]
    place = _first_stretch([ratio < REPEATING_RATIO for _, ratio in judged])
    if place is None:
        return None
    start, ratio = judged[place]
    text = (
        f"From round {start.round} on the Injector repeats itself: {ratio:.0%} of its edits "
        "in that round are different ones."
    )
    return Notice("injector_repeats", start.round, text)


def _kl_runaway(rows: Sequence[Row], role: str) -> Notice | None:
    """KL of the role's tokens at or above 0.5 nats a token, three rounds in a row."""
    key = f"kl_{role}"
    measured = [row for row in rows if _number(row, key) is not None]
    place = _first_stretch([row[key] >= RUNAWAY_KL for row in measured])
    if place is None:
        return None
    start = measured[place]
    text = (
        f"From round {start['round']} on the {role.capitalize()} is far from the reference model: "
        f"KL {start[key]:.2f} nats a token and more. A larger KL coefficient or a smaller learning rate holds it."
    )
    return Notice("kl_runaway", start["round"], text)


def _acceptance_falls(rows: Sequence[Row]) -> Notice | None:
    """VCF acceptance below 70 % of the best three-round mean so far, three rounds in a row."""
    key = "vcf_acceptance_rate"
    played = [row for row in rows if _number(row, key) is not None]
    best = 0.0
    for end in range(2 * PATIENCE, len(played) + 1):
        before, last = played[end - 2 * PATIENCE : end - PATIENCE], played[end - PATIENCE : end]
        best = max(best, fmean(row[key] for row in before))
        if all(row[key] < FALLEN_ACCEPTANCE * best for row in last):
            start = last[0]
            text = (
                f"From round {start['round']} on the VCF accepts fewer notes: "
                f"{start[key]:.0%} in that round, {best:.0%} at best before."
            )
            return Notice("acceptance_falls", start["round"], text)
    return None


def _reward_up_accuracy_down(rows: Sequence[Row]) -> Notice | None:
    """The Assessor's reward is up by 0.1 since the best evaluation so far, and held-out accuracy down by 5 points.

    Rewards are means over up to three played rounds that end with the evaluation; for an evaluation before any game,
    over the first three.
    """
    played = [row for row in rows if _number(row, "reward_assessor") is not None]
    best: tuple[float, float] | None = None
    for row in rows:
        accuracy = _number(row, "eval_accuracy")
        recent = [one for one in played if one["round"] <= row["round"]][-PATIENCE:] or played[:PATIENCE]
        if accuracy is None or not recent:
            continue
        reward = fmean(one["reward_assessor"] for one in recent)
        if best is None or accuracy > best[0]:
            best = accuracy, reward
        elif best[0] - accuracy >= ACCURACY_FALL - 1e-9 and reward - best[1] >= REWARD_RISE - 1e-9:
            text = (
                f"From round {row['round']} on the Assessor earns more (mean reward {best[1]:+.2f} to {reward:+.2f}) "
                f"and knows less (held-out accuracy {best[0]:.1%} to {accuracy:.1%}): it learns the Injector's habits."
            )
            return Notice("reward_up_accuracy_down", row["round"], text)
    return None


def _first_stretch(signs: Sequence[bool]) -> int | None:
    """Where the first `PATIENCE` true signs in a row begin."""
    lasted = 0
    for place, sign in enumerate(signs):
        lasted = lasted + 1 if sign else 0
        if lasted == PATIENCE:
            return place - PATIENCE + 1
    return None


def _number(row: Row, key: str) -> float | None:
    value = row.get(key)
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _mean(rows: Iterable[Row], key: str) -> float | None:
    values = [value for row in rows if (value := _number(row, key)) is not None]
    return fmean(values) if values else None


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _at_least(value: float | None, bound: float) -> bool:
    return value is not None and value >= bound
