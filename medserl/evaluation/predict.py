"""Asks a policy for its verdict on labelled texts, with the very prompts and parser of the game."""

from __future__ import annotations

from collections.abc import Sequence

from medserl.console import track
from medserl.evaluation.predictions import LabelledText, Prediction
from medserl.game.parsing import parse_verdict
from medserl.rollout import VCFRolloutGenerator

BATCH = 64


def predict(rollout: VCFRolloutGenerator, texts: Sequence[LabelledText], label: str = "") -> list[Prediction]:
    """One greedy verdict for each text, in order."""
    predictions: list[Prediction] = []
    batches = [texts[i : i + BATCH] for i in range(0, len(texts), BATCH)]
    steps = track(batches, f"{label}: reading {len(texts)} notes", total=len(batches)) if label else batches
    for batch in steps:
        for text, turn in zip(batch, rollout.read([t.text for t in batch], seed=0, greedy=True), strict=True):
            said = turn.completion.text
            predictions.append(Prediction(text.text_id, parse_verdict(said), completion=said))
    return predictions
