"""What each command of the command line does, as functions of settings."""

from __future__ import annotations

import json
import logging
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medserl.config import Settings
from medserl.data.readers import LoadedNotes
from medserl.data.sources import AUTO, COLUMN_SETTINGS, NONE, load, run_data
from medserl.display.console import say
from medserl.display.markdown import say_markdown
from medserl.display.shares import as_count
from medserl.engines import create_engine, training_engine_name
from medserl.errors import ConfigError, DataError
from medserl.evaluation.discrimination import pair_ordering
from medserl.evaluation.options import EvaluationOptions
from medserl.evaluation.predictions import labelled_texts
from medserl.evaluation.thresholds import Threshold, weights_key, write_threshold
from medserl.game.note import ERROR_TYPES, Note
from medserl.game.prompts import load_prompts
from medserl.game.roles import MODES
from medserl.game.setup import GameSetup
from medserl.rollout import VCFRolloutGenerator, derive_seed
from medserl.rounds.fitting import fitting_notes
from medserl.runs.runlog import read_settings
from medserl.sft import WarmUp, format_skill
from medserl.sft import warm_up as run_warm_up
from medserl.sharing.card import add_figures
from medserl.trainer import MedSeRLTrainer

if TYPE_CHECKING:
    from medserl.evaluation.inputs import Sources

log = logging.getLogger("medserl")

_HELD_OUT = "validation notes"
PAIRS_ORDERED = "validation_pairs_ordered"


def train(settings: Settings) -> Path:
    """Start a run, or go on with one; returns its folder. Nothing is written before data and model are read.

    Raises:
        KeyboardInterrupt: a signal ended the run before its last round, with a checkpoint: what was to follow waits.
    """
    with MedSeRLTrainer(settings) as trainer:
        folder = trainer.start()
        assert folder is not None
        if trainer.finished:
            say(
                f"{folder.path}: the run has all its {trainer.round} rounds; give --max-rounds or --max-epochs to go on"
            )
            return folder.path
        say(f"run folder: {folder.path}")
        trainer.train()
    if trainer.interrupted:
        raise KeyboardInterrupt
    say(f"done: medserl report {folder.path}")
    return folder.path


def tell_memory(settings: Settings) -> None:
    """Say what training takes of this machine's memory, as far as it can be told without the model.

    Raises:
        ConfigError: nothing could be learnt with these settings.
        ModelError: the model's configuration cannot be read.
    """
    from medserl.models.footprint import estimate

    settings.require_trainable()
    for line in estimate(settings, training_engine_name(settings)):
        say(line)


