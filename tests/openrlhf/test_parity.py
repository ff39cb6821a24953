"""The same episodes give the same numbers here and in OpenRLHF's own functions."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from openrlhf.models.loss import PolicyLoss
from openrlhf.models.utils import compute_approx_kl
from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker
from openrlhf.trainer.ppo_utils.kl_controller import FixedKLController

from medserl.config import Settings
from medserl.engines.base import WeightedTurn
from medserl.engines.openrlhf.arguments import openrlhf_arguments
from medserl.engines.openrlhf.experiences import completion_values, to_training_experience, together
from medserl.game.episode import Completion, Turn
from medserl.game.roles import ROLES
from medserl.reinforce_pp import ReinforcePlusPlus, clipped_loss, kl_estimate

KL_COEF = 0.05


def episodes() -> list[WeightedTurn]:
    """Turns of both roles, of all lengths, with rewards of the game and one reference far enough off to be clamped."""
    rng = random.Random(3)
    turns = []
    for i, length in enumerate((1, 7, 30, 2, 55, 11, 4, 19)):
        old = tuple(-rng.expovariate(1.0) for _ in range(length))
        ref = tuple(value + rng.gauss(0, 12 if i == 2 else 0.3) for value in old)
        completion = Completion("", tuple(range(3 + i)), tuple(range(length)), old, "stop")
        turn = Turn(ROLES[i % 2], (), completion)
        turns.append(WeightedTurn(turn, old, (0.0,) * length, f"n{i}", ref, reward=1.0 if i % 3 else -1.0))
    return turns


def ours(turns: Sequence[WeightedTurn], normalization: str) -> list[torch.Tensor]:
    return ReinforcePlusPlus(KL_COEF, "k1", normalization).advantages(  # type: ignore[arg-type]
        [turn.reward for turn in turns],
        [torch.tensor(turn.old_logprobs) for turn in turns],
        [torch.tensor(turn.ref_logprobs) for turn in turns],
        [turn.turn.role for turn in turns],
    )


def theirs(turns: Sequence[WeightedTurn]) -> list[torch.Tensor]:
    """By OpenRLHF's experience maker, from our experiences, three turns a batch."""
    maker = object.__new__(RemoteExperienceMaker)  # its constructor wants actors, and these methods use none
    maker.args = openrlhf_arguments(Settings(kl_coef=KL_COEF), "model")
    maker.strategy = type("Strategy", (), {"args": maker.args})
    maker.advantage_estimator = maker.args.algo.advantage.estimator
    maker.kl_ctl = FixedKLController(maker.args.algo.kl.init_coef)
    batches = []
    for start in range(0, len(turns), 3):
        batch = together([to_training_experience(turn) for turn in turns[start : start + 3]], 0)
        batch.index = list(range(start, start + len(batch.sequences)))
        batch.kl = compute_approx_kl(batch.action_log_probs, batch.base_action_log_probs, kl_estimator="k1")
        batches.append(batch)
    done = maker.compute_advantages_and_returns(batches)
    found: list[torch.Tensor] = []
    for start, batch in zip(range(0, len(turns), 3), done, strict=True):
        members = [turn.turn for turn in turns[start : start + 3]]
        found += [torch.tensor(values) for values in completion_values(batch.advantages, members)]
    return found


def test_advantages_over_all_turns() -> None:
    turns = episodes()
    for mine, other in zip(ours(turns, "global"), theirs(turns), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


def test_advantages_by_role_are_openrlhfs_on_each_role_alone() -> None:
    turns = episodes()
    mine = ours(turns, "per_role")
    for role in ROLES:
        members = [i for i, turn in enumerate(turns) if turn.turn.role == role]
        for i, other in zip(members, theirs([turns[i] for i in members]), strict=True):
            torch.testing.assert_close(mine[i], other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_kl_estimates(estimator: str) -> None:
    generator = torch.Generator().manual_seed(0)
    logprobs, reference = (5 * torch.randn(200, generator=generator) for _ in range(2))
    mine = kl_estimate(logprobs, reference, estimator)  # type: ignore[arg-type]
    torch.testing.assert_close(mine, compute_approx_kl(logprobs, reference, kl_estimator=estimator))


def test_the_loss_of_a_step_does_not_depend_on_its_passes() -> None:
    """Our token mean over all turns equals OpenRLHF's passes, each over the tokens of the step, added up."""
    turns = episodes()
    generator = torch.Generator().manual_seed(1)
    new = [torch.tensor(t.old_logprobs) + 0.3 * torch.randn(len(t.old_logprobs), generator=generator) for t in turns]
    advantages = [torch.randn(len(row), generator=generator) for row in new]
    losses = [
        clipped_loss(row, torch.tensor(turn.old_logprobs), advantage)[0]
        for row, turn, advantage in zip(new, turns, advantages, strict=True)
    ]
    tokens = sum(len(row) for row in new)
    total = torch.zeros(())
    for members in ((0, 4, 2), (1,), (3, 5, 6, 7)):
        batch = together([to_training_experience(turns[i]) for i in members], 0)
        width = batch.action_mask.shape[1]
        rows, weights = torch.zeros(len(members), width), torch.zeros(len(members), width)
        for row, i in enumerate(members):
            rows[row][batch.action_mask[row]] = new[i]
            weights[row][batch.action_mask[row]] = advantages[i]
        total += PolicyLoss()(
            rows, batch.action_log_probs, weights, action_mask=batch.action_mask, batch_num_tokens=float(tokens)
        )[0]
    torch.testing.assert_close(total, torch.cat(losses).sum() / tokens)
