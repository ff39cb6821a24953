"""The frozen opponent: notes that the starting policy wrote as Injector, kept and judged at every validation.

In self-play both sides move, so the figures of a round's own games say little of either: an Assessor that is right in
half of them may be standing still or running. Against an opponent that never moves a rise is a gain. The games are
played once, before round 1, and stored in the run folder; a resumed run reads them again.

Their label is the mode, which is what the Injector was asked for and not always what it did. Of the sample notes the
fact table often knows whether the modified note is still true: `frozen_fact_*` are the figures with that as the label.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from medserl.errors import RunError
from medserl.evaluation.metrics import detection_metrics
from medserl.evaluation.predict import predict
from medserl.evaluation.predictions import LabelledText
from medserl.game.episode import Episode, StillTrue
from medserl.game.note import ERROR_TYPES, Note
from medserl.game.roles import MODES, Mode
from medserl.game.setup import GameSetup
from medserl.rollout import VCFRolloutGenerator, derive_seed, unjudged
from medserl.runs.runlog import FROZEN_GAMES, RunFolder

log = logging.getLogger("medserl")

BY_MODE = ("accuracy", "pairwise_accuracy", "recall", "specificity", "flag_rate", "no_verdict_rate")
BY_FACT = ("accuracy", "recall", "specificity")
FEWEST_DECIDED = 8
"""Games on which the fact table must decide: a curve over fewer is noise."""


@dataclass(frozen=True)
class FrozenGame:
    """One accepted injection. `still_true` is the fact table's word on the modified note; None without a fact of it."""

    note_id: str
    fact_id: str | None
    mode: Mode
    error_type: str | None
    original: str
    modified: str
    still_true: StillTrue | None


class FrozenOpponent:
    """The games of the starting policy, for any later Assessor to judge."""

    def __init__(self, games: Sequence[FrozenGame]) -> None:
        self.games = tuple(games)
        self._by_mode = games_by_mode(self.games)
        decided = [_text(g, is_error=g.still_true == "false") for g in self.games if g.still_true in ("true", "false")]
        self._by_fact = decided if len(decided) >= FEWEST_DECIDED else []

    def evaluate(self, rollout: VCFRolloutGenerator) -> dict[str, float | None]:
        """`frozen_*`, labelled by mode, and where the fact table decides on 8 games `frozen_fact_*`, labelled by it.

        The Assessor answers greedily. Pairwise: notes with an accepted game in both modes, both judged rightly.
        """
        said = predict(rollout, self._by_mode)
        by_mode = detection_metrics(self._by_mode, said)
        figures = {f"frozen_{name}": getattr(by_mode, name).value for name in BY_MODE}
        if self._by_fact:
            by_fact = detection_metrics(self._by_fact, said)
            figures |= {f"frozen_fact_{name}": getattr(by_fact, name).value for name in BY_FACT}
        return figures


def meet_frozen_opponent(
    rollout: VCFRolloutGenerator, notes: Sequence[Note], run: RunFolder | None, round_number: int
) -> FrozenOpponent | None:
    """The run's stored games; before round 1, where none are stored, they are played and stored now.

    None where `frozen_games` is 0, or where the policy has moved already and no games are stored.

    Raises:
        RunError: the stored games cannot be read, or new ones cannot be written.
    """
    settings = rollout.settings
    if not settings.frozen_games:
        return None
    stored = run.read_frozen_games() if run else None
    if run and stored is not None:
        return FrozenOpponent([_restored(row, run, number) for number, row in enumerate(stored, start=1)])
    if round_number:
        log.warning("no %s from before round 1, so there are no frozen_* figures", FROZEN_GAMES)
        return None
    games = play_frozen_games(rollout, notes, settings.frozen_games, settings.seed)
    if run:
        run.write_frozen_games(asdict(game) for game in games)
    return FrozenOpponent(games)


def play_frozen_games(rollout: VCFRolloutGenerator, notes: Sequence[Note], count: int, seed: int) -> list[FrozenGame]:
    """`count` injections of the current policy (fewer where notes run out), each note in both modes; accepted ones."""
    playable = [note for note in notes if note.correct_note is not None]
    types = [ERROR_TYPES[i % len(ERROR_TYPES)] for i in range(len(playable))]
    setups = [
        GameSetup(note, mode, error_type if mode == "error" else None)
        for note, error_type in zip(playable, types, strict=True)
        for mode in MODES
    ][:count]
    log.info("frozen opponent: the starting policy plays %d games on the validation notes", len(setups))
    attempts = rollout.inject(setups, derive_seed(seed, "frozen"))
    games = [_frozen(episode) for episode in unjudged(setups, attempts) if episode.modified is not None]
    by_mode = Counter(game.mode for game in games)
    log.info(
        "frozen opponent: %d of %d games accepted (%d error, %d benign)",
        len(games), len(setups), by_mode["error"], by_mode["benign"],
    )  # fmt: skip
    return games


def _frozen(episode: Episode) -> FrozenGame:
    assert episode.modified is not None
    return FrozenGame(
        note_id=episode.note_id,
        fact_id=episode.fact_id,
        mode=episode.mode,
        error_type=episode.error_type,
        original=episode.original,
        modified=episode.modified,
        still_true=episode.still_true,
    )


def games_by_mode(games: Iterable[FrozenGame]) -> list[LabelledText]:
    """The modified notes to judge, the mode being the truth."""
    return [_text(game, is_error=game.mode == "error") for game in games]


def _text(game: FrozenGame, is_error: bool) -> LabelledText:
    return LabelledText(f"{game.note_id}-{game.mode}", game.modified, is_error, pair_id=game.note_id)


def _restored(row: dict[str, Any], run: RunFolder, number: int) -> FrozenGame:
    try:
        return FrozenGame(**row)
    except TypeError as error:
        raise RunError(f"{run.path / FROZEN_GAMES}: line {number} is no game of a frozen opponent: {error}") from None
