"""Where weights come from: a hub name, a folder, or the embedded default, with or without a LoRA adapter."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medserl.errors import ModelError
from medserl.files import cache_dir
from medserl.game.roles import Role
from medserl.models.base_names import base_name
from medserl.models.embedded import EMBEDDED, EMBEDDED_HUB, embedded_model
from medserl.models.four_bits import read_packed_weights
from medserl.models.loading import (
    check_adapter_files,
    check_adapter_weights,
    check_finite,
    pick_device,
    read_tokenizer,
    read_weights,
    reading,
    reason,
)
from medserl.models.lora_targets import (
    freeze_all_but_language,
    has_transposed_layers,
    layers_to_transform,
    target_modules,
)
from medserl.models.unused_memory import free_unused_memory

if TYPE_CHECKING:
    from medserl.config import Settings

POLICY = "default"
"""PEFT's name of the adapter that is trained; PEFT saves the adapter of this name at the top of a folder."""
REFERENCE = "reference"
INJECTOR, INJECTOR_REFERENCE = "injector", "injector_reference"
"""The Injector's own adapter, where `adapters` is per_role; `default` is then the Assessor's."""

CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len")
"""What configurations call the number of tokens that a context holds."""


log = logging.getLogger("medserl")


@dataclass(frozen=True)
class LoadedModel:
    """A model ready for an engine; with an adapter, `model` is a PEFT model whose active adapter is `default`."""

    model: Any
    tokenizer: Any
    has_adapter: bool


def load_model(settings: Settings, *, trainable: bool = True) -> LoadedModel:
    """Load the model and adapter that `settings` name.

    With `lora_rank` > 0 and `trainable`, the policy is a LoRA adapter: a copy of the given one, which itself is kept
    as the frozen reference, or a fresh one. With `lora_rank` 0 all weights are trained: a given adapter is first merged
    into them, in float32. Of a model with a vision tower, only the language model is trained. With `load_in_4bit` the
    frozen weights are packed.

    Raises:
        ModelError: the model or adapter cannot be found, fetched or read.
    """
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    free_unused_memory()  # of a model before this one
    device, name = pick_device(settings.device), model_source(settings.model)
    lora = settings.lora_rank > 0
    dtype = getattr(torch, pick_dtype(settings.dtype, device, full_training=trainable and not lora))
    given = adapter_source(settings)
    start = given if trainable and not lora else None
    tokenizer = read_tokenizer(name, settings)
    if settings.load_in_4bit:
        model = read_packed_weights(name, settings, dtype, tokenizer, device)
    else:
        model = read_weights(name, settings, torch.float32 if start else dtype, tokenizer)
        model = merged(model, start, settings).to(dtype) if start else model
        with reading(f"model {settings.model!r}"):
            model.to(device)
        check_finite(model, f"model {settings.model!r}")
        if device == "cpu":
            _off_the_file(model)
    if trainable and not lora:
        freeze_all_but_language(model)
    if settings.gradient_checkpointing and trainable:
        _enable_checkpointing(model)
    if not has_adapter(settings, trainable):
        return LoadedModel(model, tokenizer, has_adapter=False)
    adapted = with_adapter(model, given, settings, trainable)
    return LoadedModel(adapted, tokenizer, has_adapter=True)


def has_adapter(settings: Settings, trainable: bool) -> bool:
    """Whether the policy is an adapter on frozen weights: one is given, or a fresh one is to be trained."""
    return settings.lora_rank > 0 if trainable else adapter_source(settings) is not None


def merged(model: Any, adapter: Path, settings: Settings) -> Any:
    """The model with the adapter added to its weights.

    Raises:
        ModelError: the adapter does not fit the model, or is one for each role.
    """
    if (adapter / INJECTOR).is_dir():
        raise ModelError(f"adapter {adapter} is one for each role, which lora_rank 0 cannot merge into one model")
    plain = with_adapter(model, adapter, settings, trainable=False).merge_and_unload()
    return plain.requires_grad_(True)  # PEFT has frozen them


def _off_the_file(model: Any) -> None:
    """Weights are pages of their file, 4 kB each; memory of our own can have larger ones (scripts/huge_pages.sh)."""
    for weight in model.parameters():
        weight.data = weight.data.clone()


def _enable_checkpointing(model: Any) -> None:
    """Under the name that this transformers has for it."""
    model.enable_input_require_grads()
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    try:
        enable()
    except ValueError as error:
        raise ModelError(f"{type(model).__name__} knows no gradient_checkpointing: switch it off") from error


