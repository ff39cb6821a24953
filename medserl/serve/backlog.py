"""Notes of a file that the model has not judged yet: it does so a few at a time, while the reviewer works."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from medserl.errors import MedSeRLError
from medserl.serve.model import Model
from medserl.serve.review import Item, Review

log = logging.getLogger("medserl")

TOGETHER = 8
"""Notes judged in one turn: so long a reviewer's own request waits at most."""


class Backlog:
    """What is left to judge, and the task that does it. `trouble` says why it stopped, where it did."""

    def __init__(self, review: Review, model: Model, items: Iterable[Item] = ()) -> None:
        self._review = review
        self._model = model
        self._items = list(items)
        self._task: asyncio.Task[None] | None = None
        self.trouble = ""

    @property
    def left(self) -> int:
        return len(self._items)

    def start(self, more: Iterable[Item] = ()) -> None:
        """Judge what is left, and these notes; called where a loop runs."""
        self._items += more
        self.trouble = ""
        if self._items and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _work(self) -> None:
        try:
            while self._items:
                part = self._items[:TOGETHER]
                self._review.add(*await self._model.judge_some(part))
                del self._items[: len(part)]
        except MedSeRLError as error:
            self._stopped(str(error))
        except Exception as error:
            self._stopped(f"a defect ({type(error).__name__}); the terminal says more")
            raise

    def _stopped(self, why: str) -> None:
        self.trouble = f"judging stopped with {self.left} notes left: {why}"
        log.error("%s", self.trouble)
