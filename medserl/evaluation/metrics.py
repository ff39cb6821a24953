"""Error detection: every figure that is computed from verdicts on labelled texts.

INCORRECT is the positive class. A text without a verdict, and one without a prediction, counts as judged wrongly: as a
missed error where there was one, as a false alarm where there was none. The one exception is Matthews' correlation of
verdict and truth, which rests on the texts that have a verdict: silence is no verdict against the truth.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np

from medserl.evaluation.calibration import auroc, brier_score, calibration_error
from medserl.evaluation.predictions import LabelledText, NoVerdict, Prediction, check_unique
from medserl.evaluation.statistics import Array, Estimate, bootstrap_estimate, mean_estimate, share_estimate
from medserl.game.roles import Verdict

Attribute = Literal["error_type", "split", "collection", "length"]

LENGTH_EDGES = (100, 150, 200, 400)
"""Words at which a new bucket of note lengths begins."""


@dataclass(frozen=True)
class Outcome:
    """How one text was judged. `cluster` is the pair's id, or the text's own where it has no twin.

    `predicted` is False where the system said nothing of the text.
    """

    text_id: str
    cluster: str
    has_twin: bool
    is_error: bool
    verdict: Verdict | None
    p_incorrect: float | None = None
    no_verdict: NoVerdict | None = None
    predicted: bool = True
    truncated: bool = False

    @property
    def right(self) -> bool:
        return self.verdict == ("INCORRECT" if self.is_error else "CORRECT")


@dataclass(frozen=True)
class DetectionMetrics:
    """All figures on one set of texts.

    Shares, with Wilson intervals. accuracy: texts judged rightly. pairwise_accuracy: pairs with both twins judged
    rightly. recall: texts with an error, called INCORRECT. specificity: texts without, called CORRECT. flag_rate: texts
    called INCORRECT. no_verdict_rate: texts called neither. truncated_rate: texts of which an answer was cut at the
    token limit, and so gave no verdict.

    Free of what a system is inclined to say, with bootstrap intervals; guessing gets 0, 0, 0.5 and 0.5.
    right_minus_reversed: pairs judged rightly, minus reversed ones, of which the right twin is called INCORRECT and the
    wrong one CORRECT. d_prime: the distance of the two classes in standard deviations, over the texts that have a
    verdict. pair_ordering: pairs whose wrong twin has the higher P(INCORRECT), a tie counting half; auroc: the same of
    any text with an error beside any without. These two rest on the texts that have a probability.

    pairwise_chance, without an interval: what `pairwise_accuracy` would be for a coin that calls as many texts of the
    pairs INCORRECT, and as many CORRECT, without reading them: the product of the two shares, at most 0.25.

    With bootstrap intervals. f1: of INCORRECT, 2 TP / (2 TP + FP + FN). balanced_accuracy: mean of recall and
    specificity. mcc: Matthews correlation over the texts that have a verdict, 0 where all of these are judged alike,
    None where they are of one class or there are none. brier, ece: see `medserl.evaluation.calibration`; they rest on
    the texts that have a probability.

    `missing` counts texts without a prediction, `unmatched` predictions without a text.
    """

    accuracy: Estimate
    pairwise_accuracy: Estimate
    pairwise_chance: Estimate
    right_minus_reversed: Estimate
    d_prime: Estimate
    pair_ordering: Estimate
    auroc: Estimate
    recall: Estimate
    specificity: Estimate
    f1: Estimate
    balanced_accuracy: Estimate
    mcc: Estimate
    flag_rate: Estimate
    no_verdict_rate: Estimate
    truncated_rate: Estimate
    brier: Estimate
    ece: Estimate
    n_texts: int
    n_errors: int
    n_pairs: int
    missing: int
    unmatched: int
    outcomes: tuple[Outcome, ...] = field(repr=False)

    @property
    def of_one_class(self) -> bool:
        """Whether all texts have an error, or none has: then always saying the same is right throughout."""
        return self.n_errors in (0, self.n_texts)

    def items(self) -> list[tuple[str, Estimate]]:
        """The figures by name, in the order above."""
        return [(name, value) for name, value in vars(self).items() if isinstance(value, Estimate)]


def detection_metrics(texts: Sequence[LabelledText], predictions: Sequence[Prediction]) -> DetectionMetrics:
    """Score the predictions on the texts; their order does not matter.

    Raises:
        DataError: two texts, or two predictions, have the same id.
    """
    outcomes = judge(texts, predictions)
    confusion, clusters = confusion_table(outcomes), [one.cluster for one in outcomes]
    answered = [one for one in outcomes if one.verdict is not None]
    pairs = pairs_right(outcomes)
    chances = [(p, one.is_error, one.cluster) for one in outcomes if (p := one.p_incorrect) is not None]
    probabilities = [p for p, _, _ in chances], [e for _, e, _ in chances], [c for _, _, c in chances]
    found = len({text.text_id for text in texts} & {one.text_id for one in predictions})
    return DetectionMetrics(
        accuracy=_share(outcomes, lambda one: one.right),
        pairwise_accuracy=share_estimate(pairs),
        pairwise_chance=Estimate(pairs_by_coin(outcomes), None, None, len(pairs)),
        right_minus_reversed=mean_estimate(pairs_right_minus_reversed(outcomes)),
        d_prime=bootstrap_estimate(d_prime, confusion_table(answered), [one.cluster for one in answered]),
        pair_ordering=mean_estimate(pairs_ordered(outcomes)),
        auroc=auroc(*probabilities),
        recall=_share([one for one in outcomes if one.is_error], lambda one: one.right),
        specificity=_share([one for one in outcomes if not one.is_error], lambda one: one.right),
        f1=bootstrap_estimate(f1, confusion, clusters),
        balanced_accuracy=bootstrap_estimate(balanced_accuracy, confusion, clusters),
        mcc=bootstrap_estimate(mcc, confusion_table(answered), [one.cluster for one in answered]),
        flag_rate=_share(outcomes, lambda one: one.verdict == "INCORRECT"),
        no_verdict_rate=_share(outcomes, lambda one: one.verdict is None),
        truncated_rate=_share(outcomes, lambda one: one.truncated),
        brier=brier_score(*probabilities),
        ece=calibration_error(*probabilities),
        n_texts=len(texts),
        n_errors=sum(one.is_error for one in outcomes),
        n_pairs=len(pairs),
        missing=len(texts) - found,
        unmatched=len(predictions) - found,
        outcomes=outcomes,
    )


def by_group(
    texts: Sequence[LabelledText], predictions: Sequence[Prediction], attribute: Attribute
) -> dict[str, DetectionMetrics]:
    """The same figures apart by error type (both twins of its pairs), split, collection, or the note's length.

    Texts of which the attribute is not known are in no group; lengths come shortest first.
    """
    members: dict[str, list[LabelledText]] = defaultdict(list)
    for text in texts:
        name = length_bucket(text.text) if attribute == "length" else getattr(text, attribute)
        if name is not None:
            members[name].append(text)
    by_id = {one.text_id: one for one in predictions}
    return {
        name: detection_metrics(members[name], [by_id[t.text_id] for t in members[name] if t.text_id in by_id])
        for name in (LENGTH_BUCKETS if attribute == "length" else sorted(members))
        if name in members
    }


def judge(texts: Sequence[LabelledText], predictions: Sequence[Prediction]) -> tuple[Outcome, ...]:
    """The outcome of every text, in order. Raises DataError where an id stands twice."""
    check_unique([text.text_id for text in texts], "text")
    check_unique([one.text_id for one in predictions], "prediction for text")
    by_id = {one.text_id: one for one in predictions}
    return tuple(_outcome(text, by_id.get(text.text_id)) for text in texts)


def _outcome(text: LabelledText, said: Prediction | None) -> Outcome:
    return Outcome(
        text.text_id,
        text.pair_id if text.pair_id is not None else text.text_id,
        text.pair_id is not None,
        text.is_error,
        said.verdict if said else None,
        said.p_incorrect if said else None,
        no_verdict=said.no_verdict if said else None,
        predicted=said is not None,
        truncated=said is not None and said.truncated > 0,
    )


def pairs_right(outcomes: Iterable[Outcome]) -> list[bool]:
    """For each pair with both twins present, whether both are right; in order of first appearance."""
    return [wrong.right and correct.right for wrong, correct in _twins(outcomes)]


def pairs_right_minus_reversed(outcomes: Iterable[Outcome]) -> list[float]:
    """For each pair 1 where both twins were judged rightly, -1 where the verdicts are the other way round, else 0."""
    return [
        float(wrong.right and correct.right) - float(wrong.verdict == "CORRECT" and correct.verdict == "INCORRECT")
        for wrong, correct in _twins(outcomes)
    ]


def pairs_ordered(outcomes: Iterable[Outcome]) -> list[float]:
    """For each pair whose twins have a probability: 1 where the wrong one's P(INCORRECT) is higher, 0.5 where equal."""
    return [
        (1.0 + float(np.sign(wrong.p_incorrect - correct.p_incorrect))) / 2
        for wrong, correct in _twins(outcomes)
        if wrong.p_incorrect is not None and correct.p_incorrect is not None
    ]


