"""What vLLM's own process does for us where all weights are trained. vLLM loads this class by its name there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any


class WeightReader:
    """Methods that vLLM adds to its worker (`worker_extension_cls`); `LLM.collective_rpc` calls them by name."""

    model_runner: Any

    def lost_weight(self) -> str | None:
        """The first layer whose weight vLLM has repacked and thrown away, so that it cannot be replaced."""
        for name, module in self.model_runner.model.named_modules():
            weight = getattr(module, "weight", None)
            if weight is not None and not weight.numel():
                return str(name)
        return None

    def read_weights(self, folder: str) -> None:
        """Replace all weights by those of a Hugging Face folder."""
        self.model_runner.model.load_weights(_weights(Path(folder)))


def _weights(folder: Path) -> Iterator[tuple[str, Any]]:
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                yield name, file.get_tensor(name)
