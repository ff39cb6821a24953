"""The same episodes give the same numbers here and in OpenRLHF's own functions."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from openrlhf.models import Actor
from openrlhf.models.loss import PolicyLoss
from openrlhf.models.utils import compute_approx_kl
from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker
from openrlhf.trainer.ppo_utils.kl_controller import FixedKLController
from openrlhf.trainer.ray import ppo_actor

from medserl.config import Settings
from medserl.engines.base import WeightedTurn
from medserl.engines.local import LocalEngine
from medserl.engines.openrlhf.arguments import openrlhf_arguments
from medserl.engines.openrlhf.experiences import completion_values, length, to_training_experience, together
from medserl.engines.openrlhf.plan import plan_passes
from medserl.engines.openrlhf.training import StepTrainer
from medserl.game.episode import Completion, Turn
from medserl.game.roles import ROLES
from medserl.models import load_model
from medserl.reinforce_pp import ReinforcePlusPlus, clipped_loss, kl_estimate

KL_COEF = 0.05


def episodes() -> list[WeightedTurn]:
    """Turns of both roles, of all lengths, with rewards of the game and one reference far enough off to be clamped."""
    rng = random.Random(3)
    turns = []
    for i, tokens in enumerate((1, 7, 30, 2, 55, 11, 4, 19)):
        old = tuple(-rng.expovariate(1.0) for _ in range(tokens))
        ref = tuple(value + rng.gauss(0, 12 if i == 2 else 0.3) for value in old)
        completion = Completion("", tuple(range(3 + i)), tuple(range(tokens)), old, "stop")
        turn = Turn(ROLES[i % 2], (), completion)
        turns.append(WeightedTurn(turn, old, (0.0,) * tokens, f"n{i}", ref, reward=1.0 if i % 3 else -1.0))
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


@pytest.mark.parametrize("estimator", ["k1", "k3"])
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


# -- a whole update -----------------------------------------------------------------------------------------


class OneRank:
    """What OpenRLHF's trainer asks of DeepSpeed, on one rank and in float32."""

    world_size, ring_attn_group = 1, None

    def __init__(self, args: Any) -> None:
        self.args = args
        self.grad_norm = 0.0

    def is_rank_0(self) -> bool:
        return True

    def all_reduce(self, data: Any, _op: str = "mean") -> Any:
        return data

    def backward(self, loss: torch.Tensor, *_: Any) -> None:
        loss.backward()

    def optimizer_step(self, _optimizer: Any, actor: Actor, *_: Any, **__: Any) -> None:
        self.grad_norm = torch.nn.utils.clip_grad_norm_(actor.parameters(), self.args.actor.max_norm).item()

    def get_grad_norm(self, _model: Any) -> float:
        return self.grad_norm


def turns_of(model: Any) -> list[WeightedTurn]:
    """Turns that the model might have sampled a few updates ago, with a reference further off."""
    rng = random.Random(4)
    turns = []
    for i, (prompt, completion) in enumerate(((20, 1), (9, 30), (60, 12), (3, 5), (40, 40))):
        ids = [rng.randrange(3, model.config.vocab_size) for _ in range(prompt + completion)]
        with torch.no_grad():
            at_each = model(torch.tensor([ids])).logits[0, prompt - 1 : -1].log_softmax(-1)
        now = [row[token].item() for row, token in zip(at_each, ids[prompt:], strict=True)]
        old = tuple(value + rng.gauss(0, 0.2) for value in now)
        said = Completion("", tuple(ids[:prompt]), tuple(ids[prompt:]), old, "stop")
        advantages, ref = (tuple(rng.gauss(0, 1) for _ in now), tuple(value + rng.gauss(0, 1) for value in now))
        turns.append(WeightedTurn(Turn(ROLES[i % 2], (), said), old, advantages, f"n{i}", ref, reward=1.0))
    return turns


@pytest.mark.parametrize(("estimator", "temperature"), [("k1", 1.0), ("k3", 1.0), ("k1", 0.7), ("k3", 1.4)])
def test_an_update_has_the_loss_and_gradient_of_the_local_engine(
    estimator: str, temperature: float, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(
        model=str(tiny_llama), adapter="none", lora_rank=0, dtype="float32", device="cpu",
        kl_coef=0.1, kl_estimator=estimator, training_token_budget=256, temperature=temperature,
    )  # fmt: skip
    loaded = load_model(settings)
    actor = Actor(copy.deepcopy(loaded.model), temperature=openrlhf_arguments(settings, "model").rollout.temperature)
    actor.packing_samples = False  # OpenRLHF sets it only where it loads the model itself
    actor.model.set_gradient_accumulation_boundary = lambda _last: None
    turns = turns_of(loaded.model)
    stats = LocalEngine(loaded, settings).update(turns, learning_rate=1e-4)

    monkeypatch.setattr(ppo_actor, "torch_dist_barrier_and_cuda_sync", lambda: None)
    strategy = OneRank(openrlhf_arguments(settings, "model"))
    scheduler = SimpleNamespace(get_last_lr=lambda: [1e-4])
    theirs = StepTrainer(strategy, actor, None, None, scheduler, dataloader_pin_memory=False)
    plan = plan_passes([length(turn.turn) for turn in turns], 1, settings.training_token_budget)
    assert len(plan.passes) > 1
    for members in plan.passes:
        theirs.replay_buffer.append(together([to_training_experience(turns[i]) for i in members], 0))
    theirs.ppo_train(settings.kl_coef)

    measured = theirs.measured()
    assert measured["loss"] == pytest.approx(stats.loss, rel=1e-4, abs=1e-6)
    assert measured["grad_norm"] == pytest.approx(stats.grad_norm, rel=1e-4)
    assert measured["clipped"] == pytest.approx(stats.clip_fraction * stats.tokens)
    assert measured["gap"] / measured["tokens"] == pytest.approx(stats.logprob_gap, rel=1e-4)
    assert measured["entropy"] == pytest.approx(stats.entropy, rel=1e-4)
    assert measured["tokens"] == stats.tokens
    for mine, other in zip(loaded.model.parameters(), actor.model.parameters(), strict=True):
        torch.testing.assert_close(other.grad, mine.grad, rtol=1e-4, atol=1e-6)
