"""LoRA on OpenRLHF's policy: PEFT exactly as the local engine has it, and merged weights for vLLM.

OpenRLHF sends PEFT's parameter names to vLLM, which knows the base model's alone (OpenRLHF issues 991 and 1349). Here
vLLM gets W + BA under W's own name; the trained weights stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from openrlhf.models import Actor
from peft.tuners.lora import LoraLayer
from torch import Tensor

from medserl.config import Settings
from medserl.models import POLICY, adapter_source, with_adapter

_BASE, _PEFT_PREFIX = ".base_layer", "base_model.model."


class AdaptedActor(Actor):
    """OpenRLHF's policy model with our adapters on it; OpenRLHF's own LoRA stays off."""

    model: Any

    def __init__(self, pretrain: str, *, settings: Settings, **options: Any) -> None:
        super().__init__(pretrain, **options)
        self.model.enable_input_require_grads()
        self.model = with_adapter(self.model, adapter_source(settings), settings, trainable=True)


class MergedWeights:
    """What OpenRLHF's weight sync sees in place of the PEFT model: the base model's names, the policy's values."""

    def __init__(self, peft_model: Any) -> None:
        self._model = peft_model

    def named_parameters(self) -> Iterator[tuple[str, MergedWeight]]:
        layers = {name: module for name, module in self._model.named_modules() if isinstance(module, LoraLayer)}
        for name, parameter in self._model.named_parameters():
            if ".lora_" in name:
                continue
            adapted, is_weight = name.removesuffix(f"{_BASE}.weight"), name.endswith(f"{_BASE}.weight")
            base_name = name.removeprefix(_PEFT_PREFIX).replace(_BASE, "")
            yield base_name, MergedWeight(parameter, layers[adapted] if is_weight else None)


class MergedWeight:
    """One parameter, merged when it is read: only one at a time takes memory."""

    requires_grad = True

    def __init__(self, base: Tensor, layer: Any | None) -> None:
        self._base, self._layer = base, layer
        self.shape, self.dtype = base.shape, base.dtype

    @property
    def data(self) -> Tensor:
        if self._layer is None:
            return self._base.data
        with torch.no_grad():  # added up in float32 and rounded once
            return (self._base.data.float() + self._layer.get_delta_weight(POLICY).float()).to(self.dtype)
