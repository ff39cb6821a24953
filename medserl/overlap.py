"""`async_rollout`: the next round is played while this one is learnt, for engines with GPUs for each.

Every round but the first is then played with the weights before the latest update. The update allows for it: the
ratio in its loss is to the log-probabilities with which the tokens were sampled, whoever sampled them. New weights are
sent only when all games are over, so no game is played with two sets of them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from medserl.game.setup import GameSetup
from medserl.phases import PhaseClock
from medserl.trainer import MedSeRLTrainer, Played

PlayedAhead = tuple[Sequence[GameSetup], Played, PhaseClock]


class OverlappedTrainer(MedSeRLTrainer):
    """The same rounds on the same batches; the data order, checkpoints and resuming are those of `MedSeRLTrainer`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._threads = ThreadPoolExecutor(max_workers=1)
        self._ahead: Future[PlayedAhead] | None = None

    def training_step(self, batch: Sequence[GameSetup]) -> dict[str, Any]:
        """Learn from this batch, which was played ahead where there was a round before; play the next meanwhile."""
        self.round += 1
        games, played, clock = self._ahead.result() if self._ahead else self._play_ahead(batch, self.round)
        if list(games) != list(batch):
            _, played, clock = self._play_ahead(batch, self.round)
        self._ahead = None
        if self.sampler and self.round < self.total_rounds():
            # a copy looks ahead: the sampler itself, and so a checkpoint, stands where the rounds learnt from end
            following = copy.copy(self.sampler).next_batch()
            self._ahead = self._threads.submit(self._play_ahead, following, self.round + 1)
        return self.learn(played, clock)

    def _play_ahead(self, batch: Sequence[GameSetup], round_number: int) -> PlayedAhead:
        clock = PhaseClock()
        return batch, self.play(batch, round_number, clock), clock

    def sync(self) -> None:
        if self._ahead:
            self._ahead.result()
        super().sync()
