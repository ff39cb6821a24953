"""What is wrong with a model, its adapter or the device is said in one line, before anything starts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from medserl.cli import main
from medserl.config import Settings
from medserl.errors import ConfigError, MedSeRLError, ModelError
from medserl.models import adapter_source, load_model, loading, model_source

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folder(tiny_llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_llama, tmp_path / "model"))


def settings_of(folder: Path, **changes: Any) -> Settings:
    return Settings(model=str(folder), **{"adapter": "none", "device": "cpu", "dtype": "float32", **changes})


def refusal(folder: Path, **changes: Any) -> str:
    with pytest.raises(MedSeRLError) as caught:
        load_model(settings_of(folder, **changes))
    line = str(caught.value)
    assert "\n" not in line and str(folder) in line
    return line


def edit_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


# -- files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_git_lfs_pointer_is_named(folder: Path, name: str) -> None:
    (folder / name).write_text(POINTER)
    assert f"{name} is a Git LFS pointer" in refusal(folder) and "git lfs pull" in refusal(folder)


@pytest.mark.parametrize(
    "text", ["{", "[1]", '{"model_type": "llama", "hidden_size": "many"}', "{}", '{"model_type": 3}']
)
def test_a_broken_config(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    refusal(folder)


def test_an_unknown_architecture(folder: Path) -> None:
    edit_config(folder, model_type="mystery", architectures=["MysteryForCausalLM"])
    assert "mystery" in refusal(folder)


def test_a_model_with_code_of_its_own(folder: Path) -> None:
    edit_config(folder, model_type="own", auto_map={"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"})
    (folder / "own.py").write_text("raise SystemExit('code of the model was run')")
    assert "--trust-remote-code" in refusal(folder)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("pytorch_model.bin", "pickled"),
        ("model.Q4_K.gguf", "GGUF"),
        ("consolidated.00.pth", "pickled"),
        ("x.txt", "no weights"),
    ],
)
def test_weights_of_another_format(folder: Path, name: str, word: str) -> None:
    (folder / "model.safetensors").rename(folder / name)
    assert word in refusal(folder)


def test_a_folder_of_gguf_alone_and_a_single_file(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"no config\.json.*model\.gguf is GGUF"):
        model_source(str(tmp_path))
    with pytest.raises(ModelError, match="this is a file"):
        model_source(str(tmp_path / "model.gguf"))


def test_truncated_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    refusal(folder)


def test_weights_that_are_lacking_are_not_made_up(folder: Path) -> None:
    edit_weights(folder, lambda weights: weights.pop("lm_head.weight"))
    assert "lm_head.weight" in refusal(folder) and "made up" in refusal(folder)


def test_weights_of_another_shape(folder: Path) -> None:
    edit_config(folder, intermediate_size=96)
    assert "mlp" in refusal(folder) and "config.json says" in refusal(folder)


def test_fewer_layers_than_the_config_says(folder: Path) -> None:
    edit_config(folder, num_hidden_layers=3, layer_types=None)
    assert "layers.2" in refusal(folder)


def test_a_shard_that_is_not_there(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    places = {"lm_head.weight": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    assert "model-00002-of-00002.safetensors" in refusal(folder)


@pytest.mark.parametrize("name", ["generation_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("text", ["{", "[1]"])
def test_other_files_that_are_broken(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    refusal(folder)


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b", "owner/na me", "/" + "a/" * 3000])
def test_names_that_no_file_can_have(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(Settings(model=name, adapter="none", device="cpu"))
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="adapter "):
        adapter_source(Settings(adapter=name))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(folder: Path, value: float) -> None:
    edit_weights(folder, lambda weights: weights["model.layers.1.mlp.up_proj.weight"].view(-1)[7:8].fill_(value))
    assert "layers.1.mlp.up_proj.weight" in refusal(folder)


@pytest.mark.parametrize(
    "quantization",
    [
        {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"},
        {"quant_method": "gptq", "bits": 4, "group_size": 128},
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        {"quant_method": "compressed-tensors", "config_groups": {}, "format": "pack-quantized"},
        {"quant_method": "hqq"},
    ],
    ids=lambda each: each["quant_method"],
)
def test_quantised_weights_without_their_package(folder: Path, quantization: dict[str, Any]) -> None:
    edit_config(folder, quantization_config=quantization)
    refusal(folder)


# -- kinds of models ---------------------------------------------------------------------------------------

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def bert(vocab: int) -> Any:
    from transformers import BertConfig, BertForMaskedLM

    return BertForMaskedLM(BertConfig(vocab_size=vocab, **SMALL))


def t5(vocab: int) -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    return T5ForConditionalGeneration(
        T5Config(vocab_size=vocab, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2)
    )


def bart(vocab: int) -> Any:
    from transformers import BartConfig, BartForConditionalGeneration

    layers = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    return BartForConditionalGeneration(BartConfig(vocab_size=vocab, d_model=32, **layers))


def classifier(vocab: int) -> Any:
    from transformers import LlamaConfig, LlamaForSequenceClassification

    return LlamaForSequenceClassification(LlamaConfig(vocab_size=vocab, **SMALL, tie_word_embeddings=True))


@pytest.mark.parametrize("build", [bert, t5, bart, classifier])
def test_a_model_of_another_kind(folder: Path, build: Callable[[int], Any]) -> None:
    build(384).save_pretrained(folder)
    assert "no causal language model" in refusal(folder)


# -- tokenizers --------------------------------------------------------------------------------------------


def test_no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    refusal(folder)


def test_a_broken_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    refusal(folder)


@pytest.mark.parametrize(
    "template", [None, "{% for m in messages %}{{ m.content }", "{{ unknown_function(messages) }}"]
)
def test_a_template_that_is_missing_or_broken_is_told_before_weights_are_read(
    folder: Path, template: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medserl.models.read_weights", lambda *_: pytest.fail("weights were read"))
    if template is None:
        (folder / "chat_template.jinja").unlink()
    else:
        (folder / "chat_template.jinja").write_text(template)
    assert "chat template" in refusal(folder)


def test_a_tokenizer_of_another_model(folder: Path) -> None:
    edit_config(folder, vocab_size=100)
    edit_weights(
        folder,
        lambda weights: weights.update(
            {name: weights[name][:100].clone() for name in ("lm_head.weight", "model.embed_tokens.weight")}
        ),
    )
    assert "they do not belong" in refusal(folder)


def test_mistral_common_gives_way_to_the_folders_own_template(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where that package is installed and `tekken.json` lies there, transformers gives a tokenizer without one."""
    import transformers

    class MistralCommonBackend:
        name_or_path = ""

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: MistralCommonBackend())
    tokenizer = loading.read_tokenizer(str(folder), settings_of(folder))
    assert tokenizer.chat_template and tokenizer.name_or_path == str(folder)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match=f"{folder}: the tokenizer has no chat template"):
        loading.read_tokenizer(str(folder), settings_of(folder))


