"""One GPU and no cluster: vLLM plays, the local engine scores and learns, and every `sync` hands the new weights over.

vLLM runs in a process of its own on the same device. With LoRA it gets each adapter anew (`vllm_player`); where all
weights are trained it reads all of them anew. Checkpoints are the local engine's, so either engine goes on from them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from medserl.config import Settings
from medserl.engines.base import Sampling, UpdateStats, WeightedTurn
from medserl.engines.gap import explained_gap
from medserl.engines.local import LocalEngine
from medserl.engines.vllm import (
    generation_config,
    logprobs_mode,
    lora_options,
    rank_of,
    start_llm,
    starting,
    vllm_device,
)
from medserl.engines.vllm_player import VLLMPlayer
from medserl.errors import ConfigError
from medserl.game.episode import Completion, Turn
from medserl.game.prompts import Messages
from medserl.game.roles import Role
from medserl.models import adapter_source, load_model, model_source
from medserl.models.chat import stop_token_ids
from medserl.models.loading import read_tokenizer

log = logging.getLogger("medserl")

_READER = "medserl.engines.vllm_worker.WeightReader"


class VLLMTrainingEngine:
    """Implements `engines.base.Engine`."""

    scores_replies = True

    def __init__(self, settings: Settings) -> None:
        """Start vLLM, then load the model that learns.

        Raises:
            ConfigError: vLLM is not installed, was built for another device, or cannot train with these settings.
            ModelError: the model or adapter cannot be loaded, by either of the two.
            RunError: vLLM cannot take the first weights.
        """
        self.settings = settings
        device = vllm_device(settings.device)
        self._sleeps = device != "cpu" and settings.vllm_sleep
        self.player = _start_player(settings, device, self._lora_name, sleeps=self._sleeps)
        try:
            self.learner = LocalEngine(load_model(settings), settings)
            self._adapters = self.learner.adapters
            self._require_replaceable()
            if self._adapters or adapter_source(settings):  # else vLLM has read the very same weights
                self.sync()
        except BaseException:
            self.player.close()
            raise

    def _require_replaceable(self) -> None:
        lost = None if self._adapters else self.player.lost_weight()
        if lost:
            raise ConfigError(
                f"lora_rank 0 trains all weights, and this vLLM cannot take new ones: it has repacked those of {lost}, "
                "as its CPU build does; give --lora-rank above 0, or --engine local"
            )

    def _lora_name(self, role: Role) -> str:
        return self._adapters.by_role[role] if self._adapters else ""

    # -- playing ------------------------------------------------------------------------------------------------

    def generate(self, prompts: Sequence[Messages], sampling: Sampling) -> list[Completion]:
        self.player.wake()
        return self.player.generate(prompts, sampling)

    @property
    def context(self) -> int | None:
        return self.player.context

    def prompt_lengths(self, prompts: Sequence[Messages]) -> list[int]:
        return self.player.prompt_lengths(prompts)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return self.player.count_tokens(texts)

    # -- scoring and learning -----------------------------------------------------------------------------------

    def reply_probabilities(
        self, prompts: Sequence[Messages], replies: Sequence[tuple[str, ...]]
    ) -> list[tuple[float, ...]]:
        return self._learning().reply_probabilities(prompts, replies)

    def logprobs(self, turns: Sequence[Turn], *, reference: bool = False) -> list[tuple[float, ...]]:
        return self._learning().logprobs(turns, reference=reference)

    def target_turns(self, role: Role, prompts: Sequence[Messages], replies: Sequence[str]) -> list[Turn]:
        return self.learner.target_turns(role, prompts, replies)

    def update(self, turns: Sequence[WeightedTurn], *, learning_rate: float) -> UpdateStats:
        stats = self._learning().update(turns, learning_rate=learning_rate)
        sampled = any(turn.old_logprobs is not None for turn in turns)
        return replace(
            stats,
            vllm_kl=stats.logprob_gap_mean if sampled else None,
            gap_explained=explained_gap(self.player.dtype, another_program=True),
        )

    def _learning(self) -> LocalEngine:
        """The engine that learns, with the device to itself where the two take turns."""
        if self._sleeps:
            self.player.sleep()
        return self.learner

    def sync(self) -> None:
        self.player.wake()
        if self._adapters is None:
            size = sum(p.numel() * p.element_size() for p in self.learner.model.parameters())
            self.player.take_weights(self._write_weights, size)
            return
        for name in self._adapters.trained:
            self._hand_over(name)

    def _hand_over(self, name: str) -> None:
        assert self._adapters
        adapters = self._adapters
        self.player.take_adapter(name, lambda folder: adapters.write(name, folder), adapters.size(name))

    def _write_weights(self, folder: Path) -> None:
        """In vLLM's type, which it would round them to anyway."""
        dtype = getattr(torch, self.player.dtype)
        state = {name: value.to("cpu", dtype) for name, value in self.learner.model.state_dict().items()}
        self.learner.model.save_pretrained(folder, state_dict=state)

    # -- disk ---------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        self.learner.save(folder)

    def load(self, folder: Path) -> None:
        self.learner.load(folder)
        self.sync()

    def peak_memory_bytes(self) -> int:
        return self.learner.peak_memory_bytes()

    def close(self) -> None:
        self.player.close()


def check_settings(settings: Settings) -> None:
    """Raises ConfigError where vLLM is not installed, or one GPU cannot do what is asked."""
    if find_spec("vllm") is None:
        raise ConfigError("engine 'vllm': vLLM is not installed; pip install 'medserl[vllm]', or give --engine local")
    if settings.async_rollout:
        raise ConfigError("async_rollout plays and learns at the same time, and one GPU cannot: give engine openrlhf")


def _start_player(settings: Settings, device: str, lora_name: Any, *, sleeps: bool) -> VLLMPlayer:
    name, adapter = model_source(settings.model), adapter_source(settings)
    options: dict[str, Any] = {}
    if settings.lora_rank:
        roles = 2 if settings.adapters == "per_role" else 1
        rank = rank_of(adapter) if adapter else settings.lora_rank
        options |= lora_options(rank, at_once=1, kept=roles + 1)  # one more while a new version comes
    else:
        options["worker_extension_cls"] = _READER
    if device != "cpu":
        options |= {"gpu_memory_utilization": settings.vllm_gpu_memory, "enable_sleep_mode": sleeps}
    mode = logprobs_mode(settings.temperature)
    with starting(settings.model):
        tokenizer = read_tokenizer(name, settings)
        own = generation_config(name, settings.trust_remote_code)
        llm, process = start_llm(
            name,
            settings,
            device,
            max_model_len=_context(name, settings),
            enforce_eager=settings.vllm_eager,
            logprobs_mode=mode,
            **options,
        )
    named = lora_name if settings.lora_rank else None
    return VLLMPlayer(llm, tokenizer, stop_token_ids(own, tokenizer), settings, mode, named, process)


def _context(name: str, settings: Settings) -> int:
    from transformers import AutoConfig

    from medserl.models import context_length

    own = context_length(AutoConfig.from_pretrained(name, trust_remote_code=settings.trust_remote_code))
    return min(own or settings.vllm_context, settings.vllm_context)
