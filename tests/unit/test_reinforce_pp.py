"""REINFORCE++ against numbers worked out by hand, and against its formulas written again, over padding."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from medserl.engines.base import Sampling
from medserl.engines.decoding import at_temperature, choose
from medserl.reinforce_pp import (
    ReinforcePlusPlus,
    clipped_loss,
    kl_estimate,
    token_returns,
    whiten,
    whiten_per_mode,
)
from tests.tensors import LOGPROBS, close, tensor

# -- by hand -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        ("k1", (0.0, 1.0, -2.0)),
        ("k3", (0.0, math.exp(-1) - 1 + 1, math.exp(2) - 1 - 2)),
    ],
)
def test_kl_by_hand(estimator: str, expected: tuple[float, ...]) -> None:
    close(kl_estimate(tensor(-1, -1, -3), tensor(-1, -2, -1), estimator), *expected)


@pytest.mark.parametrize(("estimator", "expected"), [("k1", (10, -10)), ("k3", (10, 10))])
def test_kl_is_clamped(estimator: str, expected: tuple[float, ...]) -> None:
    close(kl_estimate(tensor(-1, -80), tensor(-80, -1), estimator), *expected)


def test_returns_by_hand() -> None:
    # rewards: -0.1*0.5, -0.1*-1, 1 - 0.1*2; returns from the end: 0.8, 0.8 + 0.1, 0.9 - 0.05
    close(token_returns(1.0, tensor(0.5, -1.0, 2.0), kl_coef=0.1), 0.85, 0.9, 0.8)
    close(token_returns(-1.0, tensor(0.0, 0.0), kl_coef=0.1), -1.0, -1.0)
    close(token_returns(1.0, tensor(3.0), kl_coef=0.01), 0.97)


def test_returns_leave_the_kl_as_it_was() -> None:
    kl = tensor(1.0, 2.0)
    token_returns(1.0, kl, 0.1)
    close(kl, 1.0, 2.0)


def test_global_whitening_by_hand() -> None:
    # tokens 1 1 4: mean 2, population variance 2
    first, second = whiten([tensor(1, 1), tensor(4)])
    close(first, -1 / math.sqrt(2), -1 / math.sqrt(2))
    close(second, math.sqrt(2))


def test_whitening_per_role_by_hand() -> None:
    advantages = whiten([tensor(0, 2), tensor(10), tensor(30), tensor(5)], ["a", "b", "b", "c"])
    for got, expected in zip(advantages, [(-1, 1), (-1,), (1,), (0,)], strict=True):
        close(got, *expected)


def test_equal_returns_give_no_advantage() -> None:
    assert all((row == 0).all() for row in whiten([tensor(1, 1), tensor(1)]))


def test_clipped_loss_by_hand() -> None:
    old = tensor(0, 0, 0, 0, 0).sub(2)
    new = old + tensor(1.5, 1.5, 0.5, 0.5, 1.1).log()
    advantages = tensor(1, -1, 1, -1, 2)
    losses, clipped = clipped_loss(new, old, advantages, clip_range=0.2)
    close(losses, -1.2, 1.5, -0.5, 0.8, -2.2)
    assert clipped.tolist() == [True, False, False, True, False]


# -- gradients ---------------------------------------------------------------------------------------------


def gradient(new: Tensor, old: Tensor, advantages: Tensor) -> list[float]:
    new = new.clone().requires_grad_()
    clipped_loss(new, old, advantages)[0].sum().backward()
    return new.grad.tolist()


def test_gradient_direction() -> None:
    """Descent makes good tokens likelier, bad ones less likely; on-policy it is the plain policy gradient."""
    old, advantages = tensor(-1, -2, -3), tensor(1, -0.5, 0)
    assert gradient(old, old, advantages) == pytest.approx([-1.0, 0.5, 0.0])


def test_no_gradient_beyond_the_clip() -> None:
    old = tensor(-2, -2, -2, -2)
    new = old + tensor(1.5, 0.5, 1.5, 0.5).log()
    got = gradient(new, old, tensor(1, -1, -1, 1))
    assert got == pytest.approx([0.0, 0.0, 1.5, -0.5])  # clipped, clipped; back towards the old policy: never


# -- facts of any batch ------------------------------------------------------------------------------------

TURNS = st.lists(
    st.tuples(
        st.sampled_from(["injector", "assessor"]),
        st.sampled_from([1.0, -1.0]),
        st.lists(st.tuples(LOGPROBS, LOGPROBS, LOGPROBS), min_size=1, max_size=6),  # new, old, reference
    ),
    min_size=1,
    max_size=6,
)
Turns = Sequence[tuple[str, float, Sequence[tuple[float, float, float]]]]


def columns(turns: Turns) -> tuple[list[str], list[float], list[Tensor], list[Tensor], list[Tensor]]:
    roles, rewards = [turn[0] for turn in turns], [turn[1] for turn in turns]
    new, old, ref = ([tensor(*(token[k] for token in turn[2])) for turn in turns] for k in range(3))
    return roles, rewards, new, old, ref


@given(TURNS, st.sampled_from(["global", "per_role"]))
def test_advantages_have_mean_0_and_population_std_1(turns: Turns, normalization: str) -> None:
    roles, rewards, _, old, ref = columns(turns)
    advantages = ReinforcePlusPlus(0.05, "k1", normalization).advantages(rewards, old, ref, roles)
    assert [len(row) for row in advantages] == [len(row) for row in old]
    returns = [token_returns(r, kl_estimate(o, f), 0.05) for r, o, f in zip(rewards, old, ref, strict=True)]
    for group in set(roles) if normalization == "per_role" else {None}:
        members = [i for i, role in enumerate(roles) if group in (None, role)]
        tokens = torch.cat([advantages[i] for i in members])
        std = torch.cat([returns[i] for i in members]).std(correction=0).item()
        assert abs(tokens.mean().item()) < 1e-6
        unvaried = len({rewards[i] for i in members}) == 1
        expected = std if unvaried else std / max(std, 0.1)  # 1 where there is anything to learn
        assert tokens.square().mean().sqrt().item() == pytest.approx(expected, abs=1e-6)


@given(TURNS)
def test_without_a_kl_reward_the_returns_are_the_rewards(turns: Turns) -> None:
    roles, rewards, _, old, ref = columns(turns)
    plain = ReinforcePlusPlus(0.0).advantages(rewards, old, ref, roles)
    for other in (
        ReinforcePlusPlus(0.5).advantages(rewards, old, None, roles),
        ReinforcePlusPlus(0.5, "k3").advantages(rewards, old, ref, roles),
    ):
        for got, expected in zip(other, plain, strict=True):
            torch.testing.assert_close(got, expected)
            assert len(set(got.tolist())) == 1


@given(TURNS, st.integers(1, 4))
def test_whole_batch_loss_is_the_sum_over_micro_batches(turns: Turns, size: int) -> None:
    """Each micro-batch is divided by the token count of the whole batch, so losses and gradients add up."""
    roles, rewards, new, old, ref = columns(turns)
    advantages = ReinforcePlusPlus().advantages(rewards, old, ref, roles)
    n_tokens = sum(map(len, new))
    parameter = torch.zeros((), dtype=torch.float64, requires_grad=True)

    def loss(members: range) -> Tensor:
        rows = [clipped_loss(new[i] + parameter, old[i], advantages[i])[0] for i in members]
        return torch.cat(rows).sum() / n_tokens

    whole = loss(range(len(turns)))
    (whole_gradient,) = torch.autograd.grad(whole, parameter)
    parts = [loss(range(i, min(i + size, len(turns)))) for i in range(0, len(turns), size)]
    total = torch.stack(parts).sum()
    (summed_gradient,) = torch.autograd.grad(total, parameter)
    torch.testing.assert_close(total, whole)
    torch.testing.assert_close(summed_gradient, whole_gradient)


# -- the same formulas as OpenRLHF defines them: padded rows, a mask, plain loops --------------------------


class PaddedReference:
    """KL reward at every action, the score at the last, reversed cumulative sums, masked whitening, PPO."""

    def __init__(self, turns: Turns, kl_coef: float) -> None:
        width = max(len(turn[2]) for turn in turns)
        self.mask = [[1.0] * len(turn[2]) + [0.0] * (width - len(turn[2])) for turn in turns]
        filler = [(-5.0, -7.0, -3.0)]  # what stands in the padding must not matter
        self.tokens = [list(turn[2]) + filler * (width - len(turn[2])) for turn in turns]
        self.scores = [turn[1] for turn in turns]
        self.kl_coef = kl_coef

    def returns(self) -> list[list[float]]:
        table = []
        for row, mask, score in zip(self.tokens, self.mask, self.scores, strict=True):
            last = max(t for t, inside in enumerate(mask) if inside)
            kl = [min(10.0, max(-10.0, old - ref)) for _, old, ref in row]
            rewards = [(score if t == last else 0.0) - self.kl_coef * kl[t] for t in range(len(row))]
            masked = [reward * inside for reward, inside in zip(rewards, mask, strict=True)]
            table.append([sum(masked[t:]) for t in range(len(row))])
        return table

    def advantages(self) -> list[list[float]]:
        table = self.returns()
        rows = zip(table, self.mask, strict=True)
        inside = [g for row, mask in rows for g, m in zip(row, mask, strict=True) if m]
        mean = math.fsum(inside) / len(inside)
        variance = math.fsum((g - mean) ** 2 for g in inside) / len(inside)
        scale = 1 / math.sqrt(variance) if len(set(self.scores)) > 1 else 1.0
        return [[(g - mean) * scale for g in row] for row in table]

    def loss(self, clip: float) -> float:
        total = 0.0
        for row, mask, advantages in zip(self.tokens, self.mask, self.advantages(), strict=True):
            for (new, old, _), inside, advantage in zip(row, mask, advantages, strict=True):
                ratio = math.exp(new - old)
                total -= inside * min(ratio * advantage, min(max(ratio, 1 - clip), 1 + clip) * advantage)
        return total / sum(map(sum, self.mask))


@given(TURNS, st.sampled_from([0.0, 0.01, 0.3]))
def test_advantages_equal_the_padded_reference(turns: Turns, kl_coef: float) -> None:
    roles, rewards, _, old, ref = columns(turns)
    advantages = ReinforcePlusPlus(kl_coef).advantages(rewards, old, ref, roles)
    for got, expected in zip(advantages, PaddedReference(turns, kl_coef).advantages(), strict=True):
        assert got.tolist() == pytest.approx(expected[: len(got)], rel=1e-6, abs=1e-6)


@given(TURNS, st.sampled_from([0.1, 0.2]))
def test_loss_equals_the_padded_reference(turns: Turns, clip: float) -> None:
    roles, rewards, new, old, ref = columns(turns)
    advantages = ReinforcePlusPlus(0.01).advantages(rewards, old, ref, roles)
    losses = [clipped_loss(*row, clip)[0] for row in zip(new, old, advantages, strict=True)]
    expected = PaddedReference(turns, 0.01).loss(clip)
    assert torch.cat(losses).mean().item() == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_opposite_scales_share_a_baseline_globally_and_not_per_role() -> None:
    """Why `per_role` exists: an Assessor that always wins learns nothing, but globally it is pushed on."""
    roles, rewards = ["assessor", "assessor", "injector", "injector"], [1.0, 1.0, -1.0, -1.0]
    old = [tensor(-1, -1)] * 4
    pooled = ReinforcePlusPlus(0.0).advantages(rewards, old, None, roles)
    apart = ReinforcePlusPlus(0.0, normalization="per_role").advantages(rewards, old, None, roles)
    assert [row[0].item() for row in pooled] == [1.0, 1.0, -1.0, -1.0]
    assert [row[0].item() for row in apart] == [0.0, 0.0, 0.0, 0.0]


# -- per mode ----------------------------------------------------------------------------------------------


def test_whitening_per_mode_by_hand() -> None:
    returns = [tensor(1, 1), tensor(-1), tensor(1), tensor(3)]
    advantages = whiten_per_mode(returns, ["assessor"] * 4, ["error", "error", "error", "benign"])
    # the role: 1 1 -1 1 3, mean 1, variance 8/5; error 1 1 -1 1, mean 1/2, weight 5/8; benign 3, weight 5/2
    scale = math.sqrt(5 / 8)
    for got, expected in zip(advantages, [(0.5, 0.5), (-1.5,), (0.5,), (0,)], strict=True):
        close(got, *(value * scale * 5 / 8 for value in expected))


@given(TURNS)
def test_both_modes_of_a_role_weigh_alike_up_to_the_bound(turns: Turns) -> None:
    """The tokens of each role and mode sum to 0, and the weights that they carry to the same number of tokens."""
    roles, rewards, _, old, ref = columns(turns)
    modes = ["error" if i % 3 else "benign" for i in range(len(turns))]
    algorithm = ReinforcePlusPlus(0.05, "k1", "per_mode")
    advantages = algorithm.advantages(rewards, old, ref, roles, modes)
    returns = [token_returns(r, kl_estimate(o, f), 0.05) for r, o, f in zip(rewards, old, ref, strict=True)]
    for role in set(roles):
        mine = [i for i, name in enumerate(roles) if name == role]
        tokens = torch.cat([returns[i] for i in mine])
        std = tokens.std(correction=0).item() if len({rewards[i] for i in mine}) > 1 else 1.0
        for mode in {modes[i] for i in mine}:
            members = [i for i in mine if modes[i] == mode]
            group = torch.cat([returns[i] for i in members])
            weighed = torch.cat([advantages[i] for i in members])
            assert weighed.sum().item() == pytest.approx(0, abs=1e-6 * max(1, len(tokens)))
            alike = len(tokens) / len({modes[i] for i in mine})  # tokens that each mode stands for
            expected = (group - group.mean()) / std * min(3, alike / len(group))
            torch.testing.assert_close(weighed, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("errors", [1, 3, 5])
def test_a_verdict_blind_to_the_mode_earns_nothing_however_many_notes_of_a_mode_there_are(errors: int) -> None:
    """Why `per_mode` exists: with one baseline the verdict of the commoner mode is pushed on."""
    modes = ["error"] * 2 * errors + ["benign"] * 2 * (6 - errors)
    flagged = [i % 2 == 0 for i in range(12)]  # half of the notes of either mode
    rewards = [1.0 if flag == (mode == "error") else -1.0 for flag, mode in zip(flagged, modes, strict=True)]
    old = [tensor(-1)] * 12

    def gain(normalization: str) -> float:
        algorithm = ReinforcePlusPlus(0.0, "k1", normalization)
        rows = algorithm.advantages(rewards, old, None, ["assessor"] * 12, modes)
        return sum(row.item() for row, flag in zip(rows, flagged, strict=True) if flag)

    assert gain("per_mode") == pytest.approx(0, abs=1e-9)
    assert gain("per_role") * (errors - 3) > 0 or errors == 3


def test_games_of_a_mode_that_all_ended_alike_do_not_have_their_kl_blown_up() -> None:
    old = [tensor(-1.0, -1.0)] * 4
    ref = [tensor(-1.001, -1.0), tensor(-0.999, -1.0), tensor(-1.0, -1.0), tensor(-1.0, -1.0)]
    algorithm = ReinforcePlusPlus(0.01, "k1", "per_mode")
    modes = ["error", "error", "benign", "benign"]
    rows = algorithm.advantages([1.0, 1.0, -1.0, -1.0], old, ref, ["assessor"] * 4, modes)
    assert max(row.abs().max().item() for row in rows) < 1e-4


def test_k3_has_a_gradient_however_far_the_reference_is() -> None:
    """exp of 200 overflows in float32: times the 0 of the clamp it would be no number."""
    logprobs = torch.tensor([-201.0, -1.0], requires_grad=True)
    kl_estimate(logprobs, torch.tensor([-1.0, -1.5]), "k3").sum().backward()
    torch.testing.assert_close(logprobs.grad, torch.tensor([0.0, 1 - math.exp(-0.5)]))


# -- a sampling temperature --------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5])
def test_the_expected_update_is_the_gradient_of_what_is_sampled(temperature: float) -> None:
    """Four actions, all of them weighed by how often they are drawn: the mean update is that of the expected reward."""
    logits = torch.tensor([1.0, -0.5, 0.3, 0.0], dtype=torch.float64, requires_grad=True)
    rewards = torch.tensor([1.0, -1.0, 0.5, -0.2], dtype=torch.float64)
    policy = (logits / temperature).softmax(-1)
    (expected,) = torch.autograd.grad((policy * rewards).sum(), logits)

    drawn = policy.detach()
    within = drawn.cumsum(-1) - drawn / 2  # a uniform number that draws each action
    sampling = Sampling(1, temperature)
    actions, old = choose(logits.detach().expand(4, -1), sampling, within)
    assert actions.tolist() == [0, 1, 2, 3]
    new = at_temperature(logits, temperature).log_softmax(-1)
    losses, _ = clipped_loss(new, old, rewards)
    (update,) = torch.autograd.grad((drawn * losses).sum(), logits)
    torch.testing.assert_close(-update, expected, rtol=1e-6, atol=1e-9)
