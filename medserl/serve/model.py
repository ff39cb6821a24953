"""One model, one call at a time: a bounded queue in front of an Assessor, and the notes that it still has to judge."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol, TypeVar

from medserl.assessor import Finding
from medserl.data.notes import Note
from medserl.errors import MedSeRLError
from medserl.evaluation.thresholds import Threshold
from medserl.game.episode import Episode
from medserl.game.roles import Mode
from medserl.serve.review import Item, Review

log = logging.getLogger("medserl")

T = TypeVar("T")

PLACES = 8
"""Requests that may wait for the model, the one that it works on among them."""
TOGETHER = 8
"""Notes of a file judged in one turn: so long a reviewer's own request waits at most."""


class Judge(Protocol):
    """What is asked of a model: `medserl.assessor.Assessor`, or a stand-in."""

    @property
    def threshold(self) -> Threshold: ...
    def judge(self, notes: Sequence[Note | str]) -> list[Finding]: ...
    def play(self, note: Note | str, mode: Mode = "error", error_type: str | None = None) -> Episode: ...
    def close(self) -> None: ...


class Busy(Exception):
    """As many requests wait for the model as may."""


class Model:
    """The judge in a thread of its own; requests wait their turn, in order, at most `places` of them."""

    def __init__(self, judge: Judge, places: int = PLACES) -> None:
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

    async def judge_file(self, review: Review, items: Sequence[Item], left: Callable[[int, str], None]) -> None:
        """Judge the notes of a file a few at a time; `left` is told how many are left, and what went wrong."""
        for start in range(0, len(items), TOGETHER):
            left(len(items) - start, "")
            try:
                part = items[start : start + TOGETHER]
                review.add(*await asyncio.get_running_loop().run_in_executor(self._thread, self._judged, part))
            except MedSeRLError as error:
                log.error("judging stopped with %d notes left: %s", len(items) - start, error)
                left(len(items) - start, str(error))
                return
        left(0, "")

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
