"""Which settings go together on a cluster. Checked before anything starts; knows nothing of Ray."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from medserl.config import Settings
from medserl.errors import ConfigError

OPENRLHF_NEEDS = ("openrlhf", "ray", "vllm", "deepspeed")
FEED_FORWARD = ("gate_proj", "up_proj", "down_proj", "gate_up_proj", "w1", "w2", "w3")
"""What the layers beside attention are called in the families that have experts."""


def missing_packages() -> list[str]:
    """Packages of this engine that are not installed."""
    return [name for name in OPENRLHF_NEEDS if find_spec(name) is None]


def training_ranks(settings: Settings) -> int:
    return settings.train_nodes * settings.train_gpus_per_node


def playing_gpus(settings: Settings) -> int:
    return settings.vllm_engines * settings.vllm_tensor_parallel


def gpus_needed(settings: Settings) -> int:
    """GPUs of the whole cluster that a run takes."""
    if settings.placement == "colocated":
        return training_ranks(settings)
    return training_ranks(settings) + playing_gpus(settings)


def check_settings(settings: Settings, *, lora: bool, flash_attention: bool) -> None:
    """Refuse combinations that cannot work. `flash_attention` says whether the package flash-attn is there.

    Raises:
        ConfigError: the first such combination, and what to change.
    """
    for broken, message in (
        *_placement_rules(settings),
        *_training_rules(settings, lora, flash_attention),
        *_batch_rules(settings),
    ):
        if broken:
            raise ConfigError(message)


def check_model(settings: Settings, attention_heads: int) -> None:
    """Refuse to cut a model of so many attention heads unevenly.

    Raises:
        ConfigError: `vllm_tensor_parallel` is no divisor of them.
    """
    if attention_heads % settings.vllm_tensor_parallel:
        raise ConfigError(
            f"vllm_tensor_parallel is {settings.vllm_tensor_parallel}, and the model's {attention_heads} attention "
            "heads cannot be shared out evenly: choose a divisor"
        )


def check_experts(settings: Settings, config: Any, adapter: Path | None = None) -> None:
    """Refuse a LoRA on all linear layers of a mixture of experts: its experts are none, and would go without.

    Raises:
        ConfigError: the model has experts, and `lora_targets`, or the adapter that is gone on with, means them.
    """
    names = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    experts = any(isinstance(count := getattr(config, name, None), int) and count > 1 for name in names)
    if not experts or not settings.lora_rank:
        return
    why = "the experts of this model are no linear layers and would get no LoRA"
    if settings.lora_targets in ("all-linear", "upper-linear"):
        raise ConfigError(
            f"lora_targets {settings.lora_targets}: {why}; give --lora-targets attention, which trains what it says"
        )
    if adapter and (beside := _beside_attention(adapter)):
        raise ConfigError(f"adapter {adapter}: it is on {beside} too, and {why}; give one that is on attention alone")


def _beside_attention(adapter: Path) -> str:
    """The layers beside attention that an adapter is on, by their last names."""
    targets = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8")).get("target_modules") or []
    if targets == "all-linear":
        return targets
    last = [target.rpartition(".")[2] for target in ([targets] if isinstance(targets, str) else targets)]
    return ", ".join(name for name in dict.fromkeys(last) if name in FEED_FORWARD)


def check_cluster(settings: Settings, gpus: int, nodes: int) -> None:
    """Refuse what the cluster at hand cannot hold.

    Raises:
        ConfigError: too few GPUs or machines.
    """
    needed = gpus_needed(settings)
    if needed > gpus:
        raise ConfigError(
            f"{needed} GPUs are needed ({training_ranks(settings)} to train, {playing_gpus(settings)} to play, "
            f"{settings.placement}), but Ray has {gpus}; ask for fewer, add machines, or give --engine local"
        )
    if settings.train_nodes > nodes:
        raise ConfigError(f"train_nodes is {settings.train_nodes}, but Ray has {nodes} machines; join them: ray start")


Refusals = list[tuple[bool, str]]


def _placement_rules(settings: Settings) -> Refusals:
    colocated = settings.placement == "colocated"
    training, playing = training_ranks(settings), playing_gpus(settings)
    return [
        (
            colocated and training != playing,
            f"placement colocated shares each GPU, but {training} train (train_nodes x train_gpus_per_node) and "
            f"{playing} play (vllm_engines x vllm_tensor_parallel); make them equal, or use placement separate",
        ),
        (
            colocated and settings.async_rollout,
            "async_rollout plays and learns at the same time, which needs GPUs for each: use placement separate",
        ),
        (
            settings.vllm_sleep and not colocated,
            "vllm_sleep frees a GPU for training, but with placement separate no GPU is shared: leave it out",
        ),
    ]


def _training_rules(settings: Settings, lora: bool, flash_attention: bool) -> Refusals:
    flash = settings.attention == "flash_attention_2"
    return [
        (
            flash and not flash_attention,
            "attention flash_attention_2 needs the package flash-attn: install it, or use attention sdpa",
        ),
        (settings.packing and not flash, "packing needs attention flash_attention_2: set it, or leave packing out"),
        (
            lora and settings.zero_stage == 3,
            "zero_stage 3 shards the LoRA adapter that vLLM is to get whole: use zero_stage 2 with LoRA",
        ),
        (
            settings.adam_offload and settings.zero_stage == 0,
            "adam_offload moves the optimizer that ZeRO shards: use zero_stage 1, 2 or 3 with it",
        ),
        (
            settings.vllm_sleep and settings.zero_stage == 0,
            "vllm_sleep puts away the optimizer that ZeRO shards as well: use zero_stage 1, 2 or 3 with it",
        ),
        (
            settings.dtype not in ("auto", "bfloat16"),
            f"dtype {settings.dtype} is not for OpenRLHF: it trains bfloat16 weights over a float32 copy; use auto",
        ),
        (
            settings.device not in ("auto", "cuda"),
            f"device {settings.device} names one place, but Ray places models on its GPUs: leave device out",
        ),
    ]


def _batch_rules(settings: Settings) -> Refusals:
    most_turns = settings.rollout_batch_size * (2 if settings.roles_trained == "both" else 1)
    ranks = training_ranks(settings)
    per_step = most_turns // settings.mini_batches
    return [
        (
            per_step < ranks,
            f"{settings.rollout_batch_size} games give at most {most_turns} turns, {per_step} in each of "
            f"{settings.mini_batches} mini_batches, but {ranks} GPUs train: raise rollout_batch_size",
        )
    ]
