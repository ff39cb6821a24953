"""MedSeRL's settings as OpenRLHF's own arguments.

OpenRLHF's parser lives in its command line and cannot be imported, so all arguments that its classes read are named
here (0.11.2). Batch sizes are those of DeepSpeed's bookkeeping: passes and steps are planned in `plan.py`.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from medserl.config import Settings
from medserl.engines.local import ADAM_BETAS
from medserl.engines.openrlhf.constraints import training_ranks
from medserl.engines.vllm import logprobs_mode


def openrlhf_arguments(settings: Settings, model: str) -> SimpleNamespace:
    """Nested arguments (`args.actor.adam.lr`) for the model in folder or of hub name `model`.

    Our own settings travel along as `args.medserl`, for the actors that need them.
    """
    arguments: dict[str, Any] = {
        "medserl": settings,
        "local_rank": -1,
        "use_ms": False,
        "actor": _policy(settings, model),
        "ref": {
            "num_nodes": settings.train_nodes,
            "num_gpus_per_node": settings.train_gpus_per_node,
            "offload": False,
        },
        "train": _training(settings),
        "rollout": {
            "temperature": settings.temperature,  # OpenRLHF's actors divide their logits by it, the reference's too
            "batch_size": settings.rollout_batch_size,
            "n_samples_per_prompt": 1,
            "micro_batch_size": 1,
        },
        "vllm": _vllm(settings),
        "ds": _deepspeed(settings),
        "algo": _algorithm(settings),
        "critic": {"freezing_steps": -1, "model_name_or_path": None, "save_value_network": False},
        "reward": {
            "clip_range": None,
            "overlong_buffer_len": None,
            "overlong_penalty_factor": 1.0,
            "stop_properly_penalty_coef": None,
        },
        "data": {"disable_fast_tokenizer": False, "max_len": settings.vllm_context, "max_images_per_prompt": 0},
        "logger": {"wandb": {"key": None}, "tensorboard_dir": None, "logging_steps": 1},
        # MedSeRL's run folder keeps checkpoints: OpenRLHF's own are never written
        "ckpt": {"path": "", "output_dir": "", "load_enable": False, "save_hf": False, "disable_ds": True,
                 "save_steps": float("inf"), "max_num": 1, "max_mem": float("inf"), "best_metric_key": "none"},
        "eval": {"dataset": None, "steps": float("inf")},
    }  # fmt: skip
    return _nested(arguments)


def _policy(settings: Settings, model: str) -> dict[str, Any]:
    return {
        "model_name_or_path": model,
        "num_nodes": settings.train_nodes,
        "num_gpus_per_node": settings.train_gpus_per_node,
        "gradient_checkpointing_enable": settings.gradient_checkpointing,
        "gradient_checkpointing_reentrant": False,
        "freeze_visual_encoder": False,
        "policy_loss_type": "ppo",
        "loss_agg_mode": "token-mean",
        "eps_clip": settings.clip_range,
        "eps_clip_low_high": (settings.clip_range, settings.clip_range),
        "dual_clip": None,
        "aux_loss_coef": 0.0,
        "entropy_coef": 0.0,  # measured, not rewarded
        "optim": "adam",
        "muon": {},
        "adam": {"lr": settings.learning_rate, "betas": ADAM_BETAS, "eps": 1e-8, "weight_decay": 0.0},
        "lr_scheduler": "constant",
        "lr_warmup_ratio": 0.0,
        "min_lr_ratio": 1.0,
        "max_norm": settings.max_grad_norm,
    }


def _training(settings: Settings) -> dict[str, Any]:
    return {
        "seed": settings.seed,
        "full_determinism_enable": False,
        "max_epochs": 1,
        "micro_batch_size": 1,
        "batch_size": training_ranks(settings),
        "dynamic_batch_enable": True,  # passes of several sizes, normalised over the step's tokens
        "max_tokens_per_gpu": settings.training_token_budget,
        "enable_ema": False,
        "ema_beta": 0.0,
        "async_enable": settings.async_rollout,
        "colocate_actor_ref": True,
        "colocate_all": settings.placement == "colocated",
        "agent_func_path": None,
    }


def _algorithm(settings: Settings) -> dict[str, Any]:
    return {
        "advantage": {
            "estimator": "reinforce",
            "gamma": 1.0,
            "lambd": 1.0,
            "no_std_norm": False,
            "is_correction_level": "off",
            "is_correction_mode": "mask",
            "is_correction_gating": "ratio",
            "is_correction_threshold": [0.5, 5.0],
        },
        "kl": {
            "init_coef": settings.kl_coef,
            "estimator": settings.kl_estimator,
            "use_loss": settings.kl_coef > 0 and settings.kl_estimator != "k1",
            "unbiased_gradient": False,
            "target": None,
            "horizon": 10000,
        },
        "dynamic_filtering_enable": False,
    }


def _vllm(settings: Settings) -> dict[str, Any]:
    return {
        "num_engines": settings.vllm_engines,
        "tensor_parallel_size": settings.vllm_tensor_parallel,
        "sync_backend": settings.weight_sync,
        "sync_with_ray": False,
        "enable_prefix_caching": True,
        "enforce_eager": settings.vllm_eager,
        "enable_sleep": settings.vllm_sleep,
        "gpu_memory_utilization": settings.vllm_gpu_memory,
        "logprobs_mode": logprobs_mode(settings.temperature),
    }


def _deepspeed(settings: Settings) -> dict[str, Any]:
    return {
        "zero_stage": settings.zero_stage,
        "param_dtype": "bf16",
        "adam_offload": settings.adam_offload,
        "attn_implementation": settings.attention,
        "experts_implementation": None,
        "packing_samples": settings.packing,
        "enable_sleep": settings.vllm_sleep,
        "use_liger_kernel": False,
        "load_in_4bit": False,
        "lora": {"rank": 0, "alpha": 0, "target_modules": None, "dropout": 0.0},  # ours: see lora.py
        "zpg": 1,
        "grad_accum_dtype": None,
        "overlap_comm": False,
        "deepcompile": False,
        "use_universal_ckpt": False,
        "ring_attn_size": 1,
        "ring_attn_head_stride": 1,
        "tensor_parallel_size": 1,
        "value_head_prefix": "score",
    }


def _nested(value: Any) -> Any:
    if isinstance(value, dict):
        return SimpleNamespace(**{key: _nested(inner) for key, inner in value.items()})
    return value
