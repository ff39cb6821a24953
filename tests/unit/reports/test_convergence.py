"""Gaps and notices on runs whose story is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from medserl.reports.convergence import Notice, convergence, gold_gaps, notices
from tests.synthetic_run import edited_game as game

Row = dict[str, Any]


def test_gold_gaps_by_hand() -> None:
    rows = [
        {"round": 0, "eval_accuracy": 0.5, "eval_recall": 0.4},
        {"round": 1, "assessor_recall": 0.6, "assessor_accuracy": 0.6},
        {"round": 2, "assessor_recall": 0.8, "assessor_accuracy": 0.7, "eval_accuracy": 0.55, "eval_recall": 0.5},
        {"round": 3, "assessor_recall": None, "assessor_accuracy": None},
        {"round": 4, "assessor_recall": 0.9, "assessor_accuracy": 0.9, "eval_accuracy": 0.6, "eval_recall": None},
    ]
    none, early, late = gold_gaps(rows)
    assert (none.round, none.validation_recall, none.self_made_recall, none.recall_gap) == (0, 0.4, None, None)
    assert (early.round, early.self_made_recall, early.validation_recall) == (2, pytest.approx(0.7), 0.5)
    assert (early.recall_gap, early.accuracy_gap) == (pytest.approx(0.2), pytest.approx(0.1))
    assert (late.recall_gap, late.accuracy_gap) == (None, pytest.approx(0.3))


def run(**curves: Sequence[float | None]) -> list[Row]:
    """Rows of rounds 1, 2, ..., each metric given as its curve."""
    length = max(len(curve) for curve in curves.values())
    return [{"round": i + 1} | {k: curve[i] for k, curve in curves.items() if i < len(curve)} for i in range(length)]


def only(found: list[Notice]) -> Notice:
    assert len(found) == 1
    return found[0]


def test_a_healthy_run_has_no_notice() -> None:
    rows = run(
        assessor_flag_rate=[0.5, 0.6, 0.97, 0.96, 0.5, 0.4],
        no_verdict_rate=[0.1] * 6,
        kl_injector=[0.01, 0.6, 0.02, 0.7, 0.02, 0.1],
        kl_assessor=[0.01, 0.02, 0.02, 0.03, 0.02, 0.1],
        vcf_acceptance_rate=[0.9, 0.5, 0.9, 0.85, 0.4, 0.9],
        reward_assessor=[0.0, 0.1, 0.2, 0.3, 0.4, 0.5],
        eval_accuracy=[0.5, None, 0.55, None, 0.53, 0.6],
    )
    assert notices(rows, []) == []
    assert notices([], []) == []
    assert notices([{"round": 1}], []) == []


@pytest.mark.parametrize(
    ("curves", "answer", "number"),
    [
        ({"assessor_flag_rate": [0.5, 0.96, 0.97, 1.0, 1.0]}, "INCORRECT", 2),
        ({"assessor_flag_rate": [0.5, 0.5, 0.0, 0.04, 0.05], "no_verdict_rate": [0.0] * 5}, "CORRECT", 3),
        ({"assessor_flag_rate": [0.0, None, 0.02, 0.01], "no_verdict_rate": [1.0, None, 0.96, 0.99]}, "no verdict", 1),
    ],
)
def test_verdict_collapse(curves: dict[str, list[float | None]], answer: str, number: int) -> None:
    found = only(notices(run(**curves), []))
    assert (found.kind, found.round) == ("verdict_collapse", number)
    assert f"answer is {answer} " in found.text


def test_a_sign_that_passes_has_an_end() -> None:
    found = only(notices(run(assessor_flag_rate=[0.5, 1.0, 0.96, None, 1.0, 0.5, 1.0, 1.0, 1.0]), []))
    assert found.text.startswith("In rounds 2 to 5 the Assessor's answer is INCORRECT")


def test_collapse_on_the_validation_notes() -> None:
    """Two evaluations in a row are enough: many texts, and always the same."""
    once = [{"round": 0, "eval_flag_rate": 1.0}, {"round": 5, "eval_flag_rate": 0.6}, {"round": 6}]
    assert notices(once, []) == []
    rows = [*once, {"round": 10, "eval_flag_rate": 0.02, "eval_no_verdict_rate": 0.01}]
    assert notices(rows, []) == []
    found = only(notices([*rows, {"round": 15, "eval_flag_rate": 0.0, "eval_no_verdict_rate": 0.05}], []))
    assert (found.kind, found.round) == ("verdict_collapse", 10)
    assert (
        found.text == "From round 10 on the Assessor's answer is CORRECT in at least 95\u00a0% of the validation notes."
    )


def test_few_flags_without_verdicts_are_not_a_collapse_to_correct() -> None:
    assert notices(run(assessor_flag_rate=[0.02] * 5, no_verdict_rate=[0.5] * 5), []) == []


def test_an_injector_that_repeats_itself() -> None:
    def played(number: int, different: int, games: int = 10) -> list[Row]:
        return [game(number, "flu", f"w{i % different}") for i in range(games)]

    varied = [g for number in range(1, 4) for g in played(number, 5)]
    repeated = [g for number in range(4, 7) for g in played(number, 4)]
    found = only(convergence([], varied + repeated).notices)
    assert (found.kind, found.round) == ("injector_repeats", 4)
    assert "repeats itself: 40\u00a0% of its edits in round 4 are different ones." in found.text
    few = [g for number in range(1, 9) for g in played(number, 1, games=7)]  # too few edits to judge by
    assert convergence([], few).notices == []
    assert convergence([], varied).notices == []


def test_kl_runaway_names_the_role() -> None:
    found = only(notices(run(kl_injector=[0.1, 0.2, 0.5, None, 0.9, 2.0], kl_assessor=[0.1] * 6), []))
    assert (found.kind, found.round) == ("kl_runaway", 3)
    assert found.text.startswith("From round 3 on the Injector is far from the reference model (KL 0.50 ")
    assert notices(run(kl_injector=[0.49] * 6, kl_assessor=[0.1, 0.6, 0.6, 0.4, 0.6, 0.6]), []) == []


def test_falling_acceptance() -> None:
    found = only(notices(run(vcf_acceptance_rate=[0.6, 0.9, 0.9, 0.9, 0.8, 0.6, 0.62, 0.5]), []))
    assert (found.kind, found.round) == ("acceptance_falls", 6)
    assert "60\u00a0% in that round, 90\u00a0% at best" in found.text
    assert notices(run(vcf_acceptance_rate=[0.6, 0.9, 0.9, 0.9, 0.8, 0.64, 0.62, 0.7]), []) == []


def test_reward_up_while_held_out_accuracy_falls() -> None:
    rows = [
        {"round": 0, "eval_accuracy": 0.55},
        *run(
            reward_assessor=[0.0, 0.0, 0.1, 0.3, 0.4, 0.5],
            eval_accuracy=[None, 0.60, None, 0.56, None, 0.54],
        ),
    ]
    found = only(notices(rows, []))
    assert (found.kind, found.round) == ("reward_up_accuracy_down", 6)
    assert "60.0\u00a0% to 54.0\u00a0%" in found.text
    assert "+0.00 to +0.40" in found.text
    assert notices([row | {"reward_assessor": 0.0} for row in rows], []) == []  # less knowledge, but no more reward
    assert notices([row | {"eval_accuracy": 0.6} for row in rows], []) == []  # more reward, and nothing lost


def test_an_evaluation_before_any_game_counts_as_the_start() -> None:
    start, evaluated = {"round": 0, "eval_accuracy": 0.6}, [None] * 5 + [0.5]
    rising = run(reward_assessor=[0.0] * 3 + [0.5] * 3, eval_accuracy=evaluated)
    assert only(notices([start, *rising], [])).round == 6
    assert notices([start, *run(reward_assessor=[0.0] * 6, eval_accuracy=evaluated)], []) == []


def test_notices_come_in_the_order_of_rounds_and_skip_what_is_no_number() -> None:
    rows = run(
        kl_assessor=[0.1, 0.9, 0.9, 0.9, float("nan"), None],
        assessor_flag_rate=[1.0, 1.0, 1.0, 1.0, 1.0, None],
    )
    assert [(n.kind, n.round) for n in notices(rows, [])] == [("verdict_collapse", 1), ("kl_runaway", 2)]
