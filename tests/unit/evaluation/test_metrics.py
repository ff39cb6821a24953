"""Detection figures by hand, against scikit-learn, and calibration."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from medserl.errors import DataError
from medserl.evaluation.calibration import apply_threshold, choose_threshold
from medserl.evaluation.metrics import by_group, detection_metrics, judge, length_bucket, pairs_right
from medserl.evaluation.predictions import LabelledText, Prediction, labelled_texts
from medserl.evaluation.statistics import NOTHING
from medserl.game.note import Note

C, I = "CORRECT", "INCORRECT"  # noqa: E741

NOTES = [
    Note("a", "right a", "wrong a", error_type="diagnosis", split="known"),
    Note("b", "right b", "wrong b", error_type="diagnosis", split="known"),
    Note("c", "right c", "wrong c", error_type="treatment", split="unknown"),
    Note("d", "lone"),
    Note("e", None, "lone and wrong"),
]
TEXTS = labelled_texts(NOTES)  # a-corrected, a, b-corrected, b, c-corrected, c, d, e
SAID = [
    Prediction("a-corrected", C),
    Prediction("a", I),
    Prediction("b-corrected", I),
    Prediction("b", I),
    Prediction("c-corrected", None),
    Prediction("c", C),
    Prediction("d", C),
    # nothing on e
    Prediction("z", I),
]


def test_every_figure_by_hand() -> None:
    found = detection_metrics(TEXTS, SAID)
    assert (found.n_texts, found.n_errors, found.n_pairs, found.missing, found.unmatched) == (8, 4, 3, 1, 1)
    # right: a-corrected, a, b, d. TP 2, FN 2 (c, e), TN 2, FP 2 (b-corrected; c-corrected)
    expected = {
        "accuracy": 4 / 8,
        "pairwise_accuracy": 1 / 3,
        "pairwise_chance": (3 / 6) * (2 / 6),  # of the six texts of pairs three are flagged, two called CORRECT
        "right_minus_reversed": 1 / 3,  # c is wrong, but its twin was not called INCORRECT
        # of the six with a verdict 3 have an error, of which 2 are flagged, and of the others 1 is; half a text each
        "d_prime": 2 * NormalDist().inv_cdf(2.5 / 4),
        "recall": 2 / 4,
        "specificity": 2 / 4,
        "f1": 4 / 8,
        "balanced_accuracy": 1 / 2,
        "mcc": (2 * 2 - 1 * 1) / 9,  # over the six with a verdict: TP 2, FN 1 (c), TN 2, FP 1 (b-corrected)
        "flag_rate": 3 / 8,
        "no_verdict_rate": 2 / 8,
    }
    values = {name: estimate.value for name, estimate in found.items()}
    assert {name: values[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert values["brier"] is values["ece"] is values["pair_ordering"] is values["auroc"] is None
    assert found.pairwise_accuracy.n == 3
    assert found.mcc.n == 6
    assert all(e.low <= e.value <= e.high for _, e in found.items() if e.low is not None)
    assert [one.right for one in found.outcomes] == [True, True, False, True, False, False, True, False]
    assert found.outcomes == judge(TEXTS, SAID)
    assert pairs_right(found.outcomes) == [True, False, False]


def test_order_of_predictions_does_not_matter() -> None:
    assert detection_metrics(TEXTS, SAID[::-1]) == detection_metrics(TEXTS, SAID)


def test_groups() -> None:
    types = by_group(TEXTS, SAID, "error_type")
    assert list(types) == ["diagnosis", "treatment"]  # lone texts have no type
    assert (types["diagnosis"].n_texts, types["diagnosis"].accuracy.value) == (4, 0.75)
    assert (types["diagnosis"].pairwise_accuracy.value, types["treatment"].pairwise_accuracy.value) == (0.5, 0.0)
    assert all((g.missing, g.unmatched) == (0, 0) for g in types.values())
    assert list(by_group(TEXTS, SAID, "split")) == ["known", "unknown"]
    long = [replace(TEXTS[0], text="word " * 210), replace(TEXTS[1], text="word")]
    assert list(by_group(long, SAID, "length")) == ["under 100 words", "200-399 words"]


@pytest.mark.parametrize(
    ("words", "bucket"),
    [
        (0, "under 100 words"),
        (99, "under 100 words"),
        (100, "100-149 words"),
        (399, "200-399 words"),
        (400, "400 words and more"),
    ],
)
def test_length_buckets(words: int, bucket: str) -> None:
    assert length_bucket("word\n" * words) == bucket


def test_nothing_to_judge() -> None:
    found = detection_metrics([], [])
    assert all(estimate == NOTHING for _, estimate in found.items())


def test_one_class_alone_has_no_balanced_figures() -> None:
    found = detection_metrics([TEXTS[1]], [Prediction("a", I)])
    assert found.accuracy.value == found.recall.value == found.f1.value == 1.0
    assert found.specificity.value is found.mcc.value is found.balanced_accuracy.value is None


def test_the_same_answer_to_everything_has_no_correlation() -> None:
    found = detection_metrics(TEXTS, [Prediction(t.text_id, C) for t in TEXTS])
    assert (found.mcc.value, found.balanced_accuracy.value, found.f1.value) == (0.0, 0.5, 0.0)
    assert found.pairwise_accuracy.value == 0.0


def test_a_system_that_gave_no_verdict_has_no_correlation() -> None:
    found = detection_metrics(TEXTS, [Prediction(t.text_id, None) for t in TEXTS])
    assert found.mcc == NOTHING
    assert (found.no_verdict_rate.value, found.accuracy.value, found.pairwise_chance.value) == (1.0, 0.0, 0.0)
    half = [Prediction(t.text_id, I if t.is_error else None) for t in TEXTS]
    assert detection_metrics(TEXTS, half).mcc.value is None  # those with a verdict are of one class


def test_a_coin_of_the_systems_own_flag_rate_gets_at_most_a_quarter_of_the_pairs() -> None:
    alike = [Prediction(t.text_id, I if t.text_id[0] in "ab" else C) for t in TEXTS]
    found = detection_metrics(TEXTS, alike)
    assert (found.pairwise_accuracy.value, found.pairwise_chance.value) == (0.0, pytest.approx(2 / 3 * 1 / 3))
    assert detection_metrics(TEXTS[6:], alike).pairwise_chance.value is None  # no pairs


@pytest.mark.parametrize("twice", [0, 1])
def test_an_id_that_stands_twice_is_an_error(twice: int) -> None:
    texts, said = (TEXTS[:1] * (1 + (twice == 0)), SAID[:1] * (1 + (twice == 1)))
    with pytest.raises(DataError, match="'a-corrected' occurs twice"):
        detection_metrics(texts, said)


@settings(max_examples=50)  # each draws thousands of bootstrap resamples
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0, 1)), min_size=1, max_size=40))
def test_figures_equal_scikit_learns(texts: list[tuple[bool, bool, float]]) -> None:
    labels, flags = [t[0] for t in texts], [t[1] for t in texts]
    found = detection_metrics(
        [LabelledText(str(i), "", label) for i, label in enumerate(labels)],
        [Prediction(str(i), I if flag else C, p_incorrect=p) for i, (_, flag, p) in enumerate(texts)],
    )
    if any(labels) or any(flags):
        assert found.f1.value == pytest.approx(sklearn_metrics.f1_score(labels, flags), abs=1e-9)
    if len(set(labels)) == 2:
        assert found.mcc.value == pytest.approx(sklearn_metrics.matthews_corrcoef(labels, flags), abs=1e-9)
        balanced = sklearn_metrics.balanced_accuracy_score(labels, flags)
        assert found.balanced_accuracy.value == pytest.approx(balanced, abs=1e-9)
    chances = [t[2] for t in texts]
    brier = sum((p - label) ** 2 for p, label in zip(chances, labels, strict=True)) / len(texts)
    assert found.brier.value == pytest.approx(brier, abs=1e-9)
    assert 0 <= found.ece.value <= 1
    if len(set(labels)) == 2:
        assert found.auroc.value == pytest.approx(sklearn_metrics.roc_auc_score(labels, chances), abs=1e-9)
        assert found.auroc.low <= found.auroc.value <= found.auroc.high


VERDICTS = st.sampled_from([C, I, None])


@settings(max_examples=30)
@given(st.lists(st.tuples(VERDICTS, VERDICTS, st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12))
def test_what_does_not_depend_on_the_note_discriminates_nothing(pairs: list[tuple[Any, Any, float, float]]) -> None:
    texts = labelled_texts([Note(str(i), f"right {i}", f"wrong {i}") for i in range(len(pairs))])
    said, swapped, alike = [], [], []
    for i, (right, wrong, low, high) in enumerate(pairs):
        said += [Prediction(f"{i}-corrected", right, p_incorrect=low), Prediction(str(i), wrong, p_incorrect=high)]
        swapped += [Prediction(f"{i}-corrected", wrong, p_incorrect=high), Prediction(str(i), right, p_incorrect=low)]
        alike += [Prediction(f"{i}-corrected", right, p_incorrect=low), Prediction(str(i), right, p_incorrect=low)]
    found, other, constant = (detection_metrics(texts, each) for each in (said, swapped, alike))
    assert found.right_minus_reversed.value == pytest.approx(-(other.right_minus_reversed.value or 0))
    assert found.pair_ordering.value == pytest.approx(1 - (other.pair_ordering.value or 0))
    assert found.auroc.value == pytest.approx(1 - (other.auroc.value or 0))
    assert found.d_prime.value == pytest.approx(0 if other.d_prime.value is None else -other.d_prime.value) or (
        found.d_prime.value is other.d_prime.value is None
    )
    assert (constant.right_minus_reversed.value, constant.pair_ordering.value, constant.auroc.value) == (0, 0.5, 0.5)
    assert constant.d_prime.value in (None, pytest.approx(0))
    ordered = [high > low or (high == low) / 2 for _, _, low, high in pairs]
    assert found.pair_ordering.value == pytest.approx(sum(ordered) / len(ordered))


def _with_chances(*chances: float | None) -> list[Prediction]:
    return [Prediction(t.text_id, None, p_incorrect=p) for t, p in zip(TEXTS, chances, strict=True)]


def test_calibration_by_hand() -> None:
    # truth: 0 1 0 1 0 1 0 1; the last two have no probability
    found = detection_metrics(TEXTS, _with_chances(0.1, 0.9, 0.15, 1.0, 0.9, 0.65, None, None))
    assert found.brier.n == found.ece.n == 6
    brier = (0.1**2 + 0.1**2 + 0.15**2 + 0 + 0.9**2 + 0.35**2) / 6
    assert found.brier.value == pytest.approx(brier, abs=1e-12)
    # bins: [0.1, 0.2) holds 0.1, 0.15 (no error); [0.6, 0.7) 0.65 (error); [0.9, 1] 0.9, 1.0 (errors), 0.9 (none)
    ece = (abs(0.25 - 0) + abs(0.65 - 1) + abs(2.8 - 2)) / 6
    assert found.ece.value == pytest.approx(ece, abs=1e-12)


def test_the_threshold_is_the_best_on_validation() -> None:
    said = _with_chances(0.1, 0.3, 0.2, 0.4, 0.25, 0.45, 0.35, None)  # errors at 0.3, 0.4, 0.45; others at most 0.35
    found = choose_threshold(TEXTS, said)
    assert found.value == pytest.approx(0.275)  # misses none, one false alarm of 4
    assert (found.balanced_accuracy, found.n) == (pytest.approx((1 + 3 / 4) / 2), 7)
    applied = apply_threshold(said, found)
    assert [one.verdict for one in applied] == [C, I, C, I, C, I, I, None]


def test_a_perfect_threshold_nearest_to_a_half_is_taken() -> None:
    said = _with_chances(0.1, 0.9, 0.1, 0.9, 0.2, 0.95, 0.0, 0.9)
    assert choose_threshold(TEXTS, said).value == 0.5


def test_no_threshold_without_both_classes() -> None:
    with pytest.raises(DataError, match="with and without an error"):
        choose_threshold(TEXTS[:1], _with_chances(*[0.5] * 8))
    with pytest.raises(DataError, match="with and without an error"):
        choose_threshold(TEXTS, [])


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=2, max_size=30).filter(
        lambda x: len({e for e, _ in x}) == 2
    )
)
@example([(False, 0.0), (True, 5e-324)])  # two numbers that have none between them
@example([(False, 0.5), (True, math.nextafter(0.5, 1))])
def test_no_threshold_is_better(texts: list[tuple[bool, float]]) -> None:
    labelled = [LabelledText(str(i), "", e) for i, (e, _) in enumerate(texts)]
    said = [Prediction(str(i), None, p_incorrect=p) for i, (_, p) in enumerate(texts)]
    found = choose_threshold(labelled, said)
    got = detection_metrics(labelled, apply_threshold(said, found)).balanced_accuracy.value
    assert got == pytest.approx(found.balanced_accuracy, abs=1e-9)
    for p in {p for _, p in texts}:
        flagged = [q >= p for _, q in texts]
        other = sklearn_metrics.balanced_accuracy_score([e for e, _ in texts], flagged)
        assert found.balanced_accuracy >= other - 1e-9
