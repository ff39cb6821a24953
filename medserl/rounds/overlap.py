"""`async_rollout`: the next round is played while this one is learnt, for engines with GPUs for each.

Every round but the first is then played with the weights before the latest update. The update allows for it: the
ratio in its loss is to the log-probabilities with which the tokens were sampled, whoever sampled them. New weights are
sent only when all games are over, so no game is played with two sets of them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from medserl.game.setup import GameSetup
from medserl.rounds.clock import PhaseClock
from medserl.rounds.sampler import FreshBatchSampler

Played = TypeVar("Played")


class PlayAhead(Generic[Played]):
    """Plays rounds, each but the first before it is asked for, on the batches that the sampler gives."""

    def __init__(
        self, play: Callable[[Sequence[GameSetup], int, PhaseClock], Played], sampler: FreshBatchSampler
    ) -> None:
        """`play` plays one round: its games, its number, and the clock that takes its time."""
        self._play_round, self._sampler = play, sampler
        self._threads = ThreadPoolExecutor(max_workers=1)
        self._ahead: Future[tuple[Sequence[GameSetup], Played, PhaseClock]] | None = None

    def take(self, batch: Sequence[GameSetup], round_number: int, *, is_last: bool) -> tuple[Played, PhaseClock]:
        """The round on this batch, played ahead where there was one before; the next begins, if one comes."""
        games, played, clock = self._ahead.result() if self._ahead else self._play(batch, round_number)
        if list(games) != list(batch):
            _, played, clock = self._play(batch, round_number)
        self._ahead = None
        if not is_last:
            # a copy looks ahead: the sampler itself, and so a checkpoint, stands where the rounds learnt from end
            following = copy.copy(self._sampler).next_batch()
            self._ahead = self._threads.submit(self._play, following, round_number + 1)
        return played, clock

    def wait(self) -> None:
        """Until all games are over that are being played."""
        if self._ahead:
            self._ahead.result()

    def _play(self, batch: Sequence[GameSetup], round_number: int) -> tuple[Sequence[GameSetup], Played, PhaseClock]:
        clock = PhaseClock()
        return batch, self._play_round(batch, round_number, clock), clock
