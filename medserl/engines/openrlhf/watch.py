"""Waiting for Ray without hanging: whoever waits is told when an engine or a training rank has died meanwhile."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import ray
from ray.core.generated.gcs_pb2 import ActorTableData
from ray.exceptions import RayError, RayTaskError

from medserl.errors import MedSeRLError, RunError

log = logging.getLogger("medserl")

T = TypeVar("T")

LOOK_EVERY_SECONDS = 1.0


class Watch:
    """Runs calls that wait for Ray actors, with an eye on others that those actors may be waiting for in turn.

    A policy actor that sends weights blocks inside a collective until every vLLM engine has received them. If one
    has died, nothing raises there: so each engine has a sentinel, a call that ends only with the engine. A training
    rank makes one call at a time and has no room for a sentinel; Ray's own record of the actor tells of its death.
    """

    def __init__(self) -> None:
        self.sentinels: list[Any] = []
        self.actors: list[Any] = []

    def results(self, references: Sequence[Any], what: str) -> list[Any]:
        """What the calls return, in order. Raises RunError with the first error of any of them."""
        return self.guard(lambda: ray.get(list(references)), what)

    def guard(self, call: Callable[[], T], what: str) -> T:
        """`call`'s result.

        Raises:
            RunError: it raised, or an engine or training rank died while it ran; the message ends with that error.
        """
        outcome: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue()
        threading.Thread(target=_run, args=(call, outcome), daemon=True).start()
        while True:
            try:
                result, error = outcome.get(timeout=LOOK_EVERY_SECONDS)
            except queue.Empty:
                self._look_at_sentinels(what)
                self._look_at_actors(what)
                continue
            if error is not None:
                raise _for_people(error, what) from error
            return result  # type: ignore[return-value]  # a result, since there is no error

    def _look_at_sentinels(self, what: str) -> None:
        if not self.sentinels:
            return
        dead, _ = ray.wait(self.sentinels, num_returns=1, timeout=0)
        if dead:
            try:
                ray.get(dead[0])
            except RayError as error:
                raise _for_people(error, f"{what}: a vLLM engine died") from error
            raise RunError(f"{what}: a vLLM engine stopped")

    def _look_at_actors(self, what: str) -> None:
        for actor in self.actors:
            if actor._get_local_state() != ActorTableData.DEAD:
                continue
            try:
                ray.get(actor.__ray_ready__.remote())
            except RayError as error:
                raise _for_people(error, f"{what}: a training rank died") from error


def _run(call: Callable[[], T], outcome: queue.Queue[tuple[T | None, BaseException | None]]) -> None:
    try:
        outcome.put((call(), None))
    except BaseException as error:  # noqa: BLE001  # handed over to whoever waits
        outcome.put((None, error))


def _for_people(error: BaseException, what: str) -> BaseException:
    """Our own errors as they are; Ray's in one line, with the whole of it in the log."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(cause, MedSeRLError):
        return type(cause)(str(cause))
    if not isinstance(error, RayError):
        return error
    log.error("%s:\n%s", what, error)
    return RunError(f"{what}: {_last_line(str(error))}")


def _last_line(text: str) -> str:
    """Where a traceback in text names the error; pydantic puts a reference after it."""
    lines = [line.strip() for line in text.splitlines()]
    telling = [line for line in lines if line and not line.startswith("For further information")]
    return telling[-1] if telling else "no reason given"