# -- devices -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nonsense", "cuda:", "cuda:x", "cuda:-1", "CUDA", "cpu:1", "", "cuda:٣", "xpu"])
def test_a_device_of_no_such_name(name: str) -> None:
    with pytest.raises(ConfigError, match="give auto, cpu, cuda, cuda:N or mps"):
        loading.pick_device(name)


@pytest.mark.parametrize(("count", "name"), [(0, "cuda"), (0, "cuda:0"), (2, "cuda:2"), (2, "cuda:7"), (0, "mps")])
def test_a_device_that_is_not_here(monkeypatch: pytest.MonkeyPatch, count: int, name: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=f"device '{name}': .*give another, or auto"):
        loading.pick_device(name)
    assert loading.pick_device("auto") == ("cuda" if count else "cpu")
    if count:
        assert loading.pick_device("cuda:1") == "cuda:1"


# -- adapters ----------------------------------------------------------------------------------------------


@pytest.fixture
def adapter(folder: Path, tmp_path: Path) -> Path:
    load_model(settings_of(folder, lora_rank=2)).model.save_pretrained(
        tmp_path / "adapter", save_embedding_layers=False
    )
    return tmp_path / "adapter"


def adapter_refusal(folder: Path, adapter: Path, **changes: Any) -> str:
    lines = set()
    for trainable in (True, False):
        with pytest.raises(ModelError) as caught:
            load_model(settings_of(folder, adapter=str(adapter), lora_rank=2, **changes), trainable=trainable)
        lines.add(str(caught.value))
    assert all(str(adapter) in line and "\n" not in line for line in lines)
    return " | ".join(lines)


def test_a_pickled_adapter(folder: Path, adapter: Path) -> None:
    torch.save(load_file(adapter / "adapter_model.safetensors"), adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    assert "pickled" in adapter_refusal(folder, adapter)


@pytest.mark.parametrize(("name", "text"), [("adapter_model.safetensors", POINTER), ("adapter_config.json", "{")])
def test_a_broken_adapter(folder: Path, adapter: Path, name: str, text: str) -> None:
    (adapter / name).write_text(text)
    adapter_refusal(folder, adapter)


def test_an_adapter_of_another_kind(folder: Path, adapter: Path) -> None:
    config = adapter / "adapter_config.json"
    config.write_text(config.read_text().replace('"LORA"', '"PROMPT_TUNING"'))
    assert "PROMPT_TUNING" in adapter_refusal(folder, adapter)


@pytest.mark.parametrize("layers", [1, 3])
def test_an_adapter_made_for_a_model_with_more_or_fewer_layers(folder: Path, adapter: Path, layers: int) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    config.num_hidden_layers, config.layer_types = layers, None
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    assert "does not fit" in adapter_refusal(folder, adapter)


def test_an_adapter_made_for_a_wider_model(folder: Path, adapter: Path) -> None:
    weights = load_file(adapter / "adapter_model.safetensors")
    wide = {name: torch.cat([weight, weight], dim=int("lora_A" in name)) for name, weight in weights.items()}
    save_file(wide, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    assert "size mismatch" in adapter_refusal(folder, adapter)


def test_an_adapter_with_values_that_are_no_numbers(folder: Path, adapter: Path) -> None:
    weights = load_file(adapter / "adapter_model.safetensors")
    weights[max(weights)][0, 0] = float("nan")
    save_file(weights, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    assert "no finite numbers" in adapter_refusal(folder, adapter)


def test_an_adapter_may_still_be_widened(folder: Path, adapter: Path) -> None:
    wide = settings_of(folder, adapter=str(adapter), lora_rank=2, lora_targets="all-linear")
    assert load_model(wide).has_adapter


# -- through the command line ------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["play", "sft", "train", "evaluate", "predict"])
def test_every_command_says_it_in_one_line(
    folder: Path, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_weights(folder, lambda weights: weights.pop("model.norm.weight"))
    flags = {
        "sft": ["--measure", "0", "--output", str(tmp_path / "out")],
        "train": ["--output-dir", str(tmp_path / "out")],
        "predict": ["sample", "--output", str(tmp_path / "out" / "found.jsonl")],
    }
    with pytest.raises(SystemExit) as stopped:
        main([command, "--model", str(folder), "--adapter", "none", "--device", "cpu", *flags.get(command, [])])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert sum(line.startswith("error: ") for line in said.splitlines()) == 1
    assert "Traceback" not in said and not (tmp_path / "out").exists()
