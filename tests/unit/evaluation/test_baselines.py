"""The baseline learns from training texts alone."""

from __future__ import annotations

import pytest

from medserl.errors import DataError
from medserl.evaluation.baselines import tfidf_predictions
from medserl.evaluation.metrics import detection_metrics
from medserl.evaluation.predictions import LabelledText

TEXTS = [LabelledText("x", "fever and cough", False), LabelledText("y", "rash", True)]


def test_tfidf_finds_a_word_that_gives_errors_away() -> None:
    drugs = ["aspirin", "heparin", "insulin", "digoxin", "warfarin", "codeine"]
    train = [
        LabelledText(f"{d}{e}", f"given {d} {'wrongly' if e else 'rightly'}", e) for d in drugs for e in (True, False)
    ]
    test = [LabelledText("1", "wrongly given statins", True), LabelledText("2", "rightly given statins", False)]
    found = tfidf_predictions(train, test)
    assert [(p.text_id, p.verdict) for p in found] == [("1", "INCORRECT"), ("2", "CORRECT")]
    assert found[0].p_incorrect > 0.5 > found[1].p_incorrect
    assert tfidf_predictions(train, test) == found
    assert detection_metrics(test, found).accuracy.value == 1.0
    assert tfidf_predictions(train, []) == []


def test_tfidf_needs_both_classes() -> None:
    with pytest.raises(DataError, match="with and without an error"):
        tfidf_predictions(TEXTS[:1], TEXTS)
