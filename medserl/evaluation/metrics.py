"""How well errors are detected: figures with 95 % intervals. No verdict, or no prediction at all, counts as wrong."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from medserl.evaluation.predictions import LabelledText, Prediction
from medserl.evaluation.statistics import Estimate, bootstrap, proportion


@dataclass(frozen=True)
class DetectionMetrics:
    """An error is the positive class. `pairwise_accuracy`: both twins right (a coin gets 25 %)."""

    accuracy: Estimate
    pairwise_accuracy: Estimate
    recall: Estimate
    specificity: Estimate
    f1: Estimate
    balanced_accuracy: Estimate
    mcc: Estimate
    flag_rate: Estimate
    no_verdict_rate: Estimate

    def items(self) -> list[tuple[str, Estimate]]:
        return [(field.name, getattr(self, field.name)) for field in fields(self)]


def detection_metrics(texts: Sequence[LabelledText], predictions: Sequence[Prediction]) -> DetectionMetrics:
    """Figures over all texts; predictions are matched by id, and those of other texts are ignored."""
    right = text_outcomes(texts, predictions)
    said = _verdicts(texts, predictions)
    label = np.array([text.is_error for text in texts], dtype=bool)
    # A text without a verdict counts against its own class: a missed error, or a false alarm on a sound note.
    flagged = np.where(np.array(right, dtype=bool), label, ~label)
    clusters = _clusters(texts)
    return DetectionMetrics(
        accuracy=proportion(right),
        pairwise_accuracy=proportion(pair_outcomes(texts, predictions)),
        recall=proportion([r for r, text in zip(right, texts, strict=True) if text.is_error]),
        specificity=proportion([r for r, text in zip(right, texts, strict=True) if not text.is_error]),
        f1=bootstrap(lambda i: f1_score(label[i], flagged[i]), clusters),
        balanced_accuracy=bootstrap(lambda i: balanced_accuracy(label[i], flagged[i]), clusters),
        mcc=bootstrap(lambda i: matthews(label[i], flagged[i]), clusters),
        flag_rate=proportion([verdict == "INCORRECT" for verdict in said]),
        no_verdict_rate=proportion([verdict is None for verdict in said]),
    )


def text_outcomes(texts: Sequence[LabelledText], predictions: Sequence[Prediction]) -> list[bool]:
    """For each text, whether its verdict is right."""
    return [
        verdict == ("INCORRECT" if text.is_error else "CORRECT")
        for text, verdict in zip(texts, _verdicts(texts, predictions), strict=True)
    ]


def pair_outcomes(texts: Sequence[LabelledText], predictions: Sequence[Prediction]) -> list[bool]:
    """For each pair with both twins present, whether both are right; in order of first appearance."""
    twins: dict[str, list[bool]] = defaultdict(list)
    for text, right in zip(texts, text_outcomes(texts, predictions), strict=True):
        if text.pair_id is not None:
            twins[text.pair_id].append(right)
    return [all(outcomes) for outcomes in twins.values() if len(outcomes) == 2]


def by_group(
    texts: Sequence[LabelledText], predictions: Sequence[Prediction], attribute: str
) -> Mapping[str, DetectionMetrics]:
    """The same figures apart for each value of an attribute of the texts (`error_type`, `split`)."""
    groups: dict[str, list[LabelledText]] = defaultdict(list)
    for text in texts:
        groups[str(getattr(text, attribute) or "none")].append(text)
    return {name: detection_metrics(members, predictions) for name, members in sorted(groups.items())}


def f1_score(label: np.ndarray, flagged: np.ndarray) -> float:
    """Harmonic mean of precision and recall: 2 TP / (2 TP + FP + FN), 0 where nothing is positive."""
    hits = np.sum(label & flagged)
    total = np.sum(label) + np.sum(flagged)
    return float(2 * hits / total) if total else 0.0


def balanced_accuracy(label: np.ndarray, flagged: np.ndarray) -> float:
    """Mean of recall and specificity, over the classes that are present."""
    rates = [np.mean(flagged[label == side] == side) for side in (True, False) if np.any(label == side)]
    return float(np.mean(rates))


def matthews(label: np.ndarray, flagged: np.ndarray) -> float:
    """Matthews correlation coefficient (1975), 0 where a margin is empty."""
    tp, tn = np.sum(label & flagged), np.sum(~label & ~flagged)
    fp, fn = np.sum(~label & flagged), np.sum(label & ~flagged)
    scale = np.sqrt(float(tp + fp) * float(tp + fn) * float(tn + fp) * float(tn + fn))
    return float((tp * tn - fp * fn) / scale) if scale else 0.0


def _verdicts(texts: Sequence[LabelledText], predictions: Sequence[Prediction]) -> list[str | None]:
    said = {prediction.text_id: prediction.verdict for prediction in predictions}
    return [said.get(text.text_id) for text in texts]


def _clusters(texts: Sequence[LabelledText]) -> list[list[int]]:
    clusters: dict[str, list[int]] = defaultdict(list)
    for i, text in enumerate(texts):
        clusters[text.pair_id or text.text_id].append(i)
    return list(clusters.values())
