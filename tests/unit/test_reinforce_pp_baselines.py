"""REINFORCE++'s baselines by text and steered KL coefficient, against numbers worked out by hand."""

from __future__ import annotations

import json
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medserl.config import Normalization
from medserl.reinforce_pp import CREDIT_SCHEMES, ReinforcePlusPlus
from tests.tensors import LOGPROBS, close, tensor

TURN = st.tuples(
    st.sampled_from(["injector", "assessor"]),
    st.sampled_from([1.0, -1.0]),
    st.lists(st.tuples(LOGPROBS, LOGPROBS), min_size=1, max_size=6),  # sampled, reference
)


@given(st.lists(TURN, min_size=1, max_size=6))
def test_the_state_goes_through_json_and_is_restored(turns: list[tuple[str, float, list[tuple[float, float]]]]) -> None:
    roles, rewards = [turn[0] for turn in turns], [turn[1] for turn in turns]
    old, ref = ([tensor(*(token[k] for token in turn[2])) for turn in turns] for k in range(2))
    algorithm, resumed = (ReinforcePlusPlus(0.1, "k1", "per_role", kl_target=0.05) for _ in range(2))
    for _ in range(2):
        algorithm.advantages(rewards, old, ref, roles)
    resumed.load_state_dict(json.loads(json.dumps(algorithm.state_dict())))
    assert resumed == algorithm
    further = [each.advantages(rewards[::-1], old[::-1], ref[::-1], roles[::-1]) for each in (algorithm, resumed)]
    assert all(torch.equal(*pair) for pair in zip(*further, strict=True))
    assert resumed.metrics() == algorithm.metrics()


# -- baselines by text -------------------------------------------------------------------------------------


def test_per_text_by_hand() -> None:
    """An error's text is read three times, the other once, which the mean of its mode then serves; no KL."""
    rewards, modes = [1.0, 1.0, -1.0, 1.0, -1.0, 1.0], ["error"] * 4 + ["benign"] * 2
    texts, roles = ["a", "a", "a", "b", "c", "c"], ["assessor"] * 6
    old = [tensor(-1, -1)] * 6
    found = ReinforcePlusPlus(0.0, normalization="per_text").advantages(rewards, old, None, roles, modes, texts)
    std = (8 / 9) ** 0.5  # four of six are right: 1 - (1/3) ** 2
    error, benign = 6 / (2 * 4), 6 / (2 * 2)  # the weights of the modes, as per_mode has them
    expected = [error * 2 / 3, error * 2 / 3, error * -4 / 3, error * 0.5, -benign, benign]
    for got, value in zip(found, expected, strict=True):
        close(got, value / std, value / std)


def test_per_text_is_per_mode_where_every_text_is_read_once() -> None:
    rewards, modes, roles = [1.0, -1.0, 1.0], ["error", "error", "benign"], ["assessor"] * 3
    old = [tensor(-1), tensor(-2, -1), tensor(-1)]
    by_text = ReinforcePlusPlus(0.0, normalization="per_text").advantages(rewards, old, None, roles, modes, list("abc"))
    by_mode = ReinforcePlusPlus(0.0, normalization="per_mode").advantages(rewards, old, None, roles, modes)
    assert all(torch.equal(*pair) for pair in zip(by_text, by_mode, strict=True))


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


def test_every_value_of_the_setting_is_a_credit_scheme() -> None:
    assert set(CREDIT_SCHEMES) == set(get_args(Normalization))
