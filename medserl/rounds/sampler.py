"""Fresh batches: which notes are played in a round, in which mode, all from one seed."""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from medserl.data.readers import read_notes
from medserl.data.sample_paths import sample_path
from medserl.errors import ConfigError, DataError, RunError
from medserl.game.note import ERROR_TYPES, Note
from medserl.game.roles import Mode
from medserl.game.setup import GameSetup

log = logging.getLogger("medserl")


class FreshBatchSampler:
    """Every note once an epoch, in an order of its own each epoch, half of each batch in either mode.

    - Notes without a correct text cannot be played and are left out, with a line in the log.
    - A batch has as many error games as benign ones, or one more of either where its size is odd.
    - The last batch of an epoch is kept where it is smaller than the others, and is as balanced as they are.
    - In epochs 0 and 1 each note is played once in each mode, likewise in 2 and 3, and so on.
    - The type of error is drawn evenly from MEDEC's five, whatever the note's own gold error is.
    - Without `benign` all games are in error mode.
    """

    def __init__(self, notes: Sequence[Note], batch_size: int, seed: int, *, benign: bool = True) -> None:
        """Raises ConfigError on a batch size below 1, DataError where no note can be played."""
        if batch_size < 1:
            raise ConfigError(f"a batch of {batch_size} notes is impossible; use at least 1")
        self.notes = tuple(note for note in notes if note.correct_note is not None)
        if not self.notes:
            raise DataError(f"none of the {len(notes)} notes has a correct text; play needs notes that do")
        if len(self.notes) < len(notes):
            log.warning("%d notes without a correct text are left out of play", len(notes) - len(self.notes))
        if len(self.notes) < batch_size:
            log.warning("batches of %d were asked for, but there are only %d notes", batch_size, len(self.notes))
        self.batch_size = batch_size
        self.seed = seed
        self.benign = benign
        self._epoch = 0
        self._position = 0
        self._batches = self._plan(0)

    @property
    def epoch(self) -> int:
        """The epoch, from 0, that the next batch belongs to."""
        return self._epoch

    @property
    def batches_per_epoch(self) -> int:
        return -(-len(self.notes) // self.batch_size)

    def next_batch(self) -> list[GameSetup]:
        """The next fresh batch; epochs follow one another without end."""
        batch = self._batches[self._position]
        self._move_to(self._epoch, self._position + 1)
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Where the sampler stands (`position` batches of `epoch` are given), and what this holds for."""
        return {"epoch": self._epoch, "position": self._position, **self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, with exactly the batches that would have come next.

        Raises:
            RunError: the state belongs to other notes or modes, another batch size or another seed.
        """
        state = {"benign": True, **state}  # which older states do not say
        for key, mine in self._identity().items():
            if state.get(key) != mine:
                raise RunError(
                    f"cannot resume the order of the notes: {key} is {mine}, but was {state.get(key)}; "
                    "use the notes and settings that the run began with"
                )
        self._move_to(int(state["epoch"]), int(state["position"]))

    def _identity(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        for note in self.notes:
            digest.update(repr((note.note_id, note.correct_note)).encode("utf-8"))
        mine = {"batch_size": self.batch_size, "seed": self.seed, "benign": self.benign}
        return {**mine, "notes_sha256": digest.hexdigest()}

    def _move_to(self, epoch: int, position: int) -> None:
        if position == self.batches_per_epoch:
            epoch, position = epoch + 1, 0
        if epoch != self._epoch:
            self._batches = self._plan(epoch)
        self._epoch, self._position = epoch, position

    def _plan(self, epoch: int) -> list[list[GameSetup]]:
        """All batches of an epoch.

        The modes alternate along the order of the epoch, so that any stretch of it is balanced; each batch is
        then shuffled, so that its order says nothing of the modes.
        """
        rng = random.Random(f"{self.seed}/epoch/{epoch}")
        sides = self._sides(epoch)
        for notes in sides.values():
            rng.shuffle(notes)
        turns = cycle(sorted(sides, key=lambda mode: -len(sides[mode])))
        left = {mode: iter(notes) for mode, notes in sides.items()}
        games = [self._game(next(left[mode]), mode, rng) for mode in islice(turns, len(self.notes))]
        batches = [games[i : i + self.batch_size] for i in range(0, len(games), self.batch_size)]
        for batch in batches:
            rng.shuffle(batch)
        return batches

    def _sides(self, epoch: int) -> dict[Mode, list[Note]]:
        """The notes of each mode: drawn anew every second epoch, changing sides in between."""
        if not self.benign:
            return {"error": list(self.notes)}
        shuffled = list(self.notes)
        random.Random(f"{self.seed}/sides/{epoch // 2}").shuffle(shuffled)
        half = len(shuffled) // 2
        modes: tuple[Mode, Mode] = ("error", "benign") if epoch % 2 == 0 else ("benign", "error")
        return {modes[0]: shuffled[:half], modes[1]: shuffled[half:]}

    @staticmethod
    def _game(note: Note, mode: Mode, rng: random.Random) -> GameSetup:
        return GameSetup(note, mode, rng.choice(ERROR_TYPES) if mode == "error" else None)


def as_games(batch: Sequence[GameSetup] | Sequence[Note], seed: int, *, benign: bool = True) -> list[GameSetup]:
    """The batch as it is; notes are seated in games first, as a batch of `FreshBatchSampler` is, all drawn by `seed`.

    Raises:
        DataError: games and notes are mixed, or no note can be played.
    """
    games = [each for each in batch if isinstance(each, GameSetup)]
    notes = [each for each in batch if isinstance(each, Note)]
    if len(games) == len(batch):
        return games
    if len(notes) < len(batch):
        raise DataError("a batch holds Notes or GameSetups, and one kind alone")
    return FreshBatchSampler(notes, len(notes), seed, benign=benign).next_batch()


def sample_games(size: int = 64, path: str | Path | None = None, seed: int = 0) -> list[GameSetup]:
    """One batch of `size` games on the notes of a file, without `path` on the embedded training notes.

    Raises:
        DataError: the file cannot be used, or holds fewer notes than asked for.
    """
    path = path or sample_path("train")
    sampler = FreshBatchSampler(read_notes(path).notes, size, seed)
    if len(sampler.notes) < size:
        raise DataError(f"{path}: {size} notes were asked for, but it has {len(sampler.notes)} to play on")
    return sampler.next_batch()