def pairs_by_coin(outcomes: Iterable[Outcome]) -> float | None:
    """The share of pairs that are right where verdicts are as frequent as these, and independent of the texts."""
    judged = [one for pair in _twins(outcomes) for one in pair]
    if not judged:
        return None
    flagged, passed = (sum(one.verdict == verdict for one in judged) for verdict in ("INCORRECT", "CORRECT"))
    return flagged * passed / len(judged) ** 2


def _twins(outcomes: Iterable[Outcome]) -> list[tuple[Outcome, Outcome]]:
    """The pairs of which both texts were judged, the one with the error first."""
    twins: dict[str, dict[bool, Outcome]] = defaultdict(dict)
    for one in outcomes:
        if one.has_twin:
            twins[one.cluster][one.is_error] = one
    return [(pair[True], pair[False]) for pair in twins.values() if len(pair) == 2]


def _share(outcomes: Sequence[Outcome], hit: Callable[[Outcome], bool]) -> Estimate:
    return share_estimate([hit(one) for one in outcomes], [one.cluster for one in outcomes])


def _bucket_names() -> tuple[str, ...]:
    between = [f"{low}-{high - 1} words" for low, high in pairwise(LENGTH_EDGES)]
    return (f"under {LENGTH_EDGES[0]} words", *between, f"{LENGTH_EDGES[-1]} words and more")


