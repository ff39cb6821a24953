"""No chance in what a model computes: rollout and training must see the same policy.

Training mode is needed by one thing alone: transformers checkpoints only there. So only the modules that checkpoint are
in it, and what they themselves would drop is 0. All others stay as they are when the model plays: their dropout, the
noise of a router, experts that are drawn at random.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import PreTrainedConfig

_DROPPED = "drop"
"""In the name of every number that is a chance: `attention_dropout`, `resid_pdrop`, `layerdrop`."""


@contextmanager
def without_chance(model: Any, *, checkpointing: bool) -> Iterator[None]:
    """Inside, the model computes what it does in evaluation, with checkpoints if they are enabled and wanted.

    Afterwards it is in evaluation mode, and all numbers are what they were.
    """
    model.eval()
    modules = [
        module for module in model.modules() if checkpointing and getattr(module, "gradient_checkpointing", False)
    ]
    owners = [*modules, *(_configurations(model) if modules else [])]
    changed = [
        (owner, name, value) for owner in owners for name, value in vars(owner).items() if _is_chance(name, value)
    ]
    try:
        for module in modules:
            module.training = True
        for owner, name, _ in changed:
            setattr(owner, name, 0.0)
        yield
    finally:
        for owner, name, value in changed:
            setattr(owner, name, value)
        model.eval()


def _configurations(model: Any) -> list[Any]:
    """All configurations of the model and its parts: some modules read them at every pass."""
    left = [config for module in model.modules() if isinstance(config := vars(module).get("config"), PreTrainedConfig)]
    found: dict[int, Any] = {}
    while left:
        config = left.pop()
        if id(config) not in found:
            found[id(config)] = config
            left += [value for value in vars(config).values() if isinstance(value, PreTrainedConfig)]
    return list(found.values())


def _is_chance(name: str, value: Any) -> bool:
    return _DROPPED in name and type(value) in (int, float) and value != 0
