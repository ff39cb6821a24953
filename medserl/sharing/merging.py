"""An adapter merged into the weights of its base model: added up in float32, rounded once."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medserl.config import Settings
from medserl.errors import ModelError
from medserl.models import POLICY, model_source, with_adapter
from medserl.models.loading import check_finite, read_weights
from medserl.sharing.card import MODEL_CONFIG
from medserl.sharing.card_facts import Prompt

if TYPE_CHECKING:
    from medserl.sharing.shared import Shared

log = logging.getLogger("medserl")

TELLING_LOSS = 0.2
"""Share of an update that rounding may take without a word."""


def merged_model(shared: Shared, settings: Settings, tokenizer: Any, dtype: str) -> Any:
    """The policy as one model, in the base model's own type of weights, or in `dtype` where it is not `auto`.

    Raises:
        ModelError: a part cannot be read, or they do not fit together.
    """
    import torch

    base = model_source(settings.model)
    kept = getattr(torch, dtype) if dtype != "auto" else _own_dtype(base, settings)
    if not shared.is_adapter:
        whole = settings.with_overrides(model=str(shared.weights))
        if kept != torch.float32 and _own_dtype(str(shared.weights), whole) == torch.float32:
            log.warning("float32 weights are rounded to %s; --dtype float32 keeps them", _name(kept))
        return read_weights(str(shared.weights), whole, torch.float32, tokenizer).to(kept)
    if settings.load_in_4bit:
        log.warning(
            "the adapter was trained on weights in 4 bits, and is merged into the original ones: the merged model "
            "answers a little otherwise than the policy that was judged"
        )
    model = read_weights(base, settings, torch.float32, tokenizer)
    adapted = with_adapter(model, shared.weights, settings, trainable=False)
    _check_tied(adapted, shared.weights)
    loss = _rounding_loss(adapted, kept)
    if loss > TELLING_LOSS:
        log.warning(
            "rounding to %s takes %.0f %% of what the adapter adds; --dtype float32 keeps it",
            _name(kept),
            100 * loss,
        )
    whole = adapted.merge_and_unload(adapter_names=[POLICY]).to(kept)
    check_finite(whole, f"the merged model of {shared.weights}")
    return whole


def save_model(model: Any, prompt: Prompt, folder: Path) -> None:
    """Write weights and configurations; whoever generates stops where the game does, greedily.

    The base model's own sampling defaults (a repetition penalty, say) are left out: it was trained without them.
    """
    from transformers import GenerationConfig

    known = model.generation_config
    stops = list(prompt.stop_ids)
    model.generation_config = GenerationConfig(
        bos_token_id=getattr(known, "bos_token_id", None),
        eos_token_id=stops if len(stops) > 1 else stops[0],
        pad_token_id=getattr(known, "pad_token_id", None),
    )
    model.save_pretrained(folder)
    path = folder / MODEL_CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)
    _for_older_readers(config)
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _for_older_readers(config: dict[str, Any]) -> None:
    """transformers 4 takes the base of the rotary embedding from a key of its own, and without it another one."""
    rope = config.get("rope_parameters")
    if isinstance(rope, dict) and rope.get("rope_type") == "default" and "rope_theta" in rope:
        config.setdefault("rope_theta", rope["rope_theta"])


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _own_dtype(base: str, settings: Settings) -> Any:
    import torch
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(base, trust_remote_code=settings.trust_remote_code)
    found = getattr(config, "dtype", None) or getattr(config.get_text_config(), "dtype", None)
    return found if isinstance(found, torch.dtype) else torch.float32


def _lora_layers(adapted: Any) -> list[Any]:
    from peft.tuners.lora import LoraLayer

    return [module for module in adapted.modules() if isinstance(module, LoraLayer) and POLICY in module.lora_A]


def _check_tied(adapted: Any, adapter: Path) -> None:
    """Raises ModelError where the adapter changes a matrix that is both the first and the last of the model."""
    model = adapted.get_base_model()
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    first, last = (getattr(module, "base_layer", module) for module in (embedding, head))
    touched = hasattr(embedding, "base_layer") or hasattr(head, "base_layer")
    if touched and last is not None and first.weight is last.weight:
        raise ModelError(
            f"adapter {adapter}: it changes the output matrix, which this model shares with its embedding, so they "
            "cannot be merged; export it without --merged"
        )


def _rounding_loss(adapted: Any, dtype: Any) -> float:
    """What rounding the merged weights to `dtype` adds to them, relative to what the adapter adds (Frobenius norms)."""
    import torch

    lost = added = 0.0
    with torch.no_grad():
        for layer in _lora_layers(adapted):
            base, delta = layer.get_base_layer().weight, layer.get_delta_weight(POLICY).float()
            whole, rounded_base = base.float() + delta, base.to(dtype).float()
            lost += float((whole.to(dtype).float() - rounded_base - delta).square().sum())
            added += float(delta.square().sum())
    return (lost / added) ** 0.5 if added else 0.0
