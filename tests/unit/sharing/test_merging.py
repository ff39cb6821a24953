"""A merged model computes what its base computes with the adapter, whatever the family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from medserl.config import Settings
from medserl.errors import ModelError
from medserl.models.loading import read_tokenizer
from medserl.sharing.card_facts import CardFacts, base_of, prompt_of
from medserl.sharing.merging import merged_model, save_model
from medserl.sharing.shared import Shared
from tests.families import write_model

pytestmark = pytest.mark.usefixtures("one_thread")

IDS = torch.arange(5, 60)[None]


def adapter_for(model: Path, folder: Path, **options: Any) -> torch.Tensor:
    """Write an adapter that changes much, and give the logits with it, by PEFT alone."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, task_type="CAUSAL_LM", **options)
    adapted = get_peft_model(base, config).eval()
    adapted.save_pretrained(folder, save_embedding_layers=False)
    with torch.no_grad():
        return adapted(IDS).logits


def shared(model: Path, adapter: Path) -> tuple[Shared, Settings, Any]:
    settings = Settings(model=str(model), device="cpu", adapter="none")
    facts = CardFacts(
        made_by="test", base=base_of(settings), notes=(), start="", signals=(), seed=0, prompt=prompt_of(settings)
    )
    return Shared(adapter, adapter, None, settings, facts), settings, read_tokenizer(str(model), settings)


def exported(model: Path, adapter: Path, output: Path, dtype: str = "auto") -> Any:
    """The merged model, saved and loaded by transformers alone."""
    from transformers import AutoModelForCausalLM

    source, settings, tokenizer = shared(model, adapter)
    save_model(merged_model(source, settings, tokenizer, dtype), source.facts.prompt, output)
    return AutoModelForCausalLM.from_pretrained(output, dtype="auto").eval()


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("Llama", {}),
        ("GPT-2", {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
        ("Gemma 3", {}),
        ("Phi-3", {"target_modules": ["qkv_proj", "o_proj"]}),
        ("Gemma 3 with vision", {"target_modules": r".*language_model.*\.q_proj"}),
    ],
)
def test_a_merged_model_computes_what_the_adapter_does(family: str, options: dict[str, Any], tmp_path: Path) -> None:
    write_model(family, tmp_path / "model")
    expected = adapter_for(tmp_path / "model", tmp_path / "adapter", **options)
    model = exported(tmp_path / "model", tmp_path / "adapter", tmp_path / "whole", "float32")
    with torch.no_grad():
        torch.testing.assert_close(model(IDS).logits, expected, rtol=1e-4, atol=1e-4)


def tied(tmp_path: Path, tiny_llama: Path) -> Path:
    """The tiny Llama in bfloat16, its first and last matrix the same."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.bfloat16)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(tmp_path / "tied")
    AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(tmp_path / "tied")
    return tmp_path / "tied"


def test_tied_embeddings_stay_tied_and_the_type_is_the_bases(tmp_path: Path, tiny_llama: Path) -> None:
    from safetensors import safe_open

    base = tied(tmp_path, tiny_llama)
    expected = adapter_for(base, tmp_path / "adapter")
    model = exported(base, tmp_path / "adapter", tmp_path / "whole")
    assert model.dtype == torch.bfloat16
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    with safe_open(tmp_path / "whole" / "model.safetensors", "pt") as weights:
        assert "lm_head.weight" not in set(weights.keys())
    config = json.loads((tmp_path / "whole" / "config.json").read_text(encoding="utf-8"))
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]
    with torch.no_grad():
        assert torch.corrcoef(torch.stack([model(IDS).logits.float().flatten(), expected.flatten()]))[0, 1] > 0.999


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")  # PEFT's own, of the same
def test_an_adapter_on_a_tied_output_is_not_merged(tmp_path: Path, tiny_llama: Path) -> None:
    base = tied(tmp_path, tiny_llama)
    adapter_for(base, tmp_path / "adapter", target_modules=["q_proj", "lm_head"])
    source, settings, tokenizer = shared(base, tmp_path / "adapter")
    with pytest.raises(ModelError, match="shares with its embedding"):
        merged_model(source, settings, tokenizer, "auto")


def test_an_update_that_rounding_takes_is_told(
    tmp_path: Path, tiny_llama: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from safetensors.torch import load_file, save_file

    base = tied(tmp_path, tiny_llama)
    adapter_for(base, tmp_path / "adapter")
    source, settings, tokenizer = shared(base, tmp_path / "adapter")
    merged_model(source, settings, tokenizer, "auto")
    assert "rounding" not in caplog.text
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({name: 1e-3 * weight for name, weight in load_file(file).items()}, file)
    merged_model(source, settings, tokenizer, "float32")
    assert "rounding" not in caplog.text
    merged_model(source, settings, tokenizer, "auto")
    assert "rounding to bfloat16 takes" in caplog.text and "--dtype float32 keeps it" in caplog.text
