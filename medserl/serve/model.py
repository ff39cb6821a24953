"""One model, one call at a time: a bounded queue in front of an Assessor."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol, TypeVar

from medserl.evaluation.thresholds import Threshold
from medserl.game.episode import Episode
from medserl.game.note import Note
from medserl.game.roles import Mode
from medserl.prediction.assessor import Finding
from medserl.serve.review import Item

T = TypeVar("T")

WAITING_PLACES = 8
"""Requests that may wait for the model, the one that it works on among them."""


class Judge(Protocol):
    """What is asked of a model: `medserl.prediction.assessor.Assessor`, or a stand-in."""

    @property
    def threshold(self) -> Threshold: ...
    def judge(self, notes: Sequence[Note | str]) -> list[Finding]: ...
    def play(self, note: Note | str, mode: Mode = "error", error_type: str | None = None) -> Episode: ...
    def close(self) -> None: ...


class Busy(Exception):
    """As many requests wait for the model as may."""


class Model:
    """The judge in a thread of its own; requests wait their turn, in order, at most `places` of them."""

    def __init__(self, judge: Judge, places: int = WAITING_PLACES) -> None:
        self._judge = judge
        self._places = places
        self._asked = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")

    @property
    def asked(self) -> int:
        """Requests that have a place: the one that is worked on, and those that wait."""
        return self._asked

    async def judge(self, items: Sequence[Item]) -> tuple[list[Item], str]:
        """The notes with what was found in them, and the threshold in words.

        Raises:
            Busy: too many requests wait.
            MedSeRLError: the model cannot do it.
        """
        return await self._turn(lambda: self._judged(items))

    async def play(self, item: Item, mode: Mode, error_type: str | None) -> Episode:
        """One game on a note. Raises as `judge`."""
        return await self._turn(lambda: self._judge.play(Note(item.note_id, item.text), mode, error_type))

    async def judge_some(self, items: Sequence[Item]) -> tuple[list[Item], str]:
        """As `judge`, for notes of a file: after all that came before, and without a place among the requests."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._judged, items)

    def close(self) -> None:
        """Waits for the call under way, and drops those that wait."""
        self._thread.shutdown(cancel_futures=True)
        self._judge.close()

    async def _turn(self, call: Callable[[], T]) -> T:
        if self._asked >= self._places:
            raise Busy
        self._asked += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, call)
        finally:
            self._asked -= 1

    def _judged(self, items: Sequence[Item]) -> tuple[list[Item], str]:
        found = self._judge.judge([Note(item.note_id, item.text, sentences=item.sentences) for item in items])
        threshold = self._judge.threshold
        judged = [
            replace(item, finding=finding, threshold=threshold.value)
            for item, finding in zip(items, found, strict=True)
        ]
        return judged, threshold.describe()
