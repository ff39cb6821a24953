"""Probabilities that a model states too surely are calibrated on labelled notes; their order stays."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medserl.errors import DataError
from medserl.evaluation.calibration import calibrated_threshold, choose_threshold, platt_scaling
from medserl.evaluation.predictions import LabelledText, Prediction
from medserl.evaluation.thresholds import FEW_TEXTS, Threshold, logit, sigmoid

SHARES = st.floats(0, 1, allow_nan=False)


def judged(rows: list[tuple[float, bool]]) -> tuple[list[LabelledText], list[Prediction]]:
    texts = [LabelledText(str(i), "A note.", is_error=is_error) for i, (_, is_error) in enumerate(rows)]
    return texts, [Prediction(str(i), None, p_incorrect=p) for i, (p, _) in enumerate(rows)]


@given(st.lists(st.tuples(SHARES, st.booleans()), min_size=2, max_size=40))
@settings(deadline=None)
def test_calibrated_probabilities_are_probabilities_in_the_same_order(rows: list[tuple[float, bool]]) -> None:
    texts, said = judged(rows)
    if len({is_error for _, is_error in rows}) < 2:
        with pytest.raises(DataError):
            calibrated_threshold(texts, said)
        return
    found = calibrated_threshold(texts, said, "notes")
    assert found.slope > 0 and found.n == len(rows)
    shown = [found.calibrated(p) for p, _ in sorted(rows)]
    assert all(0 <= p <= 1 for p in shown) and shown == sorted(shown)
    raw = choose_threshold(texts, said)
    assert found.balanced_accuracy is not None and raw.balanced_accuracy is not None
    assert found.balanced_accuracy <= raw.balanced_accuracy + 1e-12  # ties may be made, no order is


@given(st.lists(st.tuples(SHARES, st.booleans()), min_size=2, max_size=FEW_TEXTS - 1))
def test_a_handful_of_texts_calibrates_nothing(rows: list[tuple[float, bool]]) -> None:
    rows = [*rows, (0.9, True), (0.1, False)][-FEW_TEXTS + 1 :]
    found = calibrated_threshold(*judged(rows), "notes")
    assert [found.calibrated(p) for p, _ in rows] == [p for p, _ in rows]
    assert found.brier is None and "too few" in found.describe()


def test_overconfident_probabilities_come_to_mean_what_they_say() -> None:
    """Right in 7 of 10, and always sure: then 0.7 is what is known, the Brier score 0.21 and not 0.3."""
    rng = random.Random(0)
    rows = []
    for _ in range(400):
        is_error = rng.random() < 0.5
        right = rng.random() < 0.7
        rows.append((1 - 1e-5 if is_error == right else 1e-5, is_error))
    found = calibrated_threshold(*judged(rows), "notes")
    assert found.calibrated(1 - 1e-5) == pytest.approx(0.7, abs=0.05)
    assert found.calibrated(1e-5) == pytest.approx(0.3, abs=0.05)
    assert found.brier_before == pytest.approx(0.3, abs=0.05) and found.brier == pytest.approx(0.21, abs=0.02)
    assert "(Brier score 0.27 before, 0.20 after)" in found.describe() and found.value == 0.5


def test_probabilities_that_mean_what_they_say_stay() -> None:
    rng = random.Random(1)
    chances = [rng.random() for _ in range(4000)]
    slope, intercept = platt_scaling(chances, [rng.random() < p for p in chances])
    assert slope == pytest.approx(1, abs=0.1) and intercept == pytest.approx(0, abs=0.1)


@given(st.floats(-20, 20))
def test_the_logit_is_the_inverse(x: float) -> None:
    assert logit(sigmoid(x)) == pytest.approx(x, abs=1e-4)
    assert math.isfinite(logit(0)) and math.isfinite(logit(1))


def test_a_threshold_without_a_calibration_leaves_probabilities_alone() -> None:
    assert [Threshold(0.5).calibrated(p) for p in (0.0, 1e-15, 0.3, 1.0)] == [0.0, 1e-15, 0.3, 1.0]
