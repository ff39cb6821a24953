"""vLLM's process beside ours: neither waits for the other's ghost.

vLLM 0.29 waits for ever for an answer of its own process where that was killed, as by a system out of memory; and that
process goes on where ours was killed. A Ctrl-C of the terminal, which ends our run with its round, is kept from it.
"""

from __future__ import annotations

import multiprocessing
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any, Protocol, TypeVar

from medserl.errors import RunError

DIED = "vLLM's process died, see its own lines above; give the same command to go on"
LOOKED_AFTER = 1.0
"""Seconds between two looks at whether the process lives, while it is asked something."""
LAST_WORDS = 5.0
"""Seconds that a process which has just died has for its error to arrive."""

T = TypeVar("T")


class Process(Protocol):
    @property
    def pid(self) -> int | None: ...

    def is_alive(self) -> bool: ...


class VLLMProcess:
    """The processes that vLLM started; none where it runs in ours."""

    def __init__(self, processes: Sequence[Process] = ()) -> None:
        self._processes = processes
        pids = [process.pid for process in processes if process.pid]
        self._watcher = _ends_with_us(pids) if pids else None

    def ask(self, call: Callable[[], T]) -> T:
        """What `call` gives, or RunError where vLLM's process dies first."""
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            return self._waited_for(call) if self._processes else call()
        except EngineDeadError as error:
            raise RunError(DIED) from error

    def _waited_for(self, call: Callable[[], T]) -> T:
        answers: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(1)

        def run() -> None:
            try:
                answers.put((call(), None))
            except BaseException as error:  # noqa: BLE001 - raised again by who asked
                answers.put((None, error))

        threading.Thread(target=run, name="asks vLLM", daemon=True).start()
        while True:
            alive = all(map(_is_alive, self._processes))
            try:
                value, error = answers.get(timeout=LOOKED_AFTER if alive else LAST_WORDS)
            except queue.Empty:
                if alive:
                    continue
                raise RunError(DIED) from None
            if error:
                raise error
            return value  # type: ignore[return-value]

    def close(self) -> None:
        """The processes have ended, or will be ended by vLLM."""
        if self._watcher:
            self._watcher.kill()
            self._watcher.wait()
            assert self._watcher.stdin
            self._watcher.stdin.close()
            self._watcher = None


def _is_alive(process: Process) -> bool:
    try:
        return process.is_alive()
    except ValueError:  # vLLM has closed it
        return False


def _ends_with_us(pids: Sequence[int]) -> subprocess.Popen[bytes]:
    """A shell that kills these processes when ours ends, however it ends: it reads what nobody writes."""
    return subprocess.Popen(
        ["/bin/sh", "-c", 'read -r _; kill -9 "$@" 2>/dev/null', "sh", *map(str, pids)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )


def start_process(make: Callable[[], Any]) -> tuple[Any, VLLMProcess]:
    """What `make` starts, and the processes that it is in."""
    before = set(multiprocessing.active_children())
    with _left_alone_by_ctrl_c():
        llm = make()
    return llm, VLLMProcess([child for child in multiprocessing.active_children() if child not in before])


@contextmanager
def _left_alone_by_ctrl_c() -> Iterator[None]:
    """Processes that are started inside never get the terminal's SIGINT: what is blocked is inherited."""
    resource_tracker.ensure_running()  # which unblocks SIGINT where it starts only now
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
