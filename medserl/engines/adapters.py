"""Whose weights act: the LoRA adapters of a PEFT model by role, the frozen reference, and past policies.

One frozen base carries all of them. The policy is the adapter `default`; with `adapters = per_role` that is the
Assessor's alone, and `injector` is the Injector's. A past policy NAME is a copy of each: `NAME_default` and so on.
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
        self._past: list[str] = []

    @property
    def trained(self) -> list[str]:
        return sorted(set(self.by_role.values()))

    @property
    def names(self) -> list[str]:
        """The trained adapters and the past policies' copies."""
        return [*self.trained, *self._past]

    def name_of(self, role: Role, snapshot: str | None = None) -> str:
        """The adapter that writes as this role of the policy, or of a past policy."""
        return self._copy_of(self.by_role[role], snapshot) if snapshot else self.by_role[role]

    def parameters(self) -> list[Parameter]:
        """Of all trained adapters, whichever of them is active."""
        marks = [f".{name}." for name in self.trained]
        return [p for name, p in self.model.named_parameters() if any(mark in name for mark in marks)]

    @contextmanager
    def acting(self, role: Role, snapshot: str | None = None, *, reference: bool = False) -> Iterator[None]:
        """Inside, the model computes as this role of the policy, of a past policy, or as the frozen reference."""
        if reference:
            with reference_weights(self.model, role):
                yield
            return
        name = self.name_of(role, snapshot)
        if name != POLICY:
            self.model.set_adapter(name, inference_mode=snapshot is not None)
        try:
            yield
        finally:
            if name != POLICY:
                self.model.set_adapter(POLICY)

    def remember(self, snapshot: str) -> None:
        from peft import get_peft_model_state_dict, set_peft_model_state_dict

        for name in self.trained:
            kept = self._copy_of(name, snapshot)
            weights = get_peft_model_state_dict(self.model, adapter_name=name, save_embedding_layers=False)
            self.model.add_adapter(kept, copy.deepcopy(self.model.peft_config[name]))
            set_peft_model_state_dict(self.model, weights, adapter_name=kept)
            self._past.append(kept)
        self.model.set_adapter(POLICY)

    def forget(self, snapshot: str) -> None:
        for name in self.trained:
            self._drop(self._copy_of(name, snapshot))
        self.model.set_adapter(POLICY)

    def _drop(self, kept: str) -> None:
        self.model.delete_adapter(kept)
        self._past.remove(kept)

    def save(self, folder: Path) -> None:
        """`default` at the top, an ordinary PEFT folder; every other adapter in a folder of its own name below."""
        # PEFT would ask the hub whether the vocabulary grew; it never does here.
        self.model.save_pretrained(folder, selected_adapters=self.names, save_embedding_layers=False)

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
        """What `save` wrote, and no past policy besides. Raises RunError where an adapter is not of the same layers."""
        for kept in list(self._past):
            self._drop(kept)
        for name in self.trained:
            if name != POLICY and not (folder / name).is_dir():
                raise RunError(f"{folder}: it has one adapter for both roles, but the setting adapters is 'per_role'")
            self._load(folder if name == POLICY else folder / name, name, trainable=True)
        suffixes = tuple(f"_{name}" for name in self.trained)
        for kept in sorted(path.parent.name for path in folder.glob("*/adapter_config.json")):
            if kept.endswith(suffixes):
                self._load(folder / kept, kept)
                self._past.append(kept)
        self.model.set_adapter(POLICY)

    def _load(self, folder: Path, name: str, *, trainable: bool = False) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Found missing adapter keys")  # an error, below
            found = self.model.load_adapter(folder, name, is_trainable=trainable)
        strange = [*found.missing_keys, *found.unexpected_keys]
        if strange:
            raise RunError(f"{folder}: its adapter is not that of this run: {strange[0]} is in one of them alone")
        configs = (
            self.model.peft_config
        )  # a past policy's is read from the folder, which an older version may have made
        configs[name].base_model_name_or_path = configs[POLICY].base_model_name_or_path

    @staticmethod
    def _copy_of(name: str, snapshot: str) -> str:
        return f"{snapshot}_{name}"
