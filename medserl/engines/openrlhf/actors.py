"""The Ray actors' classes: OpenRLHF's own, with the few methods that MedSeRL needs besides.

OpenRLHF publishes them already wrapped by Ray; a subclass starts from the plain class inside.
"""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import torch
from openrlhf.trainer.ray import ppo_actor, vllm_engine
from openrlhf.utils.distributed_util import torch_dist_barrier_and_cuda_sync
from torch import Tensor
from vllm.inputs import TokensPrompt
from vllm.lora.request import LoRARequest
from vllm.utils import random_uuid

from medserl.engines.openrlhf.last_words import cause_named
from medserl.engines.openrlhf.lora import AdaptedActor, Files
from medserl.engines.openrlhf.training import StepTrainer
from medserl.engines.peak_memory import peak_memory_of_process
from medserl.engines.vllm_player import files_in_memory
from medserl.models import POLICY, has_adapter, reference_weights

STATE_TAG = "deepspeed"
"""Folder, inside a checkpoint, of DeepSpeed's own state: the optimizer and the float32 weights, a file a rank."""

_PolicyModelActor: Any = ppo_actor.PolicyModelActor.__ray_metadata__.modified_class
_RolloutRayActor: Any = vllm_engine.RolloutRayActor.__ray_metadata__.modified_class


class PolicyActor(_PolicyModelActor):
    """One rank of the policy that is trained; with an adapter, of the reference as well."""

    def init_model_from_pretrained(
        self, strategy: Any, pretrain: str, max_steps: int | None = None, vllm_engines: list[Any] | None = None
    ) -> None:
        settings = strategy.args.medserl
        self._has_adapter = has_adapter(settings, trainable=True)
        # OpenRLHF looks both classes up by name and offers no other way in; this process has no other use of them
        ppo_actor.ActorPPOTrainer = StepTrainer
        if self._has_adapter:
            ppo_actor.Actor = partial(AdaptedActor, settings=settings)
        super().init_model_from_pretrained(strategy, pretrain, max_steps, vllm_engines)

    def set_learning_rate(self, learning_rate: float) -> None:
        for group in self.actor_optim.param_groups:
            group["lr"] = learning_rate
        self.actor_scheduler.base_lrs = [learning_rate] * len(self.actor_scheduler.base_lrs)

    def fit(self, kl_ctl: float = 0.0) -> dict[str, float]:
        """One optimizer step over what was appended; returns sums over all ranks, and the steps DeepSpeed made."""
        before = self._steps_made()
        super().fit(kl_ctl)
        return self.trainer.measured() | {"optimizer_steps": self._steps_made() - before}

    def _steps_made(self) -> int:
        engine = self.actor.model
        return engine.global_steps - engine.skipped_steps

    def reference_forward(self, sequences: Tensor, action_mask: Tensor, attention_mask: Tensor) -> Tensor:
        """Log-probabilities (B, T-1) of the reference: the same weights with the first adapter, or none."""
        with reference_weights(self.actor.model.module):
            return self.forward(sequences, action_mask, attention_mask)

    def save_policy(self, folder: str) -> None:
        """Write the adapter, or the whole model, as an ordinary folder, and DeepSpeed's state beside it."""
        if self._has_adapter:
            if self.strategy.is_rank_0():
                self.actor.model.module.save_pretrained(folder, selected_adapters=[POLICY], save_embedding_layers=False)
                self.tokenizer.save_pretrained(folder)
            torch_dist_barrier_and_cuda_sync()
        else:
            self.strategy.save_model(self.actor, self.tokenizer, folder)
        self.actor.model.save_checkpoint(
            folder, tag=STATE_TAG, save_latest=False, exclude_frozen_parameters=self._has_adapter
        )

    def load_policy(self, folder: str) -> None:
        """Restore weights and optimizer from DeepSpeed's state."""
        asleep = self.strategy.args.ds.enable_sleep
        if asleep:  # they are in the CPU's memory, where DeepSpeed does not look for what it replaces
            self.reload_states()
        self.actor.model.load_checkpoint(folder, tag=STATE_TAG, load_module_strict=not self._has_adapter)
        if asleep:
            self.offload_states()

    def peak_memory_bytes(self) -> int:
        if Path("/dev/nvidiactl").exists():
            return torch.cuda.max_memory_allocated()
        return peak_memory_of_process()


class RolloutActor(_RolloutRayActor):
    """One vLLM engine; with an adapter, of which it takes a new version at every sync."""

    llm: Any
    _adapter: Any = None
    _versions = 0

    async def __init__(self, *args: Any, **options: Any) -> None:  # type: ignore[misc]  # Ray awaits it
        with cause_named():
            await super().__init__(*args, **options)

    async def generate(self, prompt_token_ids: list[int], sampling_params: Any) -> Any:
        with cause_named():
            prompt = TokensPrompt(prompt_token_ids=prompt_token_ids)
            options = {"request_id": random_uuid(), "lora_request": self._adapter}
            async for output in self.llm.generate(prompt, sampling_params, **options):
                finished = output
            return finished

    async def take_adapter(self, files: Files) -> None:
        """Play with this version of the adapter from now on. Nothing may be playing meanwhile.

        It has a name of its own, because vLLM's prefix cache knows adapters by their names alone.
        """
        before, self._versions = self._adapter, self._versions + 1
        name = f"policy_{self._versions}"
        with cause_named(), files_in_memory(sum(map(len, files.values()))) as folder:
            for file, content in files.items():
                (folder / file).write_bytes(content)
            self._adapter = LoRARequest(name, self._versions, str(folder))
            await self.llm.add_lora(self._adapter)
            if before:
                await self.llm.remove_lora(before.lora_int_id)

    async def until_dead(self) -> None:
        """Never returns; raises when vLLM's own process has died, which this actor outlives."""
        with cause_named():
            while True:
                await self.llm.check_health()
                await asyncio.sleep(1)

    async def stop(self) -> None:
        """End vLLM's own process, which killing this actor would leave behind."""
        self.llm.shutdown()


def taking_adapters(options: dict[str, Any]) -> type[RolloutActor]:
    """The class of vLLM engines that are started with these options besides those that OpenRLHF gives."""

    class AdapterActor(RolloutActor):
        async def __init__(self, *args: Any, **given: Any) -> None:  # type: ignore[misc]
            await super().__init__(*args, **given, **options)

    AdapterActor.__name__ = RolloutActor.__name__  # what Ray calls its process
    return AdapterActor
