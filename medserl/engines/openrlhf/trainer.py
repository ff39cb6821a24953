"""MedSeRL on OpenRLHF's trainer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite, sqrt
from statistics import fmean
from typing import Any

from openrlhf.trainer.ppo_trainer import BasePPOTrainer
from openrlhf.trainer.ppo_utils.experience import Experience
from openrlhf.trainer.ray.launcher import RayActorGroup

from medserl.engines.base import UpdateStats, WeightedTurn, split_by_note
from medserl.engines.gap import explained_gap
from medserl.engines.openrlhf.cluster import Cluster
from medserl.engines.openrlhf.experiences import (
    completion_values,
    length,
    to_experience,
    to_training_experience,
    together,
)
from medserl.engines.openrlhf.plan import PassPlan, plan_passes
from medserl.errors import RunError
from medserl.game.episode import Turn


class RoundTrainer(BasePPOTrainer):
    """OpenRLHF's `BasePPOTrainer` with the turns of MedSeRL's games as experiences.

    What OpenRLHF makes of prompts and a reward model comes ready from the game: turns with their own rewards and
    advantages. Scoring, the update and the sync of whole weights are OpenRLHF's; an adapter is
    handed over by `StepTrainer`. The rounds around them are those of every
    engine (`medserl.trainer.MedSeRLTrainer`), so `fit` is not implemented here.
    """

    def __init__(self, strategy: Any, cluster: Cluster, tokenizer: Any) -> None:
        super().__init__(strategy, cluster.policy, None, None, cluster.reference, cluster.engines, tokenizer)
        self._watch = cluster.watch
        self._settings = strategy.args.medserl

    # -- scoring ------------------------------------------------------------------------------------------------

    def score(self, turns: Sequence[Turn], *, reference: bool) -> list[tuple[float, ...]]:
        """Log-probability of every completion token of each turn, under the policy or the reference."""
        group, method = self.actor_model_group, "forward"
        if reference:
            # with an adapter, the policy's own actors hold the reference too
            group, method = (
                (self.reference_model_group, "forward") if self.reference_model_group else (group, "reference_forward")
            )
        plan = self._plan(turns, group)
        passes = self._passes(plan, [to_experience(turn) for turn in turns])
        references = group.async_run_method_batch(
            method,
            sequences=[each.sequences for each in passes],
            action_mask=[each.action_mask for each in passes],
            attention_mask=[each.attention_mask for each in passes],
        )
        ranks = self._watch.results(references, "scoring turns")
        scores: list[tuple[float, ...]] = [()] * len(turns)
        for members, rows in zip(plan.passes, (rows for rank in ranks for rows in rank), strict=True):
            for i, values in zip(members, completion_values(rows, [turns[i] for i in members]), strict=True):
                scores[i] = values
        return scores

    # -- update -------------------------------------------------------------------------------------------------

    def update(self, turns: Sequence[WeightedTurn], learning_rate: float) -> UpdateStats:
        """One optimizer step for each mini-batch of the turns.

        Raises:
            RunError: the loss or the gradient is not finite, or DeepSpeed made another step than was planned.
        """
        group = self.actor_model_group
        self._watch.results(group.async_run_method("set_learning_rate", learning_rate), "the update")
        done, sft_logprobs = [], []
        for step, mini_batch in enumerate(split_by_note(turns, self._settings.mini_batches)):
            scored, logprobs = self._examples_scored(mini_batch)
            status, _ = self.train_step(scored, step)
            done.append(status)
            sft_logprobs += logprobs
        return replace(
            _stats(done),
            # with async_rollout vLLM rightly plays with the weights of the round before
            gap_explained=None if self._settings.async_rollout else explained_gap("bfloat16", another_program=True),
            sft_loss=-fmean(sft_logprobs) if sft_logprobs else None,
        )

    def _examples_scored(self, turns: Sequence[WeightedTurn]) -> tuple[list[WeightedTurn], list[float]]:
        """The turns with the policy's own log-probabilities for the supervised ones among them, and these in a row.

        OpenRLHF wants them of every turn: so the ratio is 1, and a KL in the loss has no say.
        """
        examples = [turn for turn in turns if turn.old_logprobs is None]
        scores = self.score([each.turn for each in examples], reference=False) if examples else []
        rows = iter(scores)
        scored = [turn if turn.old_logprobs is not None else self._as_sampled(turn, next(rows)) for turn in turns]
        return scored, [logprob for row in scores for logprob in row]

    def _as_sampled(self, example: WeightedTurn, logprobs: tuple[float, ...]) -> WeightedTurn:
        turn = replace(example.turn, completion=replace(example.turn.completion, logprobs=logprobs))
        reference = logprobs if self._settings.kl_coef else None
        return replace(example, turn=turn, old_logprobs=logprobs, ref_logprobs=reference)

    def train_step(self, rollout_samples: Sequence[WeightedTurn], global_step: int) -> tuple[dict[str, float], int]:
        """One optimizer step on these turns, and the number of the next. The weights are sent to vLLM elsewhere."""
        turns = rollout_samples
        plan = self._plan([turn.turn for turn in turns], self.actor_model_group)
        passes = self._passes(plan, [to_training_experience(turn) for turn in turns])
        appended = self.actor_model_group.async_run_method_batch("append", experience=passes)
        self._watch.results(appended, "the update")
        status = self.ppo_train(global_step)
        planned = plan.copies * sum(len(turn.advantages) for turn in turns)
        if status["tokens"] != planned or status["optimizer_steps"] != 1:
            raise RunError(
                f"an update of {planned} completion tokens ended with {status['tokens']:.0f} tokens trained in "
                f"{status['optimizer_steps']:.0f} optimizer steps: OpenRLHF or DeepSpeed left some out"
            )
        if not isfinite(status["grad_norm"]):
            raise RunError("the gradient is not finite; try a lower learning_rate")
        return status | {"copies": plan.copies}, global_step + 1

    def ppo_train(self, global_steps: int) -> dict[str, float]:
        return self._watch.guard(lambda: super(RoundTrainer, self).ppo_train(global_steps), "the update")

    def broadcast_to_vllm(self) -> None:
        self._watch.guard(super().broadcast_to_vllm, "sending weights to vLLM")

    # -- passes -------------------------------------------------------------------------------------------------

    def _plan(self, turns: Sequence[Turn], group: RayActorGroup) -> PassPlan:
        ranks = len(group._actor_handlers) // group.duplicate_actors
        return plan_passes([length(turn) for turn in turns], ranks, self._settings.training_token_budget)

    def _passes(self, plan: PassPlan, experiences: Sequence[Experience]) -> list[Experience]:
        pad_id = self.tokenizer.pad_token_id or 0
        return [together([experiences[i] for i in members], pad_id) for members in plan.passes]


def _stats(steps: Sequence[dict[str, float]]) -> UpdateStats:
    """Means over steps or tokens; the gap is that of the first step, made with the weights that played."""
    first = steps[0]
    tokens = sum(step["tokens"] for step in steps)
    return UpdateStats(
        loss=fmean([step["loss"] for step in steps]),
        grad_norm=fmean([step["grad_norm"] for step in steps]),
        clip_fraction=sum(step["clipped"] for step in steps) / tokens,
        entropy=sum(step["entropy"] * step["tokens"] for step in steps) / tokens,
        logprob_gap=first["gap"] / first["tokens"],
        logprob_gap_rms=sqrt(first["gap_squares"] / first["tokens"]),
        logprob_gap_max=first["gap_max"],
        vllm_kl=first["drift"] / first["tokens"],
        optimizer_steps=len(steps),
        tokens=int(sum(step["tokens"] / step["copies"] for step in steps)),
    )
