"""Which layers of a model a LoRA adapter goes to, whatever its family calls them, and what else of it is trained.

`attention` is the linear layers of the attention, fused or not: `q_proj` and its like, GPT-2's `attn.c_attn`, Phi-3's
`qkv_proj`, the linear attention of a hybrid. Only the language model counts: a vision tower sees no note.
`upper-linear` is all linear layers but those of the lowest quarter of the model: nothing need be learnt back through
that, which saves a fifth of an update.
"""

from __future__ import annotations

import logging
from typing import Any

from medserl.models.four_bits import number_of_weights

UPPER_LINEAR = "upper-linear"

log = logging.getLogger("medserl")


def target_modules(model: Any, names: str) -> list[str]:
    """PEFT's `target_modules` for `attention`, `all-linear` or names with commas: the shortest that hit no other layer.

    Those of `upper-linear` are the same as of `all-linear`: which layers is said by `layers_to_transform`.

    Raises:
        ValueError: there is no such layer; the message names those that there are.
    """
    return _shortest(model, _wanted(model, names))


def layers_to_transform(model: Any, names: str) -> list[int] | None:
    """PEFT's numbers of the layers that get an adapter; None for all of them."""
    count = model.config.get_text_config().num_hidden_layers
    return list(range(count // 4, count)) if names == UPPER_LINEAR and count // 4 else None


def _wanted(model: Any, names: str) -> list[str]:
    layers = _language_layers(model)
    linear = [path for path, module in layers.items() if _is_linear(module)]
    if names in ("all-linear", UPPER_LINEAR):
        found = [path for path in linear if not _read_past_lora(model, path)]
        _tell_of_experts(model)
    elif names == "attention":
        found = [path for path in linear if _in_attention(model, path)]
    else:
        found = []
        for name in (part.strip() for part in names.split(",")):
            mine = [path for path in layers if f".{path}".endswith(f".{name}")]
            if not mine:
                raise ValueError(f"no layer {name!r}; {_there_are(linear)}")
            found += mine
    if not found:
        raise ValueError(f"no layer of the kind {names!r}; {_there_are(linear)}")
    return found


def _there_are(linear: list[str]) -> str:
    return f"its linear layers are {', '.join(_last_names(linear))}: name some of them with lora_targets"


def _last_names(paths: list[str]) -> list[str]:
    return list(dict.fromkeys(path.rsplit(".", 1)[-1] for path in paths))


def _shortest(model: Any, paths: list[str]) -> list[str]:
    """Endings of the paths that all of them have and no other layer has; else the paths themselves."""
    wanted = set(paths)
    everywhere = [path for path, _ in model.named_modules()]
    for parts in (1, 2):
        endings = list(dict.fromkeys(".".join(path.split(".")[-parts:]) for path in paths))
        if {path for path in everywhere if any(f".{path}".endswith(f".{ending}") for ending in endings)} == wanted:
            return endings
    return paths


def _language_layers(model: Any) -> dict[str, Any]:
    """The layers without children of the language model, by path: not the output matrix, nor a vision tower."""
    head = model.get_output_embeddings()
    prefix = language_prefix(model)
    return {
        path: module
        for path, module in model.named_modules()
        if path.startswith(prefix) and module is not head and not any(True for _ in module.children())
    }


def language_prefix(model: Any) -> str:
    """How the paths of the language model begin, where it is part of a larger one; empty where it is all."""
    if model.config.get_text_config() is model.config:
        return ""
    decoder = model.get_decoder()
    return next((f"{path}." for path, module in model.named_modules() if module is decoder and path), "")


def freeze_all_but_language(model: Any) -> None:
    """Of a model with a vision tower, only the language model is trained."""
    prefix, head = language_prefix(model), model.get_output_embeddings()
    spared = {id(parameter) for parameter in head.parameters()} if head is not None else set()
    for path, parameter in model.named_parameters():
        if not path.startswith(prefix) and id(parameter) not in spared:
            parameter.requires_grad_(False)


def has_transposed_layers(model: Any) -> bool:
    """Whether linear layers hold their weights as inputs x outputs, as GPT-2's do: PEFT wants to be told."""
    from transformers.pytorch_utils import Conv1D

    return any(isinstance(module, Conv1D) for module in model.modules())


def trained_in_words(model: Any) -> str:
    """What of a model is trained, with its number of parameters."""
    parameters = list(model.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    paths = [path for path, module in model.named_modules() if hasattr(module, "lora_A")]
    if paths:
        what = f"a LoRA on {len(paths)} layers ({', '.join(_last_names(paths))})"
    else:
        what = "all weights" if all(p.requires_grad for p in parameters) else "all weights of the language model"
    return f"training {what}: {trained:,} of {sum(map(number_of_weights, parameters)):,} parameters"


def _is_linear(module: Any) -> bool:
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Linear | Conv1D)


def _in_attention(model: Any, path: str) -> bool:
    """By the name of a module around the layer, or the class of the one right around it."""
    around = path.rpartition(".")[0]
    named = any("attn" in part or "attention" in part for part in around.lower().split("."))
    return named or type(model.get_submodule(around)).__name__.endswith("Attention")


def _read_past_lora(model: Any, path: str) -> bool:
    """A router gives more than a product; Mamba's kernels take the output projection's weight without LoRA's part."""
    around, _, name = path.rpartition(".")
    mixer = model.get_submodule(around)
    return "router" in name or (name == "out_proj" and hasattr(mixer, "A_log") and hasattr(mixer, "D"))


def _tell_of_experts(model: Any) -> None:
    experts = [path for path, parameter in model.named_parameters() if parameter.ndim == 3 and "expert" in path]
    if experts:
        log.warning(
            "all-linear: %d matrices of experts (%s) are no linear layers and get no LoRA",
            len(experts),
            ", ".join(_last_names(experts)),
        )
