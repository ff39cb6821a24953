"""Whose weights act: the LoRA adapters of a PEFT model by role, and the frozen reference.

One frozen base carries all of them. The policy is the adapter `default`; with `adapters = per_role` that is the
Assessor's alone, and `injector` is the Injector's.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.nn import Parameter

from medserl.errors import RunError
from medserl.game.roles import Role
from medserl.models import INJECTOR, POLICY, reference_weights

ADAPTER_FILE = "adapter_model.safetensors"


@contextmanager
def inputs_as_they_are(model: Any) -> Iterator[None]:
    """Inside, LoRA layers of a narrow model take its activations as they are, and need `narrow_products` around them.

    The trained matrices are float32, so that small steps count. PEFT makes every activation float32 to multiply by
    them, which is a quarter of an update's time on a CPU.
    """
    if not is_narrow(model):
        yield
        return
    from peft.helpers import disable_input_dtype_casting

    with disable_input_dtype_casting(model):
        yield


def narrow_products(model: Any) -> torch.autocast:
    """Inside, a narrow model multiplies by its LoRA matrices as by its own: in bfloat16, or float16."""
    return torch.autocast(model.device.type, dtype=model.dtype, enabled=is_narrow(model))


@contextmanager
def multiplying_narrowly(model: Any) -> Iterator[None]:
    """Both: inside, a narrow model plays as it is trained; on a CPU it reads prompts in about 0.6 of the time."""
    with inputs_as_they_are(model), narrow_products(model):
        yield


def is_narrow(model: Any) -> bool:
    """Whether it has LoRA matrices on weights of half their width."""
    return hasattr(model, "peft_config") and model.dtype in (torch.bfloat16, torch.float16)


class PolicyAdapters:
    """The adapters of one PEFT model. Outside `acting`, `default` is active."""

    def __init__(self, peft_model: Any) -> None:
        self.model = peft_model
        injector = INJECTOR if INJECTOR in peft_model.peft_config else POLICY
        self.by_role: dict[Role, str] = {"injector": injector, "assessor": POLICY}

    @property
    def trained(self) -> list[str]:
        return sorted(set(self.by_role.values()))

    def parameters(self) -> list[Parameter]:
        """Of all trained adapters, whichever of them is active."""
        marks = [f".{name}." for name in self.trained]
        return [p for name, p in self.model.named_parameters() if any(mark in name for mark in marks)]

    @contextmanager
    def acting(self, role: Role, *, reference: bool = False) -> Iterator[None]:
        """Inside, the model computes as this role of the policy, or as the frozen reference."""
        if reference:
            with reference_weights(self.model, role):
                yield
            return
        name = self.by_role[role]
        if name != POLICY:
            self.model.set_adapter(name)
        try:
            yield
        finally:
            if name != POLICY:
                self.model.set_adapter(POLICY)

    def save(self, folder: Path) -> None:
        """`default` at the top, an ordinary PEFT folder; `injector` in a folder of that name below."""
        # PEFT would ask the hub whether the vocabulary grew; it never does here.
        self.model.save_pretrained(folder, selected_adapters=self.trained, save_embedding_layers=False)

    def write(self, name: str, folder: Path) -> None:
        """One adapter as a PEFT folder of its own, in the precision that it is trained in."""
        from peft import get_peft_model_state_dict
        from safetensors.torch import save_file

        folder.mkdir()
        weights = get_peft_model_state_dict(self.model, adapter_name=name, save_embedding_layers=False)
        save_file({key: weight.cpu().contiguous() for key, weight in weights.items()}, folder / ADAPTER_FILE)
        config = copy.copy(self.model.peft_config[name])
        config.inference_mode = True
        config.save_pretrained(str(folder))

    def size(self, name: str) -> int:
        """Bytes of one adapter."""
        return sum(p.numel() * p.element_size() for key, p in self.model.named_parameters() if f".{name}." in key)

    def load(self, folder: Path) -> None:
        """What `save` wrote. Raises RunError where an adapter is not of the same layers."""
        for name in self.trained:
            if name != POLICY and not (folder / name).is_dir():
                raise RunError(f"{folder}: it has one adapter for both roles, but the setting adapters is 'per_role'")
            self._load(folder if name == POLICY else folder / name, name)
        self.model.set_adapter(POLICY)

    def _load(self, folder: Path, name: str) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Found missing adapter keys")  # an error, below
            found = self.model.load_adapter(folder, name, is_trainable=True)
        strange = [*found.missing_keys, *found.unexpected_keys]
        if strange:
            raise RunError(f"{folder}: its adapter is not that of this run: {strange[0]} is in one of them alone")