def with_adapter(model: Any, adapter: Path | None, settings: Settings, trainable: bool) -> Any:
    """The model as PEFT model with the adapter `default`: a copy of the given one, kept as `reference`, or a fresh one.

    Raises:
        ModelError: the adapter, or `lora_targets`, does not fit the model.
    """
    try:
        peft_model = _learning(model, adapter, settings) if trainable or not adapter else _judging(model, adapter)
    except Exception as error:  # of a library that reads the files, as `loading.reading` says
        what = f"adapter {adapter}" if adapter else f"a LoRA on {settings.lora_targets}"
        raise ModelError(f"{what} does not fit {settings.model!r}: {reason(error)}") from error
    peft_model.set_adapter(POLICY, inference_mode=not trainable)
    return _named(peft_model, settings)


def _judging(model: Any, adapter: Path) -> Any:
    from peft import PeftModel

    peft_model = PeftModel.from_pretrained(model, adapter, adapter_name=POLICY)
    check_adapter_weights(peft_model, POLICY, adapter)
    if (adapter / INJECTOR).is_dir():  # a checkpoint with an adapter for each role
        peft_model.load_adapter(adapter / INJECTOR, INJECTOR)
        check_adapter_weights(peft_model, INJECTOR, adapter / INJECTOR)
    return peft_model


def _learning(model: Any, adapter: Path | None, settings: Settings) -> Any:
    """Adapters to train, `reference` beside them where there is something to start from."""
    import torch
    from peft import get_peft_model

    own = adapter / INJECTOR if adapter and (adapter / INJECTOR).is_dir() else None
    per_role = settings.adapters == "per_role"
    torch.manual_seed(settings.seed)  # LoRA's A matrices start at random
    names = settings.lora_targets if adapter is None or settings.lora_targets != "auto" else None
    names = "attention" if names == "auto" else names
    targets = target_modules(model, names) if names else []
    layers = layers_to_transform(model, names) if names else None
    config = partial(_lora_config, targets=targets, layers=layers, transposed=has_transposed_layers(model))
    peft_model = get_peft_model(model, config(adapter, settings), adapter_name=POLICY)
    if per_role:
        peft_model.add_adapter(INJECTOR, config(own or adapter, settings))
    if adapter is None:
        return peft_model
    _fill(peft_model, POLICY, adapter)
    if per_role:
        _fill(peft_model, INJECTOR, own or adapter)
    if settings.needs_reference:
        peft_model.load_adapter(adapter, REFERENCE)
        if per_role and own:
            peft_model.load_adapter(own, INJECTOR_REFERENCE)
    return peft_model


def _lora_config(
    adapter: Path | None, settings: Settings, *, targets: list[str], layers: list[int] | None, transposed: bool
) -> Any:
    """Of an adapter to train: a given one's own, widened to the targets; else what the settings say."""
    from peft import LoraConfig, PeftConfig

    if adapter is None:
        return LoraConfig(
            r=settings.lora_rank,
            lora_alpha=settings.lora_alpha,
            target_modules=targets,
            layers_to_transform=layers,
            task_type="CAUSAL_LM",
            fan_in_fan_out=transposed,
        )
    config: Any = PeftConfig.from_pretrained(str(adapter))
    config.base_model_name_or_path, config.inference_mode = None, False
    if targets and isinstance(config.target_modules, str):
        raise ValueError("it names its layers by a pattern, which lora_targets cannot widen")
    if targets:
        config.target_modules = {*config.target_modules, *targets}
        if layers is None or config.layers_to_transform is None:
            config.layers_to_transform = None
        else:
            config.layers_to_transform = sorted({*config.layers_to_transform, *layers})
    return config


def _fill(peft_model: Any, name: str, adapter: Path) -> None:
    """The weights of a given adapter into one that has room for them; B matrices that it lacks stay at zero."""
    from peft import load_peft_weights, set_peft_model_state_dict

    device = str(next(peft_model.parameters()).device)
    set_peft_model_state_dict(peft_model, load_peft_weights(str(adapter), device=device), adapter_name=name)
    check_adapter_weights(peft_model, name, adapter)


