"""REINFORCE++ where nothing, or hardly anything, tells turns apart: no division by a spread that is not there."""

from __future__ import annotations

import math

import pytest
from torch import Tensor

from medserl.reinforce_pp import ReinforcePlusPlus, variance_metrics
from tests.tensors import close, tensor


def noisy(n: int, noise: float) -> tuple[list[Tensor], list[Tensor]]:
    """Log-probabilities of turns of 20 tokens and their reference, `noise` nats apart to either side."""
    old = [tensor(*[-1.0] * 20)] * n
    return old, [row + noise * (-1) ** i for i, row in enumerate(old)]


@pytest.mark.parametrize("normalization", ["global", "per_role", "per_mode"])
@pytest.mark.parametrize("reward", [1.0, -1.0, 0.4])
def test_where_all_rewards_are_alike_the_kl_keeps_its_own_size(normalization: str, reward: float) -> None:
    old, ref = noisy(30, 0.1)
    roles, modes = ["assessor"] * 30, ["error", "error", "benign", "benign"] * 7 + ["error", "error"]
    rows = ReinforcePlusPlus(0.01, "k1", normalization).advantages([reward] * 30, old, ref, roles, modes)
    largest = max(row.abs().max().item() for row in rows)
    assert largest == pytest.approx(0.02, rel=0.2)  # 0.01 * 0.1 * 20, times a mode's weight of about 1


def test_rewards_that_hardly_differ_do_not_blow_the_kl_up_either() -> None:
    """A penalty of a hundredth is worth a hundredth, not one standard deviation."""
    old, ref = noisy(30, 0.1)
    rewards = [1.0 - 0.01 * (i < 15) for i in range(30)]
    rows = ReinforcePlusPlus(0.01).advantages(rewards, old, ref, ["assessor"] * 30)
    assert max(row.abs().max().item() for row in rows) < 0.03


@pytest.mark.parametrize(("others", "scaled"), [(1, True), (7, True), (397, True), (398, False)])
def test_one_turn_that_ended_otherwise_is_whitened_up_to_its_hundreds(others: int, scaled: bool) -> None:
    """By hand: std of one -1 among n+1 turns is 2 sqrt(n) / (n + 1), which falls below 0.1 at n = 398."""
    rewards = [1.0] * others + [-1.0]
    *_, last = ReinforcePlusPlus(0.0).advantages(rewards, [tensor(-1)] * len(rewards), None, ["a"] * len(rewards))
    mean = (others - 1) / (others + 1)
    std = 2 * math.sqrt(others) / (others + 1)
    assert last.item() == pytest.approx((-1 - mean) / (std if scaled else 1), rel=1e-5)


def test_a_role_of_one_turn_learns_its_kl_alone() -> None:
    """Its own mean is its baseline: no reward is left, and nothing to divide by."""
    old, ref = [tensor(-1, -1)] * 3, [tensor(-1.5, -1.0)] * 3
    lone, *_ = ReinforcePlusPlus(0.1, "k1", "per_role").advantages(
        [1.0, 1.0, -1.0], old, ref, ["injector", "assessor", "assessor"]
    )
    close(lone, -0.025, 0.025)


def test_no_turns_have_no_advantages() -> None:
    for normalization in ("global", "per_role", "per_mode", "running"):
        assert ReinforcePlusPlus(0.1, "k1", normalization, kl_target=0.1).advantages([], [], [], [], []) == []


def test_the_share_of_groups_without_variance_by_hand() -> None:
    roles = ["injector", "injector", "assessor", "assessor", "assessor"]
    modes = ["error", "benign", "error", "benign", "benign"]
    assert variance_metrics([1.0, -1.0, 1.0, -1.0, 1.0], [3, 3, 1, 5, 5], roles, modes) == {
        "no_variance_injector": 0.0,
        "no_variance_assessor": 0.0,
        "no_variance_share": 3 / 4,  # both modes of the Injector, and the Assessor in error mode
    }
    assert variance_metrics([1.0, 1.0], [2, 2], ["assessor"] * 2, ["error", "benign"]) == {
        "no_variance_assessor": 1.0,
        "no_variance_share": 1.0,
    }
    assert variance_metrics([], [], [], []) == {}


@pytest.mark.parametrize(
    ("errors", "benign", "weights"), [(30, 2, (32 / 60, 3.0)), (10, 2, (0.6, 3.0)), (6, 6, (1, 1))]
)
def test_a_modes_weight_is_bounded_by_hand(errors: int, benign: int, weights: tuple[float, float]) -> None:
    """Half of each mode won: returns less their mean are +-1, the role's std 1, so |A| is the weight."""
    modes = ["error"] * errors + ["benign"] * benign
    rewards = [(-1.0) ** i for i in range(errors + benign)]
    old = [tensor(-1)] * len(modes)
    rows = ReinforcePlusPlus(0.0, "k1", "per_mode").advantages(rewards, old, None, ["assessor"] * len(modes), modes)
    assert [rows[0].abs().item(), rows[-1].abs().item()] == pytest.approx(list(weights), rel=1e-6)
