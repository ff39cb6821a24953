"""Shares of a few games are counts, on a round's line as in the report; what there is none of is left out."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.display.progress import round_line
from medserl.display.shares import FEW, as_count, counted_in
from medserl.rounds.metrics import game_metrics
from tests.synthetic_run import episode

NOTE = "The patient has type 2 diabetes. Metformin was started."
ERROR = "The patient has type 1 diabetes. Metformin was started."
SHARES = (
    "vcf_acceptance_rate", "vcf_first_attempt_rate", "accepted_error_share", "assessor_accuracy", "assessor_recall",
    "assessor_specificity", "assessor_flag_rate", "no_verdict_rate", "injector_win_rate_error",
    "injector_win_rate_benign",
)  # fmt: skip


@given(st.integers(1, 40), st.data())
def test_fewer_than_ten_are_counted(n: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, n))
    assert as_count(hits / n, n) == (f"{hits} of {n}" if n < FEW else None)


def test_what_is_no_share_is_no_count() -> None:
    assert as_count(None, 4) is as_count(0.5, 0) is as_count(0.4, 3) is None


def row(games: list[Any]) -> dict[str, Any]:
    return dict(game_metrics(games))


@given(st.lists(st.tuples(st.sampled_from(["error", "benign"]), st.booleans(), st.booleans()), min_size=1, max_size=9))
def test_every_share_of_a_round_knows_of_how_many_games_it_is(played: list[tuple[Any, bool, bool]]) -> None:
    games = [
        episode(NOTE, [ERROR if accepted else None], mode=mode, said=f"final_answer: {'IN' if flag else ''}CORRECT")
        for mode, accepted, flag in played
    ]
    found = row(games)
    for figure in SHARES:
        value = found[figure]
        assert value is None or as_count(value, counted_in(figure, found)), figure


def test_games_of_an_older_run_that_its_figures_leave_out_are_not_counted() -> None:
    older = {"games": 9, "accepted_games": 8, "accepted_error_share": 0.5, "past_games": 4}
    figures = ("vcf_acceptance_rate", "accepted_error_share", "assessor_accuracy", "assessor_recall")
    assert [counted_in(figure, older) for figure in figures] == [9, 8, 4, 0]


def test_a_line_of_a_few_games_counts_them() -> None:
    games = [episode(NOTE, [ERROR], said="final_answer: INCORRECT"), episode(NOTE, [None])]
    line = round_line({"round": 1, **row(games)}, 5)
    assert "vcf 1 of 2 | assessor 1 of 1 right, flags 1 of 1 | injector wins 0 of 1 error | 0 s" in line
    many = round_line({"round": 1, **row(games * 8)}, 5)
    assert "vcf  50% | assessor 8 of 8 right" in many


@pytest.mark.parametrize("validation", [{}, {"eval_accuracy": None, "eval_pairwise_accuracy": None}])
def test_a_line_without_games_has_no_dashes(validation: dict[str, Any]) -> None:
    line = round_line(
        {"round": 1, **row([episode(NOTE, [None])]), "kl_assessor": 0.1, "kl_injector": 0.1} | validation, 5
    )
    assert "vcf 0 of 1 | no game judged | kl" in line
    assert not re.search(r" - |-$|None", line)


def test_a_kl_that_rounds_to_zero_has_no_sign_of_its_own() -> None:
    line = round_line({"round": 1, **row([episode(NOTE, [ERROR])]), "kl_assessor": -0.0, "kl_injector": -4e-4}, 5)
    assert "kl +0.000 / +0.000" in line


def test_validation_on_a_few_notes_counts_them() -> None:
    validated = {"eval_accuracy": 0.5, "eval_pairwise_accuracy": 1.0, "eval_texts": 4, "eval_pairs": 1}
    assert round_line({"round": 0, **validated}, 5).endswith("| validation 2 of 4, pairs 1 of 1")


def test_a_validation_figure_knows_of_how_many_texts_or_pairs_it_is() -> None:
    row = {"eval_texts": 7, "eval_errors": 4, "eval_pairs": 2}
    figures = ("accuracy", "flag_rate", "recall", "specificity", "pairwise_accuracy")
    assert [counted_in(f"eval_{figure}", row) for figure in figures] == [7, 7, 4, 3, 2]
    assert counted_in("eval_pair_ordering", row) == 0, "a tie counts half, so it is no count"
    assert counted_in("eval_specificity", {"eval_texts": 7}) == 0


def test_validation_without_pairs_names_none() -> None:
    assert round_line({"round": 0, "eval_accuracy": 0.5, "eval_pairwise_accuracy": None}, 5).endswith(
        "| validation  50%"
    )
