"""Which layers a LoRA goes to, what is trained, and what is refused."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from medserl.config import Settings
from medserl.engines import create_engine
from medserl.engines.dropout import without_chance
from medserl.engines.peak_memory import peak_memory_of_process
from medserl.errors import ConfigError, ModelError
from medserl.models import _enable_checkpointing
from medserl.models.lora_targets import target_modules, trained_in_words
from tests.families import FAMILIES, engine_of, learn, played, write_model
from tests.places import ROOT


def model_of(family: str) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_config(FAMILIES[family]())


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("Llama", ["q_proj", "k_proj", "v_proj", "o_proj"]),
        ("GPT-2", ["attn.c_attn", "attn.c_proj"]),  # the MLP has a c_proj too
        ("Phi-3", ["o_proj", "qkv_proj"]),
        ("MPT", ["Wqkv", "out_proj"]),
    ],
)
def test_attention_is_found_whatever_its_names(family: str, expected: list[str]) -> None:
    assert target_modules(model_of(family), "attention") == expected


@pytest.mark.parametrize("names", ["attention", "all-linear", "q_proj, fc2", "q_proj"])
def test_no_lora_in_a_vision_tower(names: str) -> None:
    model = model_of("Gemma 3 with vision")
    if "fc2" in names:  # the vision tower's alone
        with pytest.raises(ValueError, match="no layer 'fc2'; its linear layers are q_proj"):
            target_modules(model, names)
        return
    found = target_modules(model, names)
    assert found and all(path.startswith("model.language_model.layers.") for path in found)


def test_routers_and_mambas_output_projection_are_no_linear_layers() -> None:
    assert "router" not in target_modules(model_of("Llama 4"), "all-linear")
    assert "out_proj" not in target_modules(model_of("Falcon-H1"), "all-linear")


def test_experts_that_get_no_lora_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "medserl"):
        target_modules(model_of("Qwen3-MoE"), "all-linear")
    assert "get no LoRA" in caplog.text


def test_a_name_that_matches_nothing_beside_one_that_does_is_refused(tiny_llama: Path) -> None:
    with pytest.raises(ModelError, match=r"no layer 'wqkv'; its linear layers are q_proj, k_proj") as caught:
        engine_of(tiny_llama, lora_targets="q_proj, wqkv")
    assert "\n" not in str(caught.value)


def test_what_is_trained_is_told_with_its_number(tiny_llama: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "medserl"):
        engine = engine_of(tiny_llama)
    count = sum(p.numel() for p in engine.model.parameters() if p.requires_grad)
    assert f"training a LoRA on 8 layers (q_proj, k_proj, v_proj, o_proj): {count:,} of" in caplog.text
    assert learn(engine, played(engine)).trained_parameters == count
    assert trained_in_words(engine_of(tiny_llama, lora_rank=0).model).startswith("training all weights: ")


def test_all_weights_of_a_wrapper_are_those_of_its_language_model(tmp_path: Path) -> None:
    write_model("Gemma 3 with vision", tmp_path)
    model = engine_of(tmp_path, lora_rank=0).model
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if "vision" in name or "projector" in name}
    assert "all weights of the language model" in trained_in_words(model)
    assert engine_of(tmp_path).context == 512


def test_rank_0_trains_all_weights_with_the_adapter_merged(tiny_llama: Path, tmp_path: Path) -> None:
    warm = engine_of(tiny_llama)
    for _ in range(2):
        learn(warm, turns := played(warm))
    warm.save(tmp_path)
    engine = engine_of(tiny_llama, adapter=str(tmp_path), lora_rank=0)
    assert not hasattr(engine.model, "peft_config")
    assert all(p.requires_grad for p in engine.model.parameters())
    for reference in (False, True):
        for mine, its in zip(engine.logprobs(turns, reference=reference), warm.logprobs(turns), strict=True):
            assert mine == pytest.approx(its, abs=1e-5)


def test_rank_0_refuses_an_adapter_for_each_role(tiny_llama: Path, tmp_path: Path) -> None:
    engine_of(tiny_llama, adapters="per_role").save(tmp_path)
    with pytest.raises(ModelError, match="one for each role") as caught:
        engine_of(tiny_llama, adapter=str(tmp_path), lora_rank=0)
    assert "\n" not in str(caught.value)


def test_rank_0_on_openrlhf_refuses_an_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    from medserl.engines.openrlhf import constraints

    monkeypatch.setattr(constraints, "missing_packages", list)
    with pytest.raises(ConfigError, match="OpenRLHF cannot first add the adapter") as caught:
        create_engine(Settings(engine="openrlhf", lora_rank=0))
    assert "\n" not in str(caught.value)


# -- chance ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["Granite", "Falcon", "OPT", "GPT-2", "Mixtral with router noise"])
def test_nothing_is_left_to_chance_under_checkpointing_and_all_comes_back(family: str) -> None:
    model = model_of(family)
    _enable_checkpointing(model)
    owners = [*model.eval().modules(), model.config]

    def numbers() -> list[tuple[str, float]]:
        return [(name, value) for each in owners for name, value in vars(each).items() if type(value) in (int, float)]

    ids, before, runs = torch.arange(3, 40)[None], numbers(), []
    layer = next(module for module in model.modules() if isinstance(module, GradientCheckpointingLayer))
    next(layer.children()).register_forward_hook(lambda *_: runs.append(1))
    expected = model(input_ids=ids).logits
    runs.clear()
    with without_chance(model, checkpointing=True):
        logits = model(input_ids=ids, use_cache=False).logits
        logits.sum().backward()
    torch.testing.assert_close(logits, expected)
    assert len(runs) == 2  # forwards, and again backwards
    assert numbers() == before and not model.training


def test_dropout_of_a_given_adapter_is_off_when_it_learns(tiny_llama: Path, tmp_path: Path) -> None:
    engine_of(tiny_llama).save(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"lora_dropout": 0.0', '"lora_dropout": 0.5'), "utf-8")
    engine = engine_of(tiny_llama, adapter=str(tmp_path), gradient_checkpointing=True)
    learn(engine, played(engine))  # B is no longer 0, so that dropout would show
    turns = played(engine)
    assert learn(engine, turns).logprob_gap_max < 5e-6


def test_a_family_without_checkpointing_says_so(tmp_path: Path) -> None:
    from transformers import CTRLConfig, CTRLLMHeadModel

    write_model("Llama", tmp_path)  # for its tokenizer
    CTRLLMHeadModel(CTRLConfig(vocab_size=384, n_embd=32, dff=64, n_layer=1, n_head=4)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="CTRLLMHeadModel knows no gradient_checkpointing") as caught:
        engine_of(tmp_path, gradient_checkpointing=True)
    assert "\n" not in str(caught.value)


# -- memory ------------------------------------------------------------------------------------------------


def test_peak_memory_where_there_is_no_module_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""
    import psutil

    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=12345))
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setattr(psutil, "Process", lambda: process)
    assert peak_memory_of_process() == 12345


def test_no_module_wants_resource_when_it_is_imported() -> None:
    for path in (ROOT / "medserl").rglob("*.py"):
        assert "\nimport resource" not in path.read_text(encoding="utf-8"), path


def test_peak_memory_here() -> None:
    assert peak_memory_of_process() > 10 * 2**20
