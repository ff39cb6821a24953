"""How well a model tells a right note from its wrong twin, whatever it is inclined to say."""

from __future__ import annotations

from collections.abc import Sequence

from medserl.evaluation.predict import verdict_probabilities
from medserl.rollout import VCFRolloutGenerator

UNDECIDED = 0.5


def pair_ordering(rollout: VCFRolloutGenerator, twins: Sequence[tuple[str | None, str | None]]) -> float:
    """The share of (correct, incorrect) twins of which the wrong one is the likelier INCORRECT; a tie counts half.

    The probability is that of the verdict after what the model itself said before it. Guessing gives 0.5, and so does
    any verdict that does not depend on the note: unlike accuracy it has no bias to gain by.
    """
    texts = [text or "" for pair in twins for text in pair]
    chances = verdict_probabilities(rollout.engine, rollout.read(texts, seed=0, greedy=True))
    known = [UNDECIDED if chance is None else chance for chance in chances]
    pairs = list(zip(known[::2], known[1::2], strict=True))
    return sum(1.0 if wrong > right else UNDECIDED if wrong == right else 0.0 for right, wrong in pairs) / len(pairs)