LENGTH_BUCKETS = _bucket_names()


def length_bucket(text: str) -> str:
    """The bucket of a note's length, counted in words between white space."""
    return LENGTH_BUCKETS[bisect_right(LENGTH_EDGES, len(text.split()))]


# -- figures of a confusion table (..., 4): true positives, false negatives, true negatives, false positives -----------


def confusion_table(outcomes: Sequence[Outcome]) -> Array:
    """Shape (texts, 4), one 1 a row: what `d_prime` and the like take sums of."""
    cells = [[e and r, e and not r, not e and r, not e and not r] for e, r in ((o.is_error, o.right) for o in outcomes)]
    return np.array(cells, dtype=float).reshape(-1, 4)


def f1(confusion: Array) -> Array:
    tp, fn, _, fp = np.moveaxis(confusion, -1, 0)
    return np.asarray(2 * tp / (2 * tp + fp + fn))


def balanced_accuracy(confusion: Array) -> Array:
    tp, fn, tn, fp = np.moveaxis(confusion, -1, 0)
    return np.asarray((tp / (tp + fn) + tn / (tn + fp)) / 2)


def d_prime(confusion: Array) -> Array:
    """z(recall) - z(false alarms), nan where only one class is there. So that no rate is 0 or 1, each cell is given its
    class's share of one text (the log-linear rule of Hautus, Behavior Research Methods 27, 1995)."""
    from scipy.special import ndtri

    tp, fn, tn, fp = np.moveaxis(confusion, -1, 0)
    of_error = (tp + fn) / confusion.sum(-1)
    of_none = 1 - of_error
    recall, alarms = (tp + of_error) / (tp + fn + 2 * of_error), (fp + of_none) / (tn + fp + 2 * of_none)
    return np.where((tp + fn > 0) & (tn + fp > 0), ndtri(recall) - ndtri(alarms), np.nan)


def mcc(confusion: Array) -> Array:
    """Matthews, Biochimica et Biophysica Acta 405 (1975); nan where only one class is there."""
    tp, fn, tn, fp = np.moveaxis(confusion, -1, 0)
    classes = (tp + fn) * (tn + fp)
    calls = (tp + fp) * (tn + fn)
    value = np.where(calls > 0, (tp * tn - fp * fn) / np.sqrt(np.maximum(classes * calls, 1)), 0.0)
    return np.where(classes > 0, value, np.nan)
