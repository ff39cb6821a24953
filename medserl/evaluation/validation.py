"""Held-out notes judged during training: always the same ones, greedily, in both twins."""

from __future__ import annotations

import random
from collections.abc import Sequence

from medserl.data.notes import Note
from medserl.evaluation.metrics import detection_metrics
from medserl.evaluation.predict import predict
from medserl.evaluation.predictions import labelled_texts
from medserl.rollout import VCFRolloutGenerator


class Validation:
    """A fixed sample of `limit` notes out of `notes`, drawn once by `seed`."""

    def __init__(self, notes: Sequence[Note], limit: int, seed: int = 0) -> None:
        chosen = random.Random(seed).sample(list(notes), min(limit, len(notes)))
        self.texts = labelled_texts(chosen)

    def evaluate(self, rollout: VCFRolloutGenerator) -> dict[str, float | None]:
        """`eval_*` figures of the current policy."""
        figures = detection_metrics(self.texts, predict(rollout, self.texts))
        return {
            f"eval_{name}": getattr(figures, name).value
            for name in ("accuracy", "pairwise_accuracy", "recall", "specificity", "flag_rate", "no_verdict_rate")
        }
