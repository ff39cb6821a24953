"""The most memory that this process has held."""

from __future__ import annotations

import sys


def peak_memory_of_process() -> int:
    """In bytes; what a GPU holds is not in it."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