@contextmanager
def reference_weights(peft_model: Any, role: Role = "assessor") -> Iterator[None]:
    """Inside, the PEFT model computes as the frozen reference: with the first adapter, or with none."""
    own = INJECTOR_REFERENCE if role == "injector" and INJECTOR_REFERENCE in peft_model.peft_config else REFERENCE
    if own in peft_model.peft_config:
        peft_model.set_adapter(own, inference_mode=True)
        try:
            yield
        finally:
            peft_model.set_adapter(POLICY)
    else:
        with peft_model.disable_adapter():
            yield


def context_length(config: Any) -> int | None:
    """Tokens that a model's context holds, by its own configuration; None where none is named, as with ALiBi."""
    text = config.get_text_config()  # of a wrapper around a language model and a vision tower, that of the former
    return next((value for name in CONTEXT_NAMES if isinstance(value := getattr(text, name, None), int)), None)


@contextmanager
def attention_for_training(model: Any) -> Iterator[None]:
    """On a CPU torch's fused attention takes longer backwards than all matrix products; the plain one does not."""
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    usual = base.config._attn_implementation
    if base.device.type != "cpu" or usual != "sdpa":
        yield
        return
    base.set_attn_implementation("eager")
    try:
        yield
    finally:
        base.set_attn_implementation(usual)


def _named(peft_model: Any, settings: Settings) -> Any:
    """Saved adapters name the base model so that plain PEFT finds it, not where it lies on this machine."""
    for config in peft_model.peft_config.values():
        config.base_model_name_or_path = public_name(settings.model)
    return peft_model


def public_name(model: str) -> str:
    """What others call the model: the hub's name of the embedded default, or of a folder what `folder_name` finds."""
    embedded = model == EMBEDDED or Path(model).resolve() == (cache_dir() / "models" / EMBEDDED).resolve()
    return EMBEDDED_HUB if embedded else base_name(model)


def adapter_source(settings: Settings) -> Path | None:
    """The adapter's folder: none, the given one, or for `auto` the warm-up shipped for the embedded default."""
    if settings.adapter == "none":
        return None
    if settings.adapter == "auto":
        return shipped_warmup(settings)
    folder = Path(settings.adapter)
    with reading(f"adapter {folder}"):
        if not (folder / "adapter_config.json").is_file():
            raise ModelError(f"adapter {folder}: no adapter_config.json there; give a PEFT folder, or --adapter none")
        check_adapter_files(folder)
    return folder


def shipped_warmup(settings: Settings) -> Path | None:
    """The warm-up adapter that comes with MedSeRL for the embedded default, or None where it does not fit."""
    folder = Path(__file__).parent / "warmup" / f"{EMBEDDED}-{settings.injector_format}-{settings.prompts}"
    return folder if settings.model == EMBEDDED and folder.is_dir() else None


def model_source(name: str) -> str:
    """What `from_pretrained` is given: the embedded default's folder, a local folder, or the hub name itself.

    Raises:
        ModelError: the name looks like a folder and there is no model in it.
    """
    if name == EMBEDDED:
        return str(embedded_model())
    with reading(f"model {name!r}"):
        return _given_source(name)


def _given_source(name: str) -> str:
    path = Path(name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            gguf = next((f" ({file.name} is GGUF)" for file in path.glob("*.gguf")), "")
            raise ModelError(f"model {name!r}: the folder holds no config.json, so it is no Hugging Face model{gguf}")
        return str(path)
    if path.is_file():
        raise ModelError(f"model {name!r}: this is a file; give the folder of a Hugging Face model")
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise ModelError(f"model {name!r}: no such folder; give {EMBEDDED!r}, a hub name (owner/name) or a folder")
    return name


def pick_dtype(name: str, device: str, *, full_training: bool = False) -> str:
    """bfloat16 weights, but float32 where they are trained, or where the CPU has no instructions for bfloat16."""
    if name != "auto":
        return name
    narrow = not full_training and (device != "cpu" or cpu_multiplies_bfloat16())
    return "bfloat16" if narrow else "float32"


_WITHOUT_BFLOAT16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI")
"""Instructions that ONEDNN_MAX_CPU_ISA may hold torch's products to."""


def cpu_multiplies_bfloat16() -> bool:
    """Whether bfloat16 is the faster type here: 2.8 times where the CPU has it, 7 times slower where it has not."""
    import torch

    if os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL").upper() in _WITHOUT_BFLOAT16:
        return False
    # Private names, but nothing public tells; where a torch lacks them, float32 is the safe answer.
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check)() for check in checks if hasattr(torch.cpu, check))
