"""`async_rollout`: the next round is played while this one is learnt, for engines with GPUs for each.

Every round but the first is then played with the weights before the latest update. The update allows for it: the
ratio in its loss is to the log-probabilities with which the tokens were sampled, whoever sampled them. New weights are
sent only when all games are over, so no game is played with two sets of them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from medserl.game.setup import GameSetup
from medserl.rounds.clock import PhaseClock

if TYPE_CHECKING:
    from medserl.rounds.self_play import Played, SelfPlay

PlayedGames = tuple[Sequence[GameSetup], "Played", PhaseClock]


class PlayAhead:
    """Plays a trainer's rounds, each but the first before it is asked for, on the batches that its sampler gives."""

    def __init__(self, trainer: SelfPlay) -> None:
        self.trainer = trainer
        self._threads = ThreadPoolExecutor(max_workers=1)
        self._ahead: Future[PlayedGames] | None = None

    def take(self, batch: Sequence[GameSetup]) -> tuple[Played, PhaseClock]:
        """The trainer's round on this batch, played ahead where there was one before; the next begins."""
        trainer = self.trainer
        games, played, clock = self._ahead.result() if self._ahead else self._play(batch, trainer.round)
        if list(games) != list(batch):
            _, played, clock = self._play(batch, trainer.round)
        self._ahead = None
        if trainer.round < trainer.total_rounds():
            # a copy looks ahead: the sampler itself, and so a checkpoint, stands where the rounds learnt from end
            following = copy.copy(trainer.sampler).next_batch()
            self._ahead = self._threads.submit(self._play, following, trainer.round + 1)
        return played, clock

    def wait(self) -> None:
        """Until all games are over that are being played."""
        if self._ahead:
            self._ahead.result()

    def _play(self, batch: Sequence[GameSetup], round_number: int) -> PlayedGames:
        clock = PhaseClock()
        return batch, self.trainer.play(batch, round_number, clock), clock
