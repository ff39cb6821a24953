"""Cross-play: Injectors of several checkpoints against Assessors of the same, each pair on the same notes.

In self-play both sides move, so what one wins of the other says little of either. Here every Injector edits the same
notes once, in both modes, and every Assessor judges all of these edits. Where a run's later Assessors lose less to the
same Injector, the Assessor has learnt; where its later Injectors win more of the same Assessor, the Injector has.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medserl import __version__
from medserl.config import GameSettings, Settings
from medserl.data.readers import LoadedNotes
from medserl.engines import create_inference_engine
from medserl.engines.scripted import ScriptedEngine
from medserl.errors import ConfigError, DataError, RunError
from medserl.evaluation.cross_table import CROSS_PLAY, cross_markdown
from medserl.evaluation.frozen import FrozenGame, games_by_mode, play_frozen_games
from medserl.evaluation.predict import predict
from medserl.evaluation.systems import system_of
from medserl.files import write_private
from medserl.game.note import Note
from medserl.game.prompts import load_prompts
from medserl.game.roles import MODES, truth
from medserl.rollout import VCFRolloutGenerator
from medserl.rounds.fitting import fitting_notes
from medserl.runs.checkpoints import find_damage
from medserl.runs.runlog import RunFolder, read_settings

log = logging.getLogger("medserl")

NOTES = 32
"""Notes that are edited, each in both modes, where `--limit` does not say."""
START = "start"
_OF_A_START = ("model", "adapter", "lora_rank", "prompts", "injector_format", "engine", "thinking")
_OWN = ("prompts", "injector_format")
"""What each policy keeps of its own among the settings of the game: it was trained on these words."""


@dataclass(frozen=True)
class Policy:
    """One set of weights: what a run started from, or one of its checkpoints."""

    name: str
    settings: Settings
    checkpoint: Path | None = None


Open = Callable[[Policy], AbstractContextManager[VCFRolloutGenerator]]


def policies_of(runs: Sequence[Path], given: Settings) -> list[Policy]:
    """Start, middle and end of each run, as far as checkpoints of them are there; a start that runs share counts once.

    The end is the newest checkpoint, the middle the one whose round is nearest to half of the end's: a run keeps the
    newest `keep_checkpoints` and its best, so there may be none near to it, and the log says which there are. All play
    by the rules of the first run; settings that are given win.

    Raises:
        RunError: no run is in a folder, or it has no checkpoint, or a damaged one.
        ConfigError: two runs are called alike.
    """
    names = [run.resolve().name for run in runs]
    if len(set(names)) < len(names):
        raise ConfigError("--cross-play: two of these runs are called alike, and the table could not tell them apart")
    asked = given.model_dump(include=given.model_fields_set)
    started = [read_settings(run).with_overrides(**asked) for run in runs]
    rules = started[0].model_dump(include=set(GameSettings.model_fields) - set(_OWN))
    found: list[Policy] = []
    starts: dict[tuple[object, ...], str] = {}
    for run, name, settings in zip(runs, names, started, strict=True):
        own = settings.with_overrides(**rules)
        start = tuple(getattr(own, field) for field in _OF_A_START)
        if start not in starts:
            starts[start] = name
            found.append(Policy(f"{name} {START}", own))
        found += [Policy(f"{name} {path.name.removeprefix('round_')}", *_at(path, own)) for path in _chosen(run)]
    if len(starts) == 1:
        found[0] = Policy(START, found[0].settings)
    return found


def _at(checkpoint: Path, settings: Settings) -> tuple[Settings, Path]:
    scripted = settings.engine == "scripted"  # whose weights are a number in a file of its own
    return settings if scripted else system_of(checkpoint, settings), checkpoint


def _chosen(run: Path) -> list[Path]:
    """The checkpoints of the middle and of the end of a run; the log says which there are."""
    kept = RunFolder(run).checkpoints()
    if not kept:
        raise RunError(f"{run}: no checkpoint in this run yet")
    rounds = [int(path.name.removeprefix("round_")) for path in kept]
    middle = min(range(len(kept)), key=lambda i: abs(rounds[i] - rounds[-1] / 2))
    chosen = [kept[i] for i in dict.fromkeys((middle, len(kept) - 1))]
    for path in chosen:
        if damage := find_damage(path):
            raise RunError(f"checkpoint {path} is damaged: {damage}")
    log.info(
        "%s: checkpoints of rounds %s are there (--keep-checkpoints keeps the newest); playing with %s",
        run, ", ".join(map(str, rounds)), " and ".join(path.name for path in chosen),
    )  # fmt: skip
    return chosen


@contextmanager
def opened(policy: Policy) -> Iterator[VCFRolloutGenerator]:
    """The policy, loaded to play and to judge."""
    settings = policy.settings
    engine = create_inference_engine(settings)
    try:
        if isinstance(engine, ScriptedEngine) and policy.checkpoint:
            engine.load(policy.checkpoint)
        yield VCFRolloutGenerator(engine, load_prompts(settings.prompts, settings.injector_format), settings)
    finally:
        engine.close()


def cross_play(policies: Sequence[Policy], notes: Sequence[Note], seed: int, load: Open = opened) -> dict[str, Any]:
    """Every Injector against every Assessor: the record that `cross_play.json` holds, without a word of any note.

    An Injector wins a game where the Assessor gives a verdict and a wrong one, the mode being the truth.
    """
    games: dict[str, list[FrozenGame]] = {}
    attempted: dict[str, int] = {}
    for policy in policies:
        with load(policy) as rollout:
            playable = fitting_notes(rollout, notes, "notes of cross-play")
            log.info("cross-play: %s edits %d notes in both modes", policy.name, len(playable))
            attempted[policy.name] = len(MODES) * len(playable)
            games[policy.name] = play_frozen_games(rollout, playable, attempted[policy.name], seed)
    cells = []
    for policy in policies:
        with load(policy) as rollout:
            for injector, played in games.items():
                said = predict(rollout, games_by_mode(played), f"{policy.name} judges the edits of {injector}")
                verdicts = [(game.mode, one.verdict) for game, one in zip(played, said, strict=True)]
                cells.append({"injector": injector, "assessor": policy.name, **_counts(verdicts)})
    return {
        "policies": [policy.name for policy in policies],
        "notes": len(notes),
        "injectors": [{"name": name, "played": attempted[name], **_labels(mine)} for name, mine in games.items()],
        "cells": cells,
    }


def _counts(verdicts: Sequence[tuple[Any, Any]]) -> dict[str, Any]:
    by_mode = {}
    for mode in MODES:
        mine = [verdict for of_mode, verdict in verdicts if of_mode == mode]
        won = sum(verdict is not None and verdict != truth(mode) for verdict in mine)
        by_mode[mode] = {"games": len(mine), "won": won, "no_verdict": mine.count(None)}
    return {"games": len(verdicts), "won": sum(each["won"] for each in by_mode.values()), "by_mode": by_mode}


def _labels(games: Sequence[FrozenGame]) -> dict[str, int]:
    """How many edits were accepted, and of how many labels the fact table knows that they are wrong."""
    decided = [game for game in games if game.still_true in ("true", "false")]
    wrong = [game for game in decided if (game.still_true == "true") == (game.mode == "error")]
    return {
        **{f"accepted_{mode}": sum(game.mode == mode for game in games) for mode in MODES},
        "labels_decided": len(decided),
        "labels_wrong": len(wrong),
    }


# -- the command -------------------------------------------------------------------------------------------


def play_runs(
    runs: Sequence[Path], given: Settings, judged: LoadedNotes, limit: int, output: Path | None
) -> tuple[str, list[Path]]:
    """Cross-play of the runs' checkpoints on a fixed choice of the notes; the table, and the files that hold it.

    Written into every run's folder, where its report shows it; with `output` into that folder alone.

    Raises:
        DataError: none of the notes is correct.
        MedSeRLError: a run, a model or a folder cannot be used.
    """
    policies = policies_of(runs, given)
    playable = [note for note in judged.notes if note.correct_note is not None]
    if not playable:
        raise DataError(f"{judged.source}: no note without an error in it, so there is nothing to edit")
    seed = policies[0].settings.seed
    count = min(limit or NOTES, len(playable))
    notes = random.Random(seed).sample(playable, count)
    record = {
        "medserl": __version__,
        "file": {"name": Path(judged.source).name, "sha256": judged.sha256},
        "seed": seed,
        "rules": policies[0].settings.model_dump(mode="json", include=set(GameSettings.model_fields) - set(_OWN)),
        **cross_play(policies, notes, seed),
    }
    targets = [folder / CROSS_PLAY for folder in ([output] if output else runs)]
    for target in targets:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_private(target, json.dumps(record, indent=1))
    return cross_markdown(record), targets
