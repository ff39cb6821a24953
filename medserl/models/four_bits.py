"""Frozen weights in 4 bits under a LoRA: QLoRA (Dettmers et al. 2023, arXiv 2305.14314), by bitsandbytes.

The matrices of the linear layers are packed as NF4, with double quantisation; what is multiplied, embeddings, norms and
the output matrix keep the type that `dtype` names. The setting is called as in transformers' `BitsAndBytesConfig`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from medserl.config import Settings
from medserl.errors import ConfigError, ModelError
from medserl.models.loading import check_finite_files, pick_device, read_weights, reading

BLOCK, BLOCKS_OF_CONSTANTS = 64, 256
"""Weights that share a scale, and scales of 8 bits that share one of 32 (section 3 of the paper)."""
BYTES_A_WEIGHT = 0.5 + (1 + 4 / BLOCKS_OF_CONSTANTS) / BLOCK
"""4 bits, and 0.127 of scales: 0.516 bytes."""


def require_four_bits(settings: Settings) -> None:
    """Raises ConfigError where `load_in_4bit` is asked for and cannot be had here."""
    if not settings.load_in_4bit or settings.engine == "scripted":
        return
    if not find_spec("bitsandbytes"):
        raise ConfigError("load_in_4bit needs bitsandbytes: pip install 'medserl[4bit]', or give --no-load-in-4bit")
    if pick_device(settings.device) == "mps":
        raise ConfigError("load_in_4bit is for CUDA GPUs and CPUs, not for mps: give --no-load-in-4bit or --device cpu")


def read_packed_weights(source: str, settings: Settings, dtype: Any, tokenizer: Any, device: str) -> Any:
    """The causal language model of `source` on the device, its linear layers in 4 bits that are multiplied as `dtype`.

    Raises:
        ModelError: it cannot be read, lacks weights, is quantised already, or does not fit the tokenizer.
    """
    from transformers import BitsAndBytesConfig
    from transformers.utils.hub import cached_file

    what = f"model {settings.model!r}"
    _require_unpacked(source, settings, what)
    # Its CPU kernels would come from the hub, and it advises to install what fetches them.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    packing = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    model = read_weights(source, settings, dtype, tokenizer, quantization_config=packing, device_map={"": device})
    with reading(what):
        check_finite_files(Path(str(cached_file(source, "config.json"))).parent, what)
    _require_shapes(model, what)
    _stay_packed(model)
    return model


def _require_unpacked(source: str, settings: Settings, what: str) -> None:
    from transformers import AutoConfig

    with reading(what):
        config = AutoConfig.from_pretrained(source, trust_remote_code=settings.trust_remote_code)
    stored = getattr(config, "quantization_config", None)
    if stored:
        method = stored.get("quant_method") if isinstance(stored, dict) else getattr(stored, "quant_method", None)
        raise ModelError(f"{what}: its weights are quantised already ({method}); leave load_in_4bit out")


def _require_shapes(model: Any, what: str) -> None:
    """Raises ModelError where a packed matrix is not of the shape that the configuration says: nothing else looks."""
    for name, layer in model.named_modules():
        if "compute_dtype" not in vars(layer):
            continue
        found, expected = list(layer.weight.quant_state.shape), [layer.out_features, layer.in_features]
        if found != expected:
            raise ModelError(f"{what}: its weight {name}.weight has shape {found}, its config.json says {expected}")


def _stay_packed(model: Any) -> None:
    """On CPUs with AVX512-BF16 bitsandbytes 0.50 packs weights anew when they are first used, less exactly and with no
    way back for gradients. Without that a layer unpacks its matrix and multiplies, in play as in an update.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def is_packed(parameter: Any) -> bool:
    """Whether it is a matrix in 4 bits."""
    return getattr(parameter, "quant_state", None) is not None


@contextmanager
def unpacked_as(model: Any, dtype: Any) -> Iterator[None]:
    """Inside, matrices in 4 bits are unpacked to this type and multiplied in it."""
    layers = [module for module in model.modules() if "compute_dtype" in vars(module)]
    usual = [layer.compute_dtype for layer in layers]
    try:
        for layer in layers:
            layer.compute_dtype = dtype
        yield
    finally:
        for layer, own in zip(layers, usual, strict=True):
            layer.compute_dtype = own


def packed_layers(model: Any) -> list[Any]:
    """The layers of a model that would be packed: linear ones, but not the output matrix, nor experts in one matrix."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return [module for module in model.modules() if isinstance(module, Linear | Conv1D) and module is not head]


def number_of_weights(parameter: Any) -> int:
    """Of a matrix in 4 bits the numbers that it stands for, not the bytes that hold them."""
    return int(parameter.quant_state.shape.numel() if is_packed(parameter) else parameter.numel())
