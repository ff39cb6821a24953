"""What guessing gets: closed forms against guesses scored like any system, and praise measured against them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medserl.evaluation.guessing import ALWAYS_CORRECT, ALWAYS_INCORRECT, COIN, against_guessing, guess_figures
from medserl.evaluation.metrics import DetectionMetrics, detection_metrics
from medserl.evaluation.predictions import LabelledText, Prediction, labelled_texts
from medserl.evaluation.table import comparison_table
from medserl.game.note import Note


def _scored(texts: tuple[LabelledText, ...], verdicts: list[str | None]) -> DetectionMetrics:
    said = [Prediction(t.text_id, v, p_incorrect=0.5) for t, v in zip(texts, verdicts, strict=True)]
    return detection_metrics(texts, said)


@settings(max_examples=20)
@given(st.integers(0, 6), st.integers(0, 6), st.integers(0, 6))
def test_always_the_same_answer_gets_what_scoring_it_gives(pairs: int, wrong: int, right: int) -> None:
    notes = [Note(f"p{i}", f"right {i}", f"wrong {i}") for i in range(pairs)]
    notes += [Note(f"w{i}", None, f"wrong {i}") for i in range(wrong)] + [Note(f"r{i}", f"r {i}") for i in range(right)]
    texts = labelled_texts(notes)
    guesses = guess_figures(pairs + wrong, pairs + right, pairs)
    for name, verdict in ((ALWAYS_INCORRECT, "INCORRECT"), (ALWAYS_CORRECT, "CORRECT")):
        scored = dict(_scored(texts, [verdict] * len(texts)).items())
        for figure, estimate in guesses[name].items():
            if estimate.value is None and figure == "f1":
                continue  # always CORRECT: 0 of 0 where no text has an error
            assert estimate.value == pytest.approx(scored[figure].value, nan_ok=True), (name, figure)
            assert estimate.low is estimate.high is None


def test_a_coin_gets_what_a_thousand_tosses_come_near_to() -> None:
    texts = labelled_texts([Note(f"p{i}", f"right {i}", f"wrong {i}") for i in range(2000)])
    rng = random.Random(0)
    tossed = dict(_scored(texts, [rng.choice(["CORRECT", "INCORRECT"]) for _ in texts]).items())
    for figure, estimate in guess_figures(2000, 2000, 2000)[COIN].items():
        room = 0.12 if figure == "d_prime" else 0.04  # three standard errors and more
        assert estimate.value == pytest.approx(tossed[figure].value, abs=room), figure


TEXTS = labelled_texts([Note(f"n{i}", f"right {i}", f"wrong {i}") for i in range(100)])


def _model(right: int, reversed_: int, flagged_both: int) -> DetectionMetrics:
    """So many pairs right, so many the wrong way round, so many with both twins called INCORRECT, else both CORRECT."""
    verdicts: list[str | None] = []
    for i in range(100):
        if i < right:
            verdicts += ["CORRECT", "INCORRECT"]
        elif i < right + reversed_:
            verdicts += ["INCORRECT", "CORRECT"]
        else:
            verdicts += ["INCORRECT" if i < right + reversed_ + flagged_both else "CORRECT"] * 2
    return _scored(TEXTS, verdicts)


def test_a_model_that_beats_always_the_same_but_not_its_own_coin_is_not_praised_for_pairs() -> None:
    """Always the same gets no pair right, so 13 pairs are far more; a coin that flags as often would get 24."""
    constant, model = _model(0, 0, 100), _model(13, 12, 50)
    rows = comparison_table({"constant": constant, "model": model})
    by = {(row["system"], row["against"], row["unit"]): row for row in rows}
    praise = by["model", "constant", "pairs"]
    assert praise["p_value"] < 0.001
    assert praise["sentence"] == (
        "model is better than constant by 13.0 points of pairs right (p < 0.001), but no better than guessing."
    )
    against = by["model", "guessing", "pairs"]
    assert against["difference"] == pytest.approx(0.13 - 0.625 * 0.375)
    assert against["test"] == "exact binomial test"
    assert against["sentence"].startswith(
        "model is worse than guessing (a coin that flags as often: 23.4 %) by 10.4 points of pairs right (p = 0.0"
    )
    texts = by["model", "guessing", "texts"]["sentence"]
    assert (
        texts == "model is not distinguishable from guessing (one answer throughout: 50.0 %) in texts right (p = 1.00)."
    )


def test_a_model_that_tells_twins_apart_is_praised() -> None:
    model = _model(60, 5, 20)
    for unit, one in against_guessing(model).items():
        assert one.better, unit
    assert "no better than guessing" not in str(comparison_table({"constant": _model(0, 0, 100), "model": model}))


def test_the_best_guess_is_the_commoner_class_of_the_judged_texts() -> None:
    lone = labelled_texts(
        [Note(f"e{i}", None, f"wrong {i}") for i in range(70)] + [Note(f"c{i}", "x") for i in range(30)]
    )
    found = _scored(lone, ["INCORRECT"] * 60 + ["CORRECT"] * 40)
    assert found.accuracy.value == 0.9
    against = against_guessing(found)["texts"]
    assert (against.chance, against.how) == (0.7, "always INCORRECT")
    assert (
        against.sentence("it")
        == "it is better than guessing (always INCORRECT: 70.0 %) by 20.0 points of texts right (p = 0.002)."
    )


def test_of_texts_of_one_class_nobody_is_praised() -> None:
    wrong = labelled_texts([Note(f"e{i}", None, f"wrong {i}") for i in range(30)])
    found = {name: _scored(wrong, [verdict] * 30) for name, verdict in (("a", "CORRECT"), ("b", "INCORRECT"))}
    assert comparison_table(found) == []
