"""OpenRLHF behind MedSeRL's one door."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from openrlhf.trainer.ray.vllm_engine import batch_vllm_engine_call
from openrlhf.utils import get_strategy
from transformers import AutoConfig

from medserl.config import Settings
from medserl.engines.base import Sampling, UpdateStats, WeightedTurn
from medserl.engines.openrlhf.actors import STATE_TAG
from medserl.engines.openrlhf.arguments import openrlhf_arguments
from medserl.engines.openrlhf.cluster import Cluster
from medserl.engines.openrlhf.constraints import check_experts, check_model, check_settings
from medserl.engines.openrlhf.pool import EnginePool
from medserl.engines.openrlhf.trainer import RoundTrainer
from medserl.engines.openrlhf.watch import Watch
from medserl.engines.vllm import VLLMEngine, generation_config
from medserl.errors import RunError
from medserl.game.episode import Completion, Turn
from medserl.game.prompts import Messages
from medserl.game.roles import Role
from medserl.models import adapter_source, has_adapter, model_source
from medserl.models.chat import stop_token_ids, target_turns
from medserl.models.loading import read_tokenizer, reading

log = logging.getLogger("medserl")


class OpenRLHFEngine:
    """Implements `engines.base.Engine`: vLLM engines play, OpenRLHF's actors score and learn."""

    def __init__(self, settings: Settings) -> None:
        """Start everything.

        Raises:
            ConfigError: the settings do not go together, or the cluster is too small; nothing was started.
            ModelError: the model or adapter cannot be found or loaded.
            RunError: an actor died while starting; the others were ended.
        """
        self.lora = has_adapter(settings, trainable=True)
        check_settings(settings, lora=self.lora, flash_attention=find_spec("flash_attn") is not None)
        self.settings = _with_absolute_adapter(settings)
        model = _reachable_everywhere(model_source(settings.model))
        config, tokenizer = _read_model(settings, model)
        check_model(settings, config.get_text_config().num_attention_heads)
        check_experts(settings, config.get_text_config(), adapter_source(settings))
        stop_ids = stop_token_ids(generation_config(model, settings.trust_remote_code), tokenizer)
        strategy = get_strategy(openrlhf_arguments(self.settings, model))
        self.cluster = Cluster(settings, Watch())
        try:
            self.cluster.start(strategy, model, with_reference=settings.needs_reference and not self.lora)
            self.trainer = RoundTrainer(strategy, self.cluster, tokenizer)
            pool = EnginePool(self.cluster.engines, self.cluster.watch, settings.vllm_context)
            mode = strategy.args.vllm.logprobs_mode
            self._player = VLLMEngine(pool, tokenizer, stop_ids, settings, logprobs_mode=mode)
            self._awake = not settings.vllm_sleep
            if self.lora:
                self.sync()  # the engines started from the base model
        except BaseException:
            self.close()
            raise

    # -- rollout ------------------------------------------------------------------------------------------------

    def generate(self, prompts: Sequence[Messages], sampling: Sampling) -> list[Completion]:
        self._sleep_or_wake(awake=True)
        return self._player.generate(prompts, sampling)

    @property
    def context(self) -> int | None:
        return self._player.context

    def prompt_lengths(self, prompts: Sequence[Messages]) -> list[int]:
        return self._player.prompt_lengths(prompts)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return self._player.count_tokens(texts)

    @property
    def scores_replies(self) -> bool:
        return self._player.scores_replies

    def reply_probabilities(
        self, prompts: Sequence[Messages], replies: Sequence[tuple[str, ...]]
    ) -> list[tuple[float, ...]]:
        self._sleep_or_wake(awake=True)
        return self._player.reply_probabilities(prompts, replies)

    def _sleep_or_wake(self, *, awake: bool) -> None:
        """With `vllm_sleep`, engines give their memory back while the policy trains."""
        if not self.settings.vllm_sleep or awake == self._awake:
            return
        engines = self.cluster.engines
        self.cluster.watch.guard(
            lambda: batch_vllm_engine_call(engines, "wake_up" if awake else "sleep"), "putting vLLM to sleep"
        )
        self._awake = awake

    # -- learning -----------------------------------------------------------------------------------------------

    def logprobs(self, turns: Sequence[Turn], *, reference: bool = False) -> list[tuple[float, ...]]:
        self._sleep_or_wake(awake=False)
        return self.trainer.score(turns, reference=reference)

    def target_turns(self, role: Role, prompts: Sequence[Messages], replies: Sequence[str]) -> list[Turn]:
        return target_turns(self._player.chat, role, prompts, replies)

    def update(self, turns: Sequence[WeightedTurn], *, learning_rate: float) -> UpdateStats:
        self._sleep_or_wake(awake=False)
        return self.trainer.update(turns, learning_rate)

    def sync(self) -> None:
        self.trainer.broadcast_to_vllm()

    # -- disk ---------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        self._on_policy("save_policy", folder)
        if not (folder / STATE_TAG).is_dir():
            raise RunError(f"{folder}: the training machines wrote elsewhere; put the run on a file system they share")

    def load(self, folder: Path) -> None:
        if not (folder / STATE_TAG).is_dir():
            raise RunError(f"{folder}: no {STATE_TAG} there, so another engine wrote it; resume with that one")
        self._on_policy("load_policy", folder)
        self.sync()

    def _on_policy(self, method: str, folder: Path) -> None:
        group = self.trainer.actor_model_group
        self.cluster.watch.results(group.async_run_method(method, str(folder.resolve())), f"checkpoint {folder}")

    def peak_memory_bytes(self) -> int:
        group = self.trainer.actor_model_group
        return max(self.cluster.watch.results(group.async_run_method("peak_memory_bytes"), "reading memory use"))

    def close(self) -> None:
        self.cluster.stop()


def _with_absolute_adapter(settings: Settings) -> Settings:
    """Actors have working directories of their own."""
    adapter = adapter_source(settings)
    return settings.with_overrides(adapter=str(adapter.resolve()) if adapter else "none")


def _reachable_everywhere(model: str) -> str:
    return str(Path(model).resolve()) if Path(model).is_dir() else model


def _read_model(settings: Settings, model: str) -> tuple[Any, Any]:
    """Config and tokenizer. This refuses code that comes with the model, which OpenRLHF would run unasked."""
    with reading(f"model {settings.model!r}"):
        config = AutoConfig.from_pretrained(model, trust_remote_code=settings.trust_remote_code)
    return config, read_tokenizer(model, settings)
