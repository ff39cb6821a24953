"""Error detection: every figure that is computed from verdicts on labelled texts.

INCORRECT is the positive class. A text without a verdict, and one without a prediction, counts as judged wrongly in
every figure: as a missed error where there was one, as a false alarm where there was none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from medserl.evaluation.calibration import brier_score, calibration_error
from medserl.evaluation.predictions import LabelledText, Prediction, check_unique
from medserl.evaluation.statistics import Array, Estimate, bootstrap_estimate, share_estimate
from medserl.game.roles import Verdict

LENGTH_EDGES = (100, 150, 200, 400)
"""Words at which a new bucket of note lengths begins."""

SHARES = ("accuracy", "recall", "specificity", "flag_rate", "no_verdict_rate", "pairwise_accuracy")
FIGURES = (*SHARES, "f1", "balanced_accuracy", "mcc", "brier", "ece")
"""Names of all figures, in the order of tables' columns."""


@dataclass(frozen=True)
class Outcome:
    """How one text was judged. `cluster` is the pair's id, or the text's own where it has no twin."""

    text_id: str
    cluster: str
    has_twin: bool
    is_error: bool
    verdict: Verdict | None
    p_incorrect: float | None = None

    @property
    def right(self) -> bool:
        return self.verdict == ("INCORRECT" if self.is_error else "CORRECT")


@dataclass(frozen=True)
class DetectionShares:
    """Shares of texts, or of pairs, with Wilson intervals.

    accuracy: judged rightly. recall: of the texts with an error, called INCORRECT. specificity: of the texts without,
    called CORRECT. flag_rate: called INCORRECT. no_verdict_rate: neither. pairwise_accuracy: of the pairs, both twins
    judged rightly (guessing gives 0.25).
    """

    accuracy: Estimate
    recall: Estimate
    specificity: Estimate
    flag_rate: Estimate
    no_verdict_rate: Estimate
    pairwise_accuracy: Estimate


@dataclass(frozen=True)
class DetectionMetrics(DetectionShares):
    """All figures on one set of texts.

    f1: of INCORRECT, 2 TP / (2 TP + FP + FN). balanced_accuracy: mean of recall and specificity. mcc: Matthews
    correlation, 0 where all texts are judged alike. brier, ece: see `medserl.evaluation.calibration`; they rest on
    the texts that have a probability. These five have bootstrap intervals over pairs.

    `missing` counts texts without a prediction, `unmatched` predictions without a text. Groups that have no text are
    left out. An error type's group holds both twins of its pairs.
    """

    f1: Estimate
    balanced_accuracy: Estimate
    mcc: Estimate
    brier: Estimate
    ece: Estimate
    n_texts: int
    n_errors: int
    n_pairs: int
    missing: int
    unmatched: int
    by_error_type: Mapping[str, DetectionShares] = field(repr=False)
    by_length: Mapping[str, DetectionShares] = field(repr=False)
    by_split: Mapping[str, DetectionShares] = field(repr=False)
    outcomes: tuple[Outcome, ...] = field(repr=False)


def detection_metrics(texts: Sequence[LabelledText], predictions: Sequence[Prediction]) -> DetectionMetrics:
    """Score the predictions on the texts; their order does not matter.

    Raises:
        DataError: two texts, or two predictions, have the same id.
    """
    check_unique([text.text_id for text in texts], "text")
    check_unique([one.text_id for one in predictions], "prediction for text")
    by_id = {one.text_id: one for one in predictions}
    outcomes = tuple(_outcome(text, by_id.get(text.text_id)) for text in texts)
    clusters = [one.cluster for one in outcomes]
    confusion = _confusion(outcomes)
    judged = [one for one in outcomes if one.p_incorrect is not None]
    probabilities = (
        [one.p_incorrect for one in judged if one.p_incorrect is not None],
        [one.is_error for one in judged],
        [one.cluster for one in judged],
    )
    found = sum(text.text_id in by_id for text in texts)
    return DetectionMetrics(
        **vars(_shares(outcomes)),
        f1=bootstrap_estimate(f1, confusion, clusters),
        balanced_accuracy=bootstrap_estimate(balanced_accuracy, confusion, clusters),
        mcc=bootstrap_estimate(mcc, confusion, clusters),
        brier=brier_score(*probabilities),
        ece=calibration_error(*probabilities),
        n_texts=len(texts),
        n_errors=sum(one.is_error for one in outcomes),
        n_pairs=len(pair_outcomes(outcomes)),
        missing=len(texts) - found,
        unmatched=len(predictions) - found,
        by_error_type=_by(texts, outcomes, lambda text: text.error_type),
        by_length=_by(texts, outcomes, lambda text: length_bucket(text.text), LENGTH_BUCKETS),
        by_split=_by(texts, outcomes, lambda text: text.split),
        outcomes=outcomes,
    )


