"""LoRA on OpenRLHF's policy: PEFT exactly as the local engine has it, handed to vLLM as an adapter at every sync.

OpenRLHF's own sync sends PEFT's parameter names to vLLM, which refuses them (its issues 991 and 1349), and W + BA in
bfloat16 would lose most of a small step. So the adapter's files go to each vLLM engine, which serves it beside W.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from openrlhf.models import Actor

from medserl.config import Settings
from medserl.engines.vllm import lora_options, rank_of
from medserl.models import POLICY, adapter_source, with_adapter

Files = dict[str, bytes]
"""The files of an adapter's folder, by name."""


class AdaptedActor(Actor):
    """OpenRLHF's policy model with our adapters on it; OpenRLHF's own LoRA stays off."""

    model: Any

    def __init__(self, pretrain: str, *, settings: Settings, **options: Any) -> None:
        super().__init__(pretrain, **options)
        self.model.enable_input_require_grads()
        self.model = with_adapter(self.model, adapter_source(settings), settings, trainable=True)


def vllm_options(settings: Settings) -> dict[str, Any]:
    """What vLLM has to know of the adapter when it starts. Raises ModelError where it has no room for its rank."""
    adapter = adapter_source(settings)
    # two are kept: a new version comes before the old one goes
    return lora_options(rank_of(adapter) if adapter else settings.lora_rank, at_once=1, kept=2)


def adapter_files(policy: Any) -> Files:
    """The adapter that the PEFT model `policy` trains, as PEFT writes it."""
    with TemporaryDirectory(prefix="medserl_") as folder:
        policy.save_pretrained(folder, selected_adapters=[POLICY], save_embedding_layers=False)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}
