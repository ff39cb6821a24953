"""No chance in what a model computes: rollout and training must see the same policy.

Some families drop by a module, others by a number that a function is given: `attention_dropout` and its like, the noise
of a router. Both act in training mode, which checkpointing needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.nn.modules.dropout import _DropoutNd
from transformers import PreTrainedConfig

_CHANCE = ("drop", "jitter")


@contextmanager
def without_dropout(model: Any) -> Iterator[None]:
    """Inside, nothing is dropped and no noise added, in training mode either; afterwards all is as it was."""
    changed = [(owner, name, vars(owner)[name]) for owner in _owners(model) for name in _chances(owner)]
    try:
        for owner, name, _ in changed:
            setattr(owner, name, 0.0)
        yield
    finally:
        for owner, name, value in changed:
            setattr(owner, name, value)


def _owners(model: Any) -> list[Any]:
    """The model's modules, and all their configurations, which some of them read at every pass."""
    owners = list(model.modules())
    configs = [config for module in owners if isinstance(config := vars(module).get("config"), PreTrainedConfig)]
    seen: dict[int, Any] = {}
    while configs:
        config = configs.pop()
        if id(config) not in seen:
            seen[id(config)] = config
            configs += [value for value in vars(config).values() if isinstance(value, PreTrainedConfig)]
    return [*owners, *seen.values()]


def _chances(owner: Any) -> list[str]:
    if isinstance(owner, _DropoutNd):
        return ["p"]
    return [
        name
        for name, value in vars(owner).items()
        if any(mark in name for mark in _CHANCE) and type(value) in (int, float) and value
    ]
