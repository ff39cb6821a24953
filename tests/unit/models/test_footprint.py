"""What training takes of a GPU, by shapes: against simulated figures, and what follows from it on a machine."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medserl.cli import main
from medserl.config import Settings
from medserl.engines import create_engine
from medserl.models import footprint
from medserl.models.footprint import GB, KNOWN, Shape, estimate, fit, fits_beside_vllm, fitted, known_config, shape_of

SHAPES = {name: Shape.of(known_config(name)) for name in KNOWN}
QWEN_4B = SHAPES["Qwen/Qwen3-4B"]


def test_parameters_are_those_of_the_published_models() -> None:
    counts = {name: round(shape.parameters / 1e9, 2) for name, shape in SHAPES.items()}
    assert counts == {"smollm2-135m": 0.13, "Qwen/Qwen3-1.7B": 1.72, "Qwen/Qwen3-4B": 4.02, "Qwen/Qwen3-8B": 8.19}


@pytest.mark.parametrize(
    ("tokens", "checkpointing", "simulated"),
    [(1024, False, 14.9), (4096, False, 36.8), (4096, True, 11.5), (8192, True, 15.0)],
)
def test_an_update_of_qwen3_4b_as_simulated(tokens: int, checkpointing: bool, simulated: float) -> None:
    """Real shapes on fake tensors, rank 16 on the attention: weights of 16 bits and activations."""
    found = 2 * QWEN_4B.parameters + tokens * QWEN_4B.activations(checkpointing=checkpointing)
    assert found / GB == pytest.approx(simulated, rel=0.05)


@given(
    name=st.sampled_from(sorted(KNOWN)),
    memory=st.integers(4, 200),
    rank=st.sampled_from([0, 8, 64]),
    vllm=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_what_is_chosen_fits_and_more_memory_never_takes_it_away(name: str, memory: int, rank: int, vllm: bool) -> None:
    shape = SHAPES[name]
    found = fit(shape, memory * GB, rank, vllm=vllm)
    if found is None:
        return
    assert found.needed <= 0.9 * memory * GB
    assert found.training_token_budget >= 1024
    assert 0 <= found.vllm_gpu_memory < 1
    assert not found.vllm_sleep or vllm
    assert Settings(**found.settings)
    assert fit(shape, 2 * memory * GB, rank, vllm=vllm) is not None


def gpu(monkeypatch: pytest.MonkeyPatch, memory: int) -> None:
    monkeypatch.setattr(footprint, "pick_device", lambda name: "cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (memory * GB, memory * GB))


def test_defaults_on_a_gpu_follow_from_its_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    given = Settings(model="Qwen/Qwen3-4B", adapter="none")
    assert fitted(given, "local") is given, "on a CPU nothing changes"
    caplog.set_level(logging.INFO, logger="medserl")
    gpu(monkeypatch, 24)
    chosen = fitted(given, "local")
    assert (chosen.training_token_budget, chosen.gradient_checkpointing) == (8192, True)
    assert "24 GB of cuda are free: training_token_budget 8192, gradient_checkpointing True" in caplog.text
    mine = given.with_overrides(training_token_budget=2048)
    assert fitted(mine, "local").training_token_budget == 2048
    gpu(monkeypatch, 80)
    assert not fitted(given, "local").gradient_checkpointing
    beside = fitted(given, "vllm")
    assert 0 < beside.vllm_gpu_memory < 0.5 and not beside.vllm_sleep
    gpu(monkeypatch, 24)
    assert fitted(given, "vllm").vllm_sleep, "the two take turns"


def test_vllm_counts_its_share_of_the_whole_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    given = Settings(model="Qwen/Qwen3-4B", adapter="none")
    gpu(monkeypatch, 40)
    alone = fitted(given, "vllm")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (40 * GB, 80 * GB))  # others have the rest
    shared = fitted(given, "vllm")
    assert 80 * shared.vllm_gpu_memory == pytest.approx(40 * alone.vllm_gpu_memory, abs=0.5)
    assert shared.training_token_budget == alone.training_token_budget


def test_too_little_memory_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gpu(monkeypatch, 8)
    given = Settings(model="Qwen/Qwen3-8B", adapter="none")
    assert fitted(given, "vllm").gradient_checkpointing
    assert "Qwen/Qwen3-8B needs about" in caplog.text and "8 GB are free: take a smaller model" in caplog.text
    assert not fits_beside_vllm(given)
    gpu(monkeypatch, 80)
    assert fits_beside_vllm(given)


def test_a_model_of_ones_own_is_measured_by_its_configuration(tiny_llama: Path) -> None:
    shape = shape_of(Settings(model=str(tiny_llama)))
    assert (shape.hidden, shape.layers, shape.cached) == (64, 2, 2 * 2 * 2 * 16)
    lines = estimate(Settings(model=str(tiny_llama), device="cpu"), "vllm")
    assert any(line.startswith("vLLM beside it") for line in lines)


def test_a_dry_run_says_what_is_needed_and_loads_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a model is loaded, or something downloaded")

    for name in ("load_model", "embedded.embedded_model"):
        monkeypatch.setattr(f"medserl.models.{name}", refuse)
    run = tmp_path / "run"
    main(["train", "--dry-run", "--model", "Qwen/Qwen3-4B", "--adapter", "none", "--output-dir", str(run)])
    said = capsys.readouterr().out
    assert "Qwen/Qwen3-4B: 4.02 billion parameters, LoRA of rank 16, engine local, cpu" in said
    assert "weights and optimizer: 8.7 GB" in said and "GB are free" in said
    assert not run.exists()


def test_a_dry_run_counts_with_the_values_that_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    given = Settings(model="Qwen/Qwen3-4B", adapter="none")
    gpu(monkeypatch, 24)
    *_, chosen, _ = estimate(given, "local")
    *_, pinned, _ = estimate(given.with_overrides(training_token_budget=16384, gradient_checkpointing=True), "local")
    assert "about 16 are needed with training_token_budget 8192, gradient_checkpointing True" in chosen
    assert "about 23 are needed with training_token_budget 16384, gradient_checkpointing True" in pinned


def test_a_dry_run_refuses_what_could_not_be_trained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--dry-run", "--lora-rank", "0", "--adapter", "none", "--dtype", "bfloat16"])
    assert stopped.value.code == 2 and "are lost in weights of 16 bits" in " ".join(capsys.readouterr().err.split())


def test_an_engine_is_made_with_what_fits(monkeypatch: pytest.MonkeyPatch, tiny_llama: Path) -> None:
    """Warm-up and training alike go through `create_engine`."""
    monkeypatch.setattr(footprint, "fitted", lambda given, engine: given.with_overrides(training_token_budget=512))
    engine: Any = create_engine(Settings(model=str(tiny_llama), adapter="none", device="cpu", engine="local"))
    assert engine.settings.training_token_budget == 512
