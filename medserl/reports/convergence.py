"""How a run moved: gold against self-made errors, and notices of what went wrong, each with the round it began in.

Everything is computed from the rows of metrics.jsonl and episodes.jsonl (docs/runs.md). A figure that a row lacks,
or has as null, is passed over.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from medserl.reports.diversity import EditDiversity, edit_diversity
from medserl.runs.records import Record

PATIENCE = 3
"""Rounds in a row that a sign must last before it is a notice: one round of some dozen games proves nothing."""

EVALUATIONS = 2
"""Evaluations in a row likewise: they are made on many texts, always the same ones."""

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
class GoldGap:
    """Self-made minus gold, at a round that was evaluated: recall on errors, and accuracy.

    Self-made figures are means over the rounds since the evaluation before. A growing gap: the Assessor learns the
    Injector's habits, not medicine. Games are sampled, evaluations greedy.
    """

    round: int
    self_made_recall: float | None
    validation_recall: float | None
    recall_gap: float | None
    accuracy_gap: float | None


@dataclass(frozen=True)
class Notice:
    """Something a reader should know, the first round of it, and the figure that shows it."""

    kind: NoticeKind
    round: int
    text: str
    figure: str


@dataclass(frozen=True)
class Convergence:
    diversity: list[EditDiversity]
    gold_gaps: list[GoldGap]
    notices: list[Notice]


def convergence(rows: Sequence[Record], episodes: Iterable[Record]) -> Convergence:
    """All of it, from the rows of metrics.jsonl and episodes.jsonl."""
    diversity = edit_diversity(episodes)
    return Convergence(diversity, gold_gaps(rows), notices(rows, diversity))


# -- gold and self-made ------------------------------------------------------------------------------------------------


def gold_gaps(rows: Sequence[Record]) -> list[GoldGap]:
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
                validation_recall=gold,
                recall_gap=_minus(recall, gold),
                accuracy_gap=_minus(_mean(since, "assessor_accuracy"), _number(row, "eval_accuracy")),
            )
        )
        since = []
    return gaps


# -- notices -----------------------------------------------------------------------------------------------------------


def notices(rows: Sequence[Record], diversity: Sequence[EditDiversity]) -> list[Notice]:
    """What went wrong, in the order of rounds: each kind once, but KL once a role, a collapse once a set of notes."""
    found = [
        _collapse_in_games(rows),
        _collapse_on_validation(rows),
        _injector_repeats(diversity),
        _kl_runaway(rows, "injector"),
        _kl_runaway(rows, "assessor"),
        _acceptance_falls(rows),
        _reward_up_accuracy_down(rows),
    ]
    return sorted((notice for notice in found if notice), key=lambda notice: notice.round)


def _collapse_in_games(rows: Sequence[Record]) -> Notice | None:
    """One answer, or none, in at least 95 % of the games of three rounds in a row; half of the games have an error."""
    return _collapse(rows, "assessor_flag_rate", "no_verdict_rate", PATIENCE, "games")


def _collapse_on_validation(rows: Sequence[Record]) -> Notice | None:
    """The same on the fixed validation notes, at two evaluations in a row."""
    return _collapse(rows, "eval_flag_rate", "eval_no_verdict_rate", EVALUATIONS, "validation notes")


def _collapse(rows: Sequence[Record], flagged: str, silent: str, lasting: int, where: str) -> Notice | None:
    judged = [row for row in rows if _number(row, flagged) is not None]
    shares = {
        "INCORRECT": [row[flagged] for row in judged],
        "CORRECT": [1 - row[flagged] - (_number(row, silent) or 0.0) for row in judged],
        "no verdict": [_number(row, silent) or 0.0 for row in judged],
    }
    rounds = [row["round"] for row in judged]
    spans = [
        (span, answer)
        for answer, share in shares.items()
        if (span := _first_span(rounds, [one >= COLLAPSED_SHARE for one in share], lasting))
    ]
    if not spans:
        return None
    span, answer = min(spans, key=lambda found: found[0].start)
    text = f"{span} the Assessor's answer is {answer} in at least {_percent(COLLAPSED_SHARE)} of the {where}."
    return Notice("verdict_collapse", span.start, text, flagged)


def _injector_repeats(diversity: Sequence[EditDiversity]) -> Notice | None:
    """Less than half of a round's edits are different ones, three rounds in a row; rounds with few edits aside."""
    ratios = {one.round: one.distinct_ratio for one in diversity if one.edits >= FEWEST_EDITS}
    span = _first_span(list(ratios), [ratio < REPEATING_RATIO for ratio in ratios.values()])
    if span is None:
        return None
    text = (
        f"{span} the Injector repeats itself: {_percent(ratios[span.start])} of its edits "
        f"in round {span.start} are different ones."
    )
    return Notice("injector_repeats", span.start, text, "distinct_ratio")


def _kl_runaway(rows: Sequence[Record], role: str) -> Notice | None:
    """KL of the role's tokens at or above 0.5 nats a token, three rounds in a row."""
    key = f"kl_{role}"
    measured = {row["round"]: row[key] for row in rows if _number(row, key) is not None}
    span = _first_span(list(measured), [kl >= RUNAWAY_KL for kl in measured.values()])
    if span is None:
        return None
    text = (
        f"{span} the {role.capitalize()} is far from the reference model (KL {measured[span.start]:.2f} nats a "
        f"token in round {span.start}). A larger KL coefficient or a smaller learning rate holds it."
    )
    return Notice("kl_runaway", span.start, text, key)


def _acceptance_falls(rows: Sequence[Record]) -> Notice | None:
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
                f"{_percent(start[key])} in that round, {_percent(best)} at best before."
            )
            return Notice("acceptance_falls", start["round"], text, key)
    return None


def _reward_up_accuracy_down(rows: Sequence[Record]) -> Notice | None:
    """The Assessor's reward is up by 0.1 since the best evaluation so far, and validation accuracy down by 5 points.

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
                f"and knows less (accuracy on validation notes {_percent(best[0], 1)} to {_percent(accuracy, 1)}): "
                "it learns the Injector's habits."
            )
            return Notice("reward_up_accuracy_down", row["round"], text, "eval_accuracy")
    return None


@dataclass(frozen=True)
class RoundSpan:
    """Rounds in a row with a sign, from `start` to `end`; None where it is there to the last."""

    start: int
    end: int | None

    def __str__(self) -> str:
        return f"From round {self.start} on" if self.end is None else f"In rounds {self.start} to {self.end}"


def _first_span(rounds: Sequence[int], signs: Sequence[bool], lasting: int = PATIENCE) -> RoundSpan | None:
    """The first span of at least `lasting` true signs in a row; `rounds` are those that the signs are of."""
    start = 0
    for place, sign in enumerate([*signs, False]):
        if sign:
            continue
        if place - start >= lasting:
            return RoundSpan(rounds[start], None if place == len(signs) else rounds[place - 1])
        start = place + 1
    return None


def _number(row: Record, key: str) -> float | None:
    value = row.get(key)
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _mean(rows: Iterable[Record], key: str) -> float | None:
    values = [value for row in rows if (value := _number(row, key)) is not None]
    return fmean(values) if values else None


def _percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f}\u00a0%"


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b