def warm_up(
    settings: Settings,
    plan: WarmUp,
    output: Path,
    measure: int,
    without_pairs: str = "give a file that holds some, or --prompt-data sample",
) -> None:
    """Teach a model both roles and say what it can do then, on validation notes that it has not seen.

    Raises:
        ConfigError: the adapter cannot go to `output`.
        DataError: there are no pairs to learn from; `without_pairs` says what to do then.
    """
    if measure < 0:
        raise ConfigError(f"--measure {measure}: give 0 or more")
    check_adapter_folder(output)
    data = run_data(settings)
    pairs = [note for note in data.train.notes if note.is_pair]
    if not pairs:
        raise DataError(
            f"{settings.prompt_data}: no pairs of a correct note and its wrong twin, which a warm-up learns from; "
            f"{without_pairs}"
        )
    held_out = data.validation.notes if data.validation and measure else ()
    twins = [note for note in held_out if note.is_pair][:measure]
    judge = (lambda rollout: _pairs_ordered(rollout, twins)) if twins else None
    run_warm_up(settings, pairs, plan, output, judge)
    if _games(held_out, measure, settings.seed):
        rollout = _rollout(settings.with_overrides(adapter=str(output)))
        fitting = fitting_notes(rollout, held_out, _HELD_OUT)
        games = _games(fitting, measure, settings.seed)
        figures = format_skill(rollout, games, settings.seed)
        counts, threshold = dict.fromkeys(figures, len(games)), None
        if judge:
            figures[PAIRS_ORDERED], counts[PAIRS_ORDERED] = judge(rollout)
            threshold = _keep_threshold(rollout, twins, data.validation_name, output)
        add_figures(output, figures, counts, threshold)
        (output / "warmup_metrics.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
        for name, figure in figures.items():
            n = counts[name]
            said = (as_count(figure, n) if name != PAIRS_ORDERED else None) or f"{figure:.3f} of {n}"
            say(f"{name}: {said} {'pairs' if name == PAIRS_ORDERED else 'notes'}")
    say(f"adapter: {output}")


def _keep_threshold(
    rollout: VCFRolloutGenerator, notes: Sequence[Note], source: str, adapter: Path
) -> Threshold | None:
    """Choose a threshold for a new adapter on validation pairs, and keep it in its folder."""
    from medserl.evaluation.choosing import threshold_on

    chosen = threshold_on(rollout, labelled_texts(notes), source)
    if chosen:
        write_threshold(adapter, weights_key(rollout.settings), chosen)
        say(f"threshold: {chosen.describe()}")
    return chosen


def check_adapter_folder(output: Path) -> None:
    """Raises ConfigError where an adapter would be mixed with other files, or could not be written."""
    try:
        if output.is_dir() and not (output / "adapter_config.json").is_file() and any(output.iterdir()):
            raise ConfigError(f"--output {output}: the folder holds other files; name one for the adapter alone")
        there = next(folder for folder in (output, *output.absolute().parents) if folder.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise ConfigError(f"--output {output}: {there} is no folder that can be written; name another")
    except OSError as error:
        raise ConfigError(f"--output {output}: {error.strerror or error}; name another folder") from None


def _pairs_ordered(rollout: VCFRolloutGenerator, notes: Sequence[Note]) -> tuple[float, int]:
    """The share of pairs that are ordered rightly, and of how many."""
    pairs = fitting_notes(rollout, notes, _HELD_OUT)
    return pair_ordering(rollout, [(note.correct_note, note.incorrect_note) for note in pairs]), len(pairs)


def _rollout(settings: Settings) -> VCFRolloutGenerator:
    prompts = load_prompts(settings.prompts, settings.injector_format)
    return VCFRolloutGenerator(create_engine(settings, trainable=False), prompts, settings)


def _games(notes: Sequence[Note], count: int, seed: int) -> list[GameSetup]:
    """Games on the first `count` notes, modes in turn."""
    rng = random.Random(seed)
    playable = [note for note in notes if note.correct_note][:count]
    modes = [MODES[i % 2] for i in range(len(playable))]
    return [
        GameSetup(note, mode, rng.choice(ERROR_TYPES) if mode == "error" else None)
        for note, mode in zip(playable, modes, strict=True)
    ]


def evaluate(settings: Settings, options: EvaluationOptions) -> None:
    """Judge the labelled notes with each system, or score what systems said of them, and write it all."""
    from medserl.evaluation.evaluate import evaluate as judge
    from medserl.evaluation.systems import resolve_systems

    judged = load(options.data, "test", settings)
    if options.cross_play:
        cross_play(settings, options, judged)
        return
    _require_labels(judged)
    ask_models = options.compare or not options.predictions
    models = resolve_systems(settings, options.compare, options.run) if ask_models else {}
    tables, folder = judge(_sources(judged, settings, options), models, options, settings.seed)
    say_markdown(tables)
    say(f"tables, predictions and submissions: {folder}")


def cross_play(settings: Settings, options: EvaluationOptions, notes: LoadedNotes) -> None:
    """Injectors of several checkpoints against Assessors of the same."""
    from medserl.evaluation.cross_play import play_runs

    table, files = play_runs(options.cross_play, settings, notes, options.limit, options.output)
    say_markdown(table)
    for file in files:
        say(f"table: {file}")


def _require_labels(judged: LoadedNotes) -> None:
    """Raises DataError where nobody says which of the notes are correct."""
    unlabelled = sum(not note.labelled for note in judged.notes)
    if unlabelled:
        raise DataError(
            f"{judged.source}: {unlabelled} notes without a label, and without labels there is nothing to score; "
            f"`medserl predict {judged.source}` judges them all the same, or name the column of labels with "
            "--label-column, or call the column correct_note where all notes are correct"
        )


def _sources(judged: LoadedNotes, settings: Settings, options: EvaluationOptions) -> Sources:
    """The notes to judge, those that the run learnt from, and those that thresholds are chosen on, if asked for."""
    from medserl.evaluation.inputs import Source, Sources
    from medserl.evaluation.systems import run_settings

    started = run_settings(settings, options.run)
    if options.run:  # flags that name columns are about the notes to judge
        recorded = read_settings(options.run).model_dump()
        started = started.with_overrides(**{name: recorded[name] for name in (*COLUMN_SETTINGS, "seed")})
    if not options.thresholds and started.validation_data != AUTO:
        started = started.with_overrides(validation_data=NONE)
    data = run_data(started, lenient=True)
    validation = None
    if options.thresholds and data.validation:
        name = Path(data.validation.source)
        validation = Source(name if not data.is_split else Path(f"split of {name.name}"), data.validation)
    return Sources(Source(Path(judged.source), judged), Source(Path(data.learnt.source), data.learnt), validation)


def play(settings: Settings, note_file: Path | None, mode: str, run: Path | None) -> None:
    """One game, shown."""
    from medserl.display.game import show_game
    from medserl.evaluation.systems import resolve_systems

    if mode not in MODES:
        raise ConfigError(f"--mode {mode}: give error or benign")
    if run:
        settings = resolve_systems(settings, ["trained"], run)["trained"]
    note = _note_to_play(note_file, settings.seed)
    game = GameSetup(note, mode, random.Random(settings.seed).choice(ERROR_TYPES) if mode == "error" else None)
    show_game(_rollout(settings).play([game], derive_seed(settings.seed, "play"))[0])


def _note_to_play(path: Path | None, seed: int) -> Note:
    """The note of a file, or for `-` of standard input; without either one of the sample's."""
    if path is None:
        return random.Random(seed).choice(load("sample", "test").notes)
    try:
        text = (_standard_input() if str(path) == "-" else path.read_text(encoding="utf-8")).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"note {path}: {error}") from None
    if not text:
        raise DataError(f"note {path}: the file is empty")
    return Note(path.stem, text)


def _standard_input() -> str:
    if sys.stdin is None:
        raise DataError("note -: standard input is closed")
    stream = getattr(sys.stdin, "buffer", None)
    return stream.read().decode("utf-8") if stream else sys.stdin.read()


def medec(source: Path | None, output: Path) -> None:
    """Convert or fetch MEDEC and say what came of it."""
    from medserl.data.medec import convert_medec, fetch_medec

    report = convert_medec(source, output) if source else fetch_medec(output)
    for line in report.lines():
        say(line)
