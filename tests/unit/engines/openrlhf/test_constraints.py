"""Combinations that cannot work are refused in one line, before Ray or vLLM is imported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medserl import engines
from medserl.cli import main
from medserl.config import Settings
from medserl.engines.openrlhf import constraints
from medserl.engines.openrlhf.constraints import check_cluster, check_model, check_settings, gpus_needed
from medserl.errors import ConfigError


def refusal(*, lora: bool = False, flash_attention: bool = False, **settings: object) -> str:
    with pytest.raises(ConfigError) as refused:
        check_settings(Settings(**settings), lora=lora, flash_attention=flash_attention)
    message = str(refused.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"placement": "colocated", "train_gpus_per_node": 4, "vllm_engines": 3}, "vllm_engines"),
        ({"placement": "colocated", "vllm_tensor_parallel": 2}, "vllm_tensor_parallel"),
        ({"placement": "colocated", "async_rollout": True}, "async_rollout"),
        ({"vllm_sleep": True}, "vllm_sleep"),
        ({"attention": "flash_attention_2"}, "flash-attn"),
        ({"packing": True}, "packing"),
        ({"adam_offload": True, "zero_stage": 0}, "adam_offload"),
        ({"placement": "colocated", "vllm_sleep": True, "zero_stage": 0}, "zero_stage 1, 2 or 3"),
        ({"dtype": "float32"}, "dtype float32"),
        ({"device": "cpu"}, "device cpu"),
        ({"train_gpus_per_node": 8, "rollout_batch_size": 3}, "rollout_batch_size"),
        ({"train_gpus_per_node": 8, "rollout_batch_size": 4, "roles_trained": "assessor"}, "rollout_batch_size"),
        ({"train_gpus_per_node": 8, "rollout_batch_size": 8, "mini_batches": 4}, "mini_batches"),
    ],
)
def test_what_cannot_work(settings: dict[str, object], named: str) -> None:
    assert named in refusal(**settings)


def test_lora_with_sharded_weights() -> None:
    assert "zero_stage 2" in refusal(lora=True, zero_stage=3)
    check_settings(Settings(zero_stage=3), lora=False, flash_attention=False)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"placement": "colocated", "train_nodes": 2, "train_gpus_per_node": 8, "vllm_engines": 4,
         "vllm_tensor_parallel": 4, "vllm_sleep": True},
        {"train_gpus_per_node": 4, "vllm_engines": 2, "vllm_tensor_parallel": 2, "async_rollout": True},
        {"adam_offload": True, "zero_stage": 1},
        {"train_gpus_per_node": 8, "rollout_batch_size": 4},
    ],
)  # fmt: skip
def test_what_can(settings: dict[str, object]) -> None:
    check_settings(Settings(**settings), lora=False, flash_attention=False)


def test_packing_with_flash_attention() -> None:
    check_settings(Settings(packing=True, attention="flash_attention_2"), lora=True, flash_attention=True)


def test_gpus_are_counted_by_placement() -> None:
    shape = {"train_gpus_per_node": 4, "vllm_engines": 2, "vllm_tensor_parallel": 2}
    assert gpus_needed(Settings(**shape)) == 8
    assert gpus_needed(Settings(placement="colocated", **shape)) == 4


def test_a_cluster_too_small() -> None:
    settings = Settings(train_nodes=2, train_gpus_per_node=2, vllm_engines=2)
    check_cluster(settings, gpus=6, nodes=2)
    with pytest.raises(ConfigError, match=r"6 GPUs are needed .4 to train, 2 to play, separate., but Ray has 5"):
        check_cluster(settings, gpus=5, nodes=2)
    with pytest.raises(ConfigError, match="train_nodes is 2, but Ray has 1"):
        check_cluster(settings, gpus=8, nodes=1)


def test_heads_are_shared_out_evenly() -> None:
    check_model(Settings(vllm_tensor_parallel=4), attention_heads=32)
    with pytest.raises(ConfigError, match="vllm_tensor_parallel is 4, and the model's 9 attention heads"):
        check_model(Settings(vllm_tensor_parallel=4), attention_heads=9)


def test_a_lora_that_passes_by_the_experts_is_refused() -> None:
    from transformers import MixtralConfig, Qwen3Config, Qwen3MoeConfig

    for targets in ("all-linear", "upper-linear"):
        for config in (Qwen3MoeConfig(), MixtralConfig()):
            with pytest.raises(ConfigError, match=f"lora_targets {targets}: the experts of this model"):
                constraints.check_experts(Settings(lora_targets=targets), config)
        constraints.check_experts(Settings(lora_targets=targets), Qwen3Config())
    constraints.check_experts(Settings(lora_targets="attention"), Qwen3MoeConfig())
    constraints.check_experts(Settings(lora_rank=0, lora_targets="all-linear"), Qwen3MoeConfig())


@pytest.mark.parametrize(
    ("targets", "beside"),
    [
        (["q_proj", "o_proj"], ""),
        (["self_attn.q_proj", "mlp.gate_proj", "model.layers.3.mlp.down_proj"], "gate_proj, down_proj"),
        ("all-linear", "all-linear"),
        (None, ""),
    ],
)
def test_an_adapter_that_passes_by_the_experts_is_refused(tmp_path: Path, targets: object, beside: str) -> None:
    """`lora_targets auto` goes on with those of the adapter."""
    from transformers import Qwen3Config, Qwen3MoeConfig

    (tmp_path / "adapter_config.json").write_text(json.dumps({"target_modules": targets}), encoding="utf-8")
    constraints.check_experts(Settings(), Qwen3Config(), tmp_path)
    if not beside:
        constraints.check_experts(Settings(), Qwen3MoeConfig(), tmp_path)
        return
    with pytest.raises(ConfigError, match=f"it is on {beside} too, and the experts of this model"):
        constraints.check_experts(Settings(), Qwen3MoeConfig(), tmp_path)


# -- which engine trains -----------------------------------------------------------------------------------


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """`machine(installed, gpus)`: what `auto` finds."""
    import torch

    def set_up(installed: bool, gpus: int) -> None:
        monkeypatch.setattr(constraints, "find_spec", lambda _name: object() if installed else None)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)

    return set_up


@pytest.mark.parametrize(
    ("vllm", "gpus", "settings", "engine", "why"),
    [
        (True, 1, {}, "vllm", "there is a GPU: it plays, the local engine learns (OpenRLHF is not installed"),
        (True, 4, {"adapters": "per_role"}, "vllm", "(adapters 'per_role' is not OpenRLHF's)"),
        (True, 1, {"placement": "colocated"}, "vllm", "it plays"),
        (True, 0, {}, "local", "OpenRLHF is not installed"),
        (False, 1, {}, "local", "vLLM, which plays on one GPU, is not installed either"),
        (True, 2, {"device": "cuda:1"}, "local", "OpenRLHF is not installed"),
        (True, 1, {"device": "cpu"}, "local", "OpenRLHF is not installed"),
        (True, 1, {"async_rollout": True}, "local", "OpenRLHF is not installed"),
    ],
)
def test_auto_on_one_gpu(machine, monkeypatch, caplog, vllm, gpus, settings, engine, why) -> None:  # type: ignore[no-untyped-def]
    machine(False, gpus)
    monkeypatch.setattr(engines, "find_spec", lambda _name: object() if vllm else None)
    with caplog.at_level("INFO", "medserl"):
        assert engines.training_engine_name(Settings(**settings)) == engine
    assert f"engine {engine}: " in caplog.text and why in caplog.text


def test_one_gpu_is_vllms_though_openrlhf_is_installed(machine, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    machine(True, 1)
    monkeypatch.setattr(engines, "find_spec", lambda _name: object())
    assert engines.training_engine_name(Settings(placement="colocated")) == "vllm"
    machine(True, 2)
    assert engines.training_engine_name(Settings()) == "openrlhf"


@pytest.mark.parametrize(
    ("installed", "gpus", "engine", "why"),
    [
        (False, 8, "local", "OpenRLHF is not installed"),
        (True, 0, "local", "needs 2 GPUs with these settings, and there are 0"),
        (True, 1, "local", "needs 2 GPUs"),
        (True, 2, "openrlhf", "there are 2 GPUs"),
    ],
)
def test_auto_says_which_and_why(machine, caplog, installed, gpus, engine, why) -> None:  # type: ignore[no-untyped-def]
    machine(installed, gpus)
    with caplog.at_level("INFO", "medserl"):
        assert engines.training_engine_name(Settings()) == engine
    assert f"engine {engine}: " in caplog.text and why in caplog.text


def test_what_to_install_in_one_line(machine, capsys: pytest.CaptureFixture[str], tmp_path) -> None:  # type: ignore[no-untyped-def]
    machine(False, 8)
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--engine", "openrlhf", "--adapter", "none", "--output-dir", str(tmp_path / "run")])
    assert stopped.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "pip install 'medserl[openrlhf]'" in line
    assert not (tmp_path / "run").exists()


def test_a_run_of_this_engine_is_judged_by_another() -> None:
    assert engines.inference_engine_name(Settings(engine="openrlhf", device="cpu")) == "local"
