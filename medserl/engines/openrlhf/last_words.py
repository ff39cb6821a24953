"""What vLLM's processes said before they died. Used inside the actor that they belong to.

They print what ends them, and tell whoever waits only that they are dead. What they print is in the actor's own log,
since its output is theirs.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medserl.errors import RunError

TAIL_BYTES = 100_000
REFERS_ELSEWHERE = "root cause"
"""In messages of vLLM's that only point to another one."""
_ERROR = re.compile(r"^.*\] (?:\w+\.)*(\w+(?:Error|Exception): .+)$", re.MULTILINE)


@contextmanager
def cause_named() -> Iterator[None]:
    """Inside, vLLM's news that its process is dead becomes a RunError that says why and where its log is."""
    from vllm.v1.engine.exceptions import EngineDeadError

    try:
        yield
    except (EngineDeadError, RuntimeError) as error:
        if not isinstance(error, EngineDeadError) and REFERS_ELSEWHERE not in str(error):
            raise
        log = own_log()
        cause = last_error(_tail(log)) if log else None
        raise RunError(
            f"vLLM's process died: {cause or 'without a word, as one that was killed'} "
            f"(its log: {log or 'not a file'} on {platform.node()})"
        ) from None


def last_error(printed: str) -> str | None:
    """The last error in vLLM's log that does not refer to another one, say `OutOfMemoryError: CUDA out of memory`."""
    errors = [match[1] for match in _ERROR.finditer(printed) if REFERS_ELSEWHERE not in match[1]]
    return errors[-1] if errors else None


def own_log() -> Path | None:
    """The file that this process prints to, where it is one."""
    try:
        path = Path(os.readlink("/proc/self/fd/1"))
    except OSError:
        return None
    return path if path.is_file() else None


def _tail(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(log.stat().st_size - TAIL_BYTES, 0))
        return file.read().decode(errors="replace")
