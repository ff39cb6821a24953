"""Inside a policy actor: OpenRLHF's update, made to run planned passes as one optimizer step, and measured."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import ray
import torch
from openrlhf.trainer.ppo_utils.experience import Experience
from openrlhf.trainer.ppo_utils.replay_buffer import NaiveReplayBuffer
from openrlhf.trainer.ray.ppo_actor import ActorPPOTrainer
from openrlhf.utils.distributed_util import torch_dist_barrier_and_cuda_sync
from torch import Tensor

from medserl.engines.openrlhf.lora import adapter_files
from medserl.errors import RunError

Sums = defaultdict[str, float]


class PlannedBuffer(NaiveReplayBuffer):
    """Serves what is appended as the passes of one optimizer step, in order; nothing is dropped, shuffled or cut."""

    dynamic_indices: list[list[int]]

    def append(self, experience: Experience) -> None:
        start = len(self.items)
        super().append(experience)
        self.dynamic_indices.append(list(range(start, len(self.items))))

    def setup_dynamic_batch(self, strategy: Any) -> None:
        """Tell OpenRLHF that the step ends with the last pass, and how many tokens the step has on all ranks."""
        passes = len(self.dynamic_indices)
        tokens = strategy.all_reduce(float(sum(item.action_mask.sum().item() for item in self.items)), "sum")
        turns = strategy.all_reduce(float(len(self.items)), "sum")
        self.sample_batch_size = 1
        self.dynamic_optimizer_step = [0] * (passes - 1) + [1]
        self.dynamic_batch_num_tokens = [tokens] * passes
        self.dynamic_global_batch_size = [turns] * passes
        self.dynamic_sample_loss_scale = [1 / passes] * passes

    def clear(self) -> None:
        super().clear()
        self.dynamic_indices = []


class StepTrainer(ActorPPOTrainer):
    """OpenRLHF's trainer inside a policy actor: one optimizer step a call, with sums of what was measured."""

    actor: Any
    replay_buffer: Any
    actor_loss_fn: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        upstream = self.replay_buffer
        self.replay_buffer = PlannedBuffer(
            upstream.sample_batch_size, upstream.limit, upstream.cpu_offload, upstream.packing_samples, True
        )
        self.sums: Sums = defaultdict(float)
        self.actor_loss_fn = MeasuredLoss(self.actor_loss_fn, self.sums)

    def training_step(
        self, experience: Experience, kl_ctl: float, step: int, loss_batch_info: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """One pass. DeepSpeed is told which one ends the step, so that it neither scales nor steps on its own."""
        last = bool(self.replay_buffer.dynamic_optimizer_step[step])
        self.actor.model.set_gradient_accumulation_boundary(last)
        result = super().training_step(experience, kl_ctl, step, loss_batch_info)
        metrics, ranks = result["metrics"], self.strategy.world_size
        # each is this pass's share of the mean over the step's tokens, times the number of ranks
        self.sums["entropy"] += metrics["entropy_loss"].item() / ranks
        self.sums["loss"] += metrics["policy_loss"].item() / ranks
        if self.args.algo.kl.use_loss:
            self.sums["loss"] += kl_ctl * experience.info["kl"].item() / ranks
        if last:
            self.sums["grad_norm"] = metrics["actor_grad_norm"] / ranks
        return result

    def measured(self) -> dict[str, float]:
        """Sums over all ranks since the last call; the same on every rank."""
        names = ("loss", "entropy", "grad_norm", "clipped", "gap", "gap_squares", "drift", "tokens")
        totals = self.strategy.all_reduce({name: float(self.sums[name]) for name in names}, "sum")
        totals |= self.strategy.all_reduce({"gap_max": float(self.sums["gap_max"])}, "max")
        self.sums.clear()
        return totals

    def _init_vllm_sync_group(self, backend: str) -> None:
        """Nothing where an adapter is trained: it goes through Ray."""
        if not hasattr(self.actor.model.module, "peft_config"):
            super()._init_vllm_sync_group(backend)

    def broadcast_to_vllm(self) -> None:
        """Send the policy's weights to the vLLM engines, or the adapter that is trained on them."""
        policy = self.actor.model.module
        if not hasattr(policy, "peft_config"):
            super().broadcast_to_vllm()
            return
        torch.cuda.empty_cache()  # vLLM is about to take its memory back
        if self.strategy.is_rank_0():
            files = ray.put(adapter_files(policy))
            ray.get([engine.take_adapter.remote(files) for engine in self.vllm_engines])
        torch_dist_barrier_and_cuda_sync()


class MeasuredLoss:
    """OpenRLHF's policy loss; adds up over its tokens what `UpdateStats` tells."""

    def __init__(self, loss: Any, sums: Sums) -> None:
        self._loss, self._sums = loss, sums

    def __call__(
        self,
        log_probs: Tensor,
        old_log_probs: Tensor,
        advantages: Tensor,
        *,
        action_mask: Tensor,
        rollout_log_probs: Tensor,
        **normalisation: Any,
    ) -> tuple[Any, ...]:
        result = self._loss(
            log_probs, old_log_probs, advantages,
            action_mask=action_mask, rollout_log_probs=rollout_log_probs, **normalisation,
        )  # fmt: skip
        loss, clip_share = result[:2]
        if not torch.isfinite(loss):
            raise RunError("the loss is not finite; try a lower learning_rate")
        tokens = action_mask.sum().item()
        apart = (rollout_log_probs - log_probs.detach()) * action_mask
        self._sums["tokens"] += tokens
        self._sums["clipped"] += clip_share.item() * tokens
        self._sums["gap"] += apart.abs().sum().item()
        self._sums["gap_squares"] += apart.square().sum().item()
        self._sums["gap_max"] = max(self._sums["gap_max"], apart.abs().max().item())
        self._sums["drift"] += apart.sum().item()
        return result
