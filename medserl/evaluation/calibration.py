"""Do the probabilities behind the verdicts mean what they say, and which threshold on them judges best?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from medserl.errors import DataError
from medserl.evaluation.predictions import LabelledText, Prediction
from medserl.evaluation.statistics import (
    NOTHING,
    Array,
    Estimate,
    bootstrap_estimate,
    mean_estimate,
    number_clusters,
    resampled_estimate,
)
from medserl.evaluation.thresholds import FEW_TEXTS, Threshold, logit

BINS = 10


def brier_score(probabilities: Sequence[float], is_error: Sequence[bool], clusters: Sequence[str]) -> Estimate:
    """Mean squared distance of P(INCORRECT) from the truth: 0 is perfect, 0.25 what saying 0.5 throughout gives.

    Source: Brier, Monthly Weather Review 78 (1950), for two classes.
    """
    distance = np.asarray(probabilities, dtype=float) - np.asarray(is_error, dtype=float)
    return mean_estimate(list(distance**2), clusters)


def calibration_error(probabilities: Sequence[float], is_error: Sequence[bool], clusters: Sequence[str]) -> Estimate:
    """Expected calibration error of P(INCORRECT) in 10 bins of equal width: 0 is perfect.

    The mean over texts of |mean probability - share of errors| of the text's bin (Naeini et al., AAAI 2015). A bin's
    chance error never cancels out, so few texts give a figure that is too high, in the interval more so.
    """
    if not len(probabilities):
        return NOTHING
    p, truth = np.asarray(probabilities, dtype=float), np.asarray(is_error, dtype=float)
    columns = np.zeros((len(p), BINS + 1))
    columns[np.arange(len(p)), np.minimum((p * BINS).astype(int), BINS - 1)] = p - truth
    columns[:, BINS] = 1
    return bootstrap_estimate(lambda sums: np.abs(sums[..., :BINS]).sum(axis=-1) / sums[..., BINS], columns, clusters)


def auroc(probabilities: Sequence[float], is_error: Sequence[bool], clusters: Sequence[str]) -> Estimate:
    """The area under the ROC curve: how often a text with an error has a higher P(INCORRECT) than one without, a tie
    counting half (Hanley and McNeil, Radiology 143, 1982); none on texts of one class."""
    p, truth = np.asarray(probabilities, dtype=float), np.asarray(is_error, dtype=bool)
    if truth.all() or not truth.any():
        return Estimate(None, None, None, len(p)) if len(p) else NOTHING
    cluster = number_clusters(clusters)
    higher = (1 + np.sign(p[truth][:, None] - p[~truth][None])) / 2

    def area(times: Array) -> Array:
        errors, others = times[..., cluster[truth]], times[..., cluster[~truth]]
        return np.asarray(((errors @ higher) * others).sum(-1) / (errors.sum(-1) * others.sum(-1)))

    return resampled_estimate(area, int(cluster.max()) + 1, len(p))


def choose_threshold(texts: Sequence[LabelledText], predictions: Sequence[Prediction], source: str = "") -> Threshold:
    """The threshold with the best balanced accuracy on these texts, which must be validation texts, never test texts.

    Between two neighbouring probabilities any threshold is as good: the middle is taken. Among equally good ones the
    one nearest to 0.5 is.

    Raises:
        DataError: no probabilities, or texts of one class only.
    """
    known = {one.text_id: one.p_incorrect for one in predictions if one.p_incorrect is not None}
    judged = [(known[text.text_id], text.is_error) for text in texts if text.text_id in known]
    errors = sum(is_error for _, is_error in judged)
    if not 0 < errors < len(judged):
        raise DataError("a threshold needs validation texts with and without an error, judged with probabilities")
    p = np.array([probability for probability, _ in judged])
    truth = np.array([is_error for _, is_error in judged])
    values = np.unique(p)
    lower, upper = values[:-1], values[1:]
    middle = (lower + upper) / 2
    between = np.where(middle > lower, middle, upper)  # of two numbers next to each other the middle is the lower one
    candidates = np.concatenate([[0.0], between, [1.0], [0.5]])
    flagged = p[None, :] >= candidates[:, None]
    recall = flagged[:, truth].mean(axis=1)
    specificity = (~flagged[:, ~truth]).mean(axis=1)
    balanced = (recall + specificity) / 2
    best = min(range(len(candidates)), key=lambda i: (-round(balanced[i], 12), abs(candidates[i] - 0.5)))
    return Threshold(float(candidates[best]), float(recall[best]), float(specificity[best]), len(judged), source)


def calibrated_threshold(
    texts: Sequence[LabelledText], predictions: Sequence[Prediction], source: str = ""
) -> Threshold:
    """Calibrate P(INCORRECT) on these validation texts, then choose the best threshold on it there.

    Fewer than `FEW_TEXTS` would make every probability nearly the same, so there it stays what the model says.

    Raises:
        DataError: no probabilities, or texts of one class only.
    """
    truth = {text.text_id: text.is_error for text in texts}
    known = [(one.p_incorrect, truth[one.text_id]) for one in predictions if one.p_incorrect is not None]
    if len({is_error for _, is_error in known}) < 2 or len(known) < FEW_TEXTS:
        return choose_threshold(texts, predictions, source)
    slope, intercept = platt_scaling([p for p, _ in known], [is_error for _, is_error in known])
    fitted = Threshold(0.5, slope=slope, intercept=intercept)

    def brier(probabilities: Sequence[float]) -> float:
        return sum((p - truth) ** 2 for p, (_, truth) in zip(probabilities, known, strict=True)) / len(known)

    shown = [
        one if one.p_incorrect is None else replace(one, p_incorrect=fitted.calibrated(one.p_incorrect))
        for one in predictions
    ]
    return replace(
        choose_threshold(texts, shown, source),
        slope=slope,
        intercept=intercept,
        brier_before=brier([p for p, _ in known]),
        brier=brier([fitted.calibrated(p) for p, _ in known]),
    )


def platt_scaling(probabilities: Sequence[float], is_error: Sequence[bool]) -> tuple[float, float]:
    """Slope, at least 0.01, and intercept on the logit of P(INCORRECT) that make these labels most probable.

    Labels are taken for a little less than certain, so that classes that are told apart without a fault give no step
    (Platt, Advances in Large Margin Classifiers, 1999).
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    x = np.array([logit(p) for p in probabilities])
    truth = np.array(is_error)
    target = np.where(truth, (truth.sum() + 1) / (truth.sum() + 2), 1 / ((~truth).sum() + 2))

    def loss(line: Array) -> tuple[float, Array]:
        z = line[0] * x + line[1]
        wrong = expit(z) - target
        return float(np.mean(np.logaddexp(0, z) - target * z)), np.array([np.mean(wrong * x), np.mean(wrong)])

    found = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(0.01, 100), (-100, 100)])
    return float(found.x[0]), float(found.x[1])


def apply_threshold(predictions: Sequence[Prediction], threshold: Threshold) -> list[Prediction]:
    """The predictions with verdicts by probability; where there is no probability, there is no verdict."""
    return [
        replace(one, verdict=None)
        if one.p_incorrect is None
        else replace(one, verdict="INCORRECT" if one.p_incorrect >= threshold.value else "CORRECT")
        for one in predictions
    ]
