"""One pass through a model: the arguments that its family takes, and the logits that are wanted."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from torch import Tensor

_CACHES = ("cache", "past_key_values", "cache_params")
"""What families and versions of transformers call the key-value cache, as an argument and in what they return."""


def logits_at(model: Any, rows: Tensor, columns: Tensor, **inputs: Any) -> tuple[Tensor, Any]:
    """Float logits at these places of the input, (N, V), and the cache where `use_cache` is given.

    The output matrix is applied to these places alone. What a family does after it, such as capping or scaling, is its
    own code.
    """
    picked = False

    def pick(_: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
        nonlocal picked
        picked = given[0].shape[:-1] == inputs["input_ids"].shape
        return (given[0][rows, columns][None], *given[1:]) if picked else given

    base = model.get_base_model() if hasattr(model, "peft_config") else model
    accepted, cache = _arguments(type(base).forward)
    inputs[cache] = inputs.pop("cache", None)
    head = base.get_output_embeddings()
    hook = head.register_forward_pre_hook(pick) if head is not None else None
    try:
        done = model(**{name: value for name, value in inputs.items() if name in accepted or None in accepted})
    finally:
        if hook:
            hook.remove()
    logits = done.logits[0] if picked else done.logits[rows, columns]
    return logits.float(), getattr(done, cache, None)


@lru_cache(maxsize=32)
def _arguments(forward: Callable[..., Any]) -> tuple[frozenset[str | None], str]:
    """Names that a model takes, None among them where it takes any, and what it calls its cache."""
    parameters = inspect.signature(forward).parameters
    names: set[str | None] = set(parameters)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        names.add(None)
    return frozenset(names), next((name for name in _CACHES if name in names), _CACHES[0])
