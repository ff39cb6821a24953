"""Memory that nothing needs any more."""

from __future__ import annotations

import gc
import sys


def free_unused_memory() -> None:
    """Give back models that only cycles refer to, as PEFT's do, and a GPU's memory that torch keeps for later."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