def _outcome(text: LabelledText, said: Prediction | None) -> Outcome:
    return Outcome(
        text.text_id,
        text.pair_id if text.pair_id is not None else text.text_id,
        text.pair_id is not None,
        text.is_error,
        said.verdict if said else None,
        said.p_incorrect if said else None,
    )


def pair_outcomes(outcomes: Iterable[Outcome]) -> dict[str, bool]:
    """Of every pair of which both twins are there: were both judged rightly?"""
    twins: dict[str, dict[bool, bool]] = defaultdict(dict)
    for one in outcomes:
        if one.has_twin:
            twins[one.cluster][one.is_error] = one.right
    return {pair: all(right.values()) for pair, right in twins.items() if len(right) == 2}


def _shares(outcomes: Sequence[Outcome]) -> DetectionShares:
    def share(hit: Callable[[Outcome], bool], among: Callable[[Outcome], bool] = lambda one: True) -> Estimate:
        chosen = [one for one in outcomes if among(one)]
        return share_estimate([hit(one) for one in chosen], [one.cluster for one in chosen])

    return DetectionShares(
        accuracy=share(lambda one: one.right),
        recall=share(lambda one: one.right, among=lambda one: one.is_error),
        specificity=share(lambda one: one.right, among=lambda one: not one.is_error),
        flag_rate=share(lambda one: one.verdict == "INCORRECT"),
        no_verdict_rate=share(lambda one: one.verdict is None),
        pairwise_accuracy=share_estimate(list(pair_outcomes(outcomes).values())),
    )


def _by(
    texts: Sequence[LabelledText],
    outcomes: Sequence[Outcome],
    group: Callable[[LabelledText], str | None],
    order: Sequence[str] | None = None,
) -> dict[str, DetectionShares]:
    members: dict[str, list[Outcome]] = defaultdict(list)
    for text, one in zip(texts, outcomes, strict=True):
        name = group(text)
        if name is not None:
            members[name].append(one)
    return {name: _shares(members[name]) for name in order or sorted(members) if name in members}


def _bucket_names() -> tuple[str, ...]:
    between = [f"{low}-{high - 1} words" for low, high in pairwise(LENGTH_EDGES)]
    return (f"under {LENGTH_EDGES[0]} words", *between, f"{LENGTH_EDGES[-1]} words and more")


LENGTH_BUCKETS = _bucket_names()


def length_bucket(text: str) -> str:
    """The bucket of a note's length, counted in words between white space."""
    return LENGTH_BUCKETS[int(np.searchsorted(LENGTH_EDGES, len(text.split()), side="right"))]


# -- figures of a confusion table (..., 4): true positives, false negatives, true negatives, false positives ------------


def _confusion(outcomes: Sequence[Outcome]) -> Array:
    """Shape (texts, 4), one 1 a row."""
    cells = [[e and r, e and not r, not e and r, not e and not r] for e, r in ((o.is_error, o.right) for o in outcomes)]
    return np.array(cells, dtype=float).reshape(-1, 4)


def f1(confusion: Array) -> Array:
    tp, fn, _, fp = np.moveaxis(confusion, -1, 0)
    return 2 * tp / (2 * tp + fp + fn)


def balanced_accuracy(confusion: Array) -> Array:
    tp, fn, tn, fp = np.moveaxis(confusion, -1, 0)
    return (tp / (tp + fn) + tn / (tn + fp)) / 2


def mcc(confusion: Array) -> Array:
    """Matthews, Biochimica et Biophysica Acta 405 (1975); nan where only one class is there."""
    tp, fn, tn, fp = np.moveaxis(confusion, -1, 0)
    classes = (tp + fn) * (tn + fp)
    calls = (tp + fp) * (tn + fn)
    value = np.where(calls > 0, (tp * tn - fp * fn) / np.sqrt(np.maximum(classes * calls, 1)), 0.0)
    return np.where(classes > 0, value, np.nan)
