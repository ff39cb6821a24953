"""Settings reach OpenRLHF's own arguments, and none of its optional machinery is on unasked."""

from __future__ import annotations

from operator import attrgetter

import pytest

from medserl.config import Settings
from medserl.engines.openrlhf.arguments import openrlhf_arguments


@pytest.mark.parametrize(
    ("settings", "arguments"),
    [
        ({"placement": "colocated"}, {"train.colocate_all": True}),
        ({"placement": "separate"}, {"train.colocate_all": False}),
        (
            {"train_nodes": 2, "train_gpus_per_node": 8},
            {"actor.num_nodes": 2, "actor.num_gpus_per_node": 8, "ref.num_nodes": 2, "ref.num_gpus_per_node": 8},
        ),
        ({"vllm_engines": 4, "vllm_tensor_parallel": 2}, {"vllm.num_engines": 4, "vllm.tensor_parallel_size": 2}),
        ({"vllm_sleep": True}, {"vllm.enable_sleep": True, "ds.enable_sleep": True}),
        ({"vllm_gpu_memory": 0.45}, {"vllm.gpu_memory_utilization": 0.45}),
        ({"vllm_context": 9000}, {"data.max_len": 9000}),
        ({"weight_sync": "gloo"}, {"vllm.sync_backend": "gloo"}),
        ({"zero_stage": 3, "adam_offload": True}, {"ds.zero_stage": 3, "ds.adam_offload": True}),
        (
            {"packing": True, "attention": "flash_attention_2"},
            {"ds.packing_samples": True, "ds.attn_implementation": "flash_attention_2"},
        ),
        ({"async_rollout": True}, {"train.async_enable": True}),
        ({"gradient_checkpointing": True}, {"actor.gradient_checkpointing_enable": True}),
        ({"learning_rate": 3e-6, "max_grad_norm": 0.5}, {"actor.adam.lr": 3e-6, "actor.max_norm": 0.5}),
        ({"clip_range": 0.1}, {"actor.eps_clip": 0.1, "actor.eps_clip_low_high": (0.1, 0.1)}),
        ({"training_token_budget": 8192}, {"train.max_tokens_per_gpu": 8192}),
        ({"seed": 7}, {"train.seed": 7}),
        ({}, {"rollout.temperature": 1.0, "vllm.logprobs_mode": "raw_logprobs"}),
        ({"temperature": 0.7}, {"rollout.temperature": 0.7, "vllm.logprobs_mode": "processed_logprobs"}),
    ],
)
def test_a_setting_is_passed_through(settings: dict[str, object], arguments: dict[str, object]) -> None:
    found = openrlhf_arguments(Settings(**settings), "model")
    assert {name: attrgetter(name)(found) for name in arguments} == arguments


@pytest.mark.parametrize(
    ("kl_coef", "estimator", "as_loss"),
    [(0.01, "k1", False), (0.01, "k3", True), (0.0, "k3", False)],
)
def test_kl_is_a_loss_or_in_the_reward_and_never_both(kl_coef: float, estimator: str, as_loss: bool) -> None:
    kl = openrlhf_arguments(Settings(kl_coef=kl_coef, kl_estimator=estimator), "model").algo.kl
    assert (kl.use_loss, kl.init_coef, kl.estimator) == (as_loss, kl_coef, estimator)


def test_what_would_drop_or_reweigh_samples_is_off() -> None:
    arguments = openrlhf_arguments(Settings(), "model")
    assert not arguments.algo.dynamic_filtering_enable
    assert arguments.algo.advantage.is_correction_level == "off"
    assert arguments.actor.entropy_coef == 0.0
    assert arguments.ds.lora.rank == 0
