"""REINFORCE++'s running baselines and steered KL coefficient, against numbers worked out by hand."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from medserl.reinforce_pp import ReinforcePlusPlus

LOGPROBS = st.floats(-12, 0, allow_nan=False)
TURN = st.tuples(
    st.sampled_from(["injector", "assessor"]),
    st.sampled_from([1.0, -1.0]),
    st.lists(st.tuples(LOGPROBS, LOGPROBS), min_size=1, max_size=6),  # sampled, reference
)


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(actual: Tensor, *expected: float) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=actual.dtype), rtol=1e-9, atol=1e-12)


# -- running baselines -------------------------------------------------------------------------------------


def test_running_means_by_hand() -> None:
    algorithm = ReinforcePlusPlus(0.0, normalization="running")
    roles, old = ["assessor", "assessor", "injector"], [tensor(-1, -1), tensor(-1), tensor(-1, -1)]
    first = algorithm.advantages([1.0, -0.5, 0.5], old, None, roles)
    # it begins at the batch's own mean: assessor 0.25, injector 0.5
    for got, expected in zip(first, [(0.75, 0.75), (-0.75,), (0.0, 0.0)], strict=True):
        close(got, *expected)
    assert algorithm.metrics() == {"kl_coef": 0.0, "running_mean_assessor": 0.25, "running_mean_injector": 0.5}
    second = algorithm.advantages([1.0, 1.0], old[:2], None, roles[:2])
    # the mean of before is taken off, then 0.95 * 0.25 + 0.05 * 1 is kept; no division by a deviation; a role that did
    # not play keeps its mean
    close(second[0], 0.75, 0.75)
    assert algorithm.running_means == {"assessor": pytest.approx(0.2875), "injector": 0.5}
    (third,) = algorithm.advantages([-1.0], old[2:], None, roles[2:])
    close(third, -1.5, -1.5)
    assert algorithm.running_means["injector"] == pytest.approx(0.425)  # 0.95 * 0.5 - 0.05


def test_a_running_mean_is_of_whole_turns_with_their_kl() -> None:
    algorithm = ReinforcePlusPlus(0.1, normalization="running")
    old, ref = [tensor(-1, -1, -1), tensor(-2)], [tensor(-1.5, 0, -3), tensor(-2)]
    # rewards 1 and -1 less 0.1 KL, summed from the end: 0.85 0.9 0.8, and -1; turns count alike whatever their length
    first, second = algorithm.advantages([1.0, -1.0], old, ref, ["injector"] * 2)
    close(first, 0.925, 0.975, 0.875)
    close(second, -0.925)
    assert algorithm.running_means == {"injector": pytest.approx(-0.075)}


@given(st.lists(TURN, min_size=1, max_size=6))
def test_the_state_goes_through_json_and_is_restored(turns: list[tuple[str, float, list[tuple[float, float]]]]) -> None:
    roles, rewards = [turn[0] for turn in turns], [turn[1] for turn in turns]
    old, ref = ([tensor(*(token[k] for token in turn[2])) for turn in turns] for k in range(2))
    algorithm, resumed = (ReinforcePlusPlus(0.1, "k1", "running", kl_target=0.05) for _ in range(2))
    for _ in range(2):
        algorithm.advantages(rewards, old, ref, roles)
    resumed.load_state_dict(json.loads(json.dumps(algorithm.state_dict())))
    assert resumed == algorithm
    further = [each.advantages(rewards[::-1], old[::-1], ref[::-1], roles[::-1]) for each in (algorithm, resumed)]
    assert all(torch.equal(*pair) for pair in zip(*further, strict=True))
    assert resumed.metrics() == algorithm.metrics()


# -- steered KL --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kl", "factor"),
    [
        (0.05, 1.0),
        (0.055, 1.01),  # a tenth above the target: 1 + 0.1 * 0.1
        (0.0475, 0.995),
        (0.5, 1.02),  # an error of 9 is clipped to 0.2
        (0.0, 0.98),
        (-1.0, 0.98),
    ],
)
def test_kl_steering_by_hand(kl: float, factor: float) -> None:
    algorithm = ReinforcePlusPlus(0.1, kl_target=0.05)
    old = [tensor(-1, -1, -1), tensor(-1)]
    ref = [tensor(-1 - 4 * kl, -1, -1), tensor(-1)]  # the mean over the 4 tokens is `kl`
    advantages = algorithm.advantages([1.0, -1.0], old, ref, ["assessor"] * 2)
    assert algorithm.kl_coef == pytest.approx(0.1 * factor, rel=1e-12)
    unsteered = ReinforcePlusPlus(0.1).advantages([1.0, -1.0], old, ref, ["assessor"] * 2)
    assert all(torch.equal(*pair) for pair in zip(advantages, unsteered, strict=True))  # it holds from the next on


def test_steering_adds_up_and_is_off_without_a_target() -> None:
    steered, constant = ReinforcePlusPlus(0.1, kl_target=0.05), ReinforcePlusPlus(0.1)
    for _ in range(3):
        for algorithm in (steered, constant):
            algorithm.advantages([1.0], [tensor(-1)], [tensor(-2)], ["assessor"])
    assert steered.metrics() == {"kl_coef": pytest.approx(0.1 * 1.02**3)}
    assert constant.metrics() == {"kl_coef": 0.1}
