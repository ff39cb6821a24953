"""Held-out notes judged during training: always the same ones, greedily, in both twins."""

from __future__ import annotations

import random
from collections.abc import Sequence

from medserl.evaluation.calibration import calibrated_threshold
from medserl.evaluation.frozen import FrozenOpponent, meet_frozen_opponent
from medserl.evaluation.metrics import detection_metrics
from medserl.evaluation.predict import predict
from medserl.evaluation.predictions import Prediction, labelled_texts
from medserl.evaluation.thresholds import Threshold
from medserl.game.note import Note
from medserl.rollout import VCFRolloutGenerator
from medserl.runs.runlog import RunFolder

KEPT_FIGURES = (
    "accuracy",
    "pairwise_accuracy",
    "right_minus_reversed",
    "pair_ordering",
    "auroc",
    "d_prime",
    "recall",
    "specificity",
    "flag_rate",
    "no_verdict_rate",
    "truncated_rate",
)


class Validation:
    """A fixed sample of `limit` notes out of `notes`, drawn once by `seed`, and a frozen opponent's edits of them."""

    def __init__(self, notes: Sequence[Note], limit: int, seed: int = 0) -> None:
        self.notes = random.Random(seed).sample(list(notes), min(limit, len(notes)))
        self.texts = labelled_texts(note for note in self.notes if note.labelled)
        self.opponent: FrozenOpponent | None = None
        self.said: list[Prediction] = []
        """What was said of them at the last validation."""

    def meet_opponent(self, rollout: VCFRolloutGenerator, run: RunFolder | None, round_number: int) -> None:
        """Have the frozen opponent's games at hand: call it before the first round, and again after a resume."""
        self.opponent = self.opponent or meet_frozen_opponent(rollout, self.notes, run, round_number)

    def evaluate(self, rollout: VCFRolloutGenerator) -> dict[str, float | None]:
        """`eval_*` figures of the current policy, and `frozen_*` ones where there is an opponent.

        No figure is of notes that have no label, and no accuracy is of notes of one class: a constant verdict has 1.
        """
        figures: dict[str, float | None] = {}
        if self.texts:
            self.said = predict(rollout, self.texts, probabilities=rollout.engine.scores_replies)
            found = detection_metrics(self.texts, self.said)
            figures = {f"eval_{name}": getattr(found, name).value for name in KEPT_FIGURES}
            counts = {"eval_texts": found.accuracy, "eval_errors": found.recall, "eval_pairs": found.pairwise_accuracy}
            figures |= {name: figure.n for name, figure in counts.items()}
            if len({text.is_error for text in self.texts}) < 2:
                figures["eval_accuracy"] = None
        return figures | (self.opponent.evaluate(rollout) if self.opponent else {})

    def threshold(self) -> Threshold | None:
        """The best one by what was said at the last validation; None without probabilities on texts of both classes."""
        known = {one.text_id for one in self.said if one.p_incorrect is not None}
        if len({text.is_error for text in self.texts if text.text_id in known}) < 2:
            return None
        return calibrated_threshold(self.texts, self.said, "the run's validation notes")
