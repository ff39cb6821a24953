"""What each command of the command line does, as functions of settings."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from medserl.config import Settings
from medserl.console import say
from medserl.data.notes import ERROR_TYPES, Note
from medserl.data.readers import ColumnNames, LoadedNotes, load_notes
from medserl.data.sample_paths import SampleSplit, is_sample, sample_path
from medserl.engines import create_engine, training_engine_name
from medserl.errors import ConfigError, DataError
from medserl.evaluation.discrimination import pair_ordering
from medserl.evaluation.options import EvaluationOptions
from medserl.evaluation.validation import Validation
from medserl.game.prompts import SHIPPED, load_prompts
from medserl.game.roles import MODES
from medserl.game.setup import GameSetup
from medserl.models import adapter_source
from medserl.overlap import OverlappedTrainer
from medserl.resume import check_extent, resumed_settings
from medserl.rollout import VCFRolloutGenerator, derive_seed
from medserl.runlog import RunFolder
from medserl.sft import WarmUp, format_skill
from medserl.sft import warm_up as run_warm_up
from medserl.tracking import require_wandb
from medserl.trainer import MedSeRLTrainer

log = logging.getLogger("medserl")

_ROWS_NAMED = 10
"""Rows left out of a file that are named one by one; MEDEC's test file has 328."""


def notes_path(source: str, split: SampleSplit) -> Path:
    """The file, or the sample's `split` for the word `sample`."""
    return sample_path(split) if source == "sample" else Path(source)


def read_notes(source: str, split: SampleSplit, settings: Settings | None = None) -> tuple[Note, ...]:
    """Notes of a file, or of the sample; unusable rows are named in the log. Settings may name a file's columns."""
    return _load(source, split, settings).notes


def _load(source: str, split: SampleSplit, settings: Settings | None = None) -> LoadedNotes:
    columns = ColumnNames()
    if settings and source != "sample":
        columns = ColumnNames(settings.id_column, settings.note_column, settings.incorrect_column)
    loaded = load_notes(notes_path(source, split), columns)
    for row in loaded.skipped[:_ROWS_NAMED]:
        log.warning("%s:%d: left out: %s", row.file, row.line, row.why)
    if len(loaded.skipped) > _ROWS_NAMED:
        log.warning("... and %d rows more were left out", len(loaded.skipped) - _ROWS_NAMED)
    if is_sample(source):
        log.info("sample notes (%s): invented patients, for developing software, not for clinical use", split)
    return loaded


def train(settings: Settings) -> Path:
    """Start a run, or go on with one; returns its folder. Nothing is written before data and model are read.

    Raises:
        KeyboardInterrupt: a signal ended the run before its last round, with a checkpoint: what was to follow waits.
    """
    if settings.wandb:
        require_wandb()
    with ExitStack() as held:
        trainer = _resumed(settings, held) if settings.resume else _started(settings, held)
        run = trainer.run
        assert run is not None
        if trainer.finished:
            say(f"{run.path}: the run has all its {trainer.round} rounds; give --max-rounds or --max-epochs to go on")
            return run.path
        say(f"run folder: {run.path}")
        trainer.train()
    if trainer.interrupted:
        raise KeyboardInterrupt
    say(f"done: medserl report {run.path}")
    return run.path


def _started(settings: Settings, held: ExitStack) -> MedSeRLTrainer:
    engine = training_engine_name(settings)
    if engine == "openrlhf":
        settings = settings.with_overrides(engine=engine)  # only it reads its checkpoints
    trainer = build_trainer(settings, engine)
    held.callback(trainer.engine.close)
    trainer.run = RunFolder.create(settings, _data_files(settings))
    held.callback(trainer.run.close)
    return trainer


def _resumed(given: Settings, held: ExitStack) -> MedSeRLTrainer:
    """The run at its newest checkpoint, with what may change changed and written down."""
    path = Path(str(given.resume))
    run, started = RunFolder.reopen(path)
    held.callback(run.close)
    settings, changes = resumed_settings(started, given, path)
    run.require_same_data(_data_files(settings))
    trainer = build_trainer(settings)
    held.callback(trainer.engine.close)
    trainer.run = run
    trainer.load_checkpoint()
    check_extent(trainer, changes)
    if changes:
        run.record_changes(changes, trainer.round)
    if not trainer.finished:
        run.start_tracking(settings, trainer.round + 1 if trainer.round else 0)
    return trainer


def _data_files(settings: Settings) -> dict[str, Path]:
    """What the games of a run follow from, by its use: a resumed run must find it as it was."""
    files = {"prompt_data": notes_path(settings.prompt_data, "train")}
    if settings.validation_data != "none":
        files["validation_data"] = notes_path(settings.validation_data, "validation")
    if settings.prompts not in SHIPPED:
        files["prompts"] = Path(settings.prompts)
    adapter = adapter_source(settings) if settings.engine != "scripted" else None
    if adapter:
        files["adapter"] = adapter / "adapter_model.safetensors"
    return files


def build_trainer(settings: Settings, engine: str | None = None) -> MedSeRLTrainer:
    """A trainer on the settings' notes; `engine` is the one that `auto` means, where that is known already."""
    notes = [note for note in read_notes(settings.prompt_data, "train", settings) if note.correct_note]
    if not notes:
        raise DataError(f"{settings.prompt_data}: no note without an error in it, so there is nothing to play on")
    validation = None
    if settings.validation_data != "none":
        held_out = read_notes(settings.validation_data, "validation", settings)
        validation = Validation(held_out, settings.eval_notes, settings.seed)
    kind = OverlappedTrainer if settings.async_rollout else MedSeRLTrainer
    chosen = settings.with_overrides(engine=engine) if engine else settings
    return kind(settings, create_engine(chosen), notes, validation)


def warm_up(settings: Settings, plan: WarmUp, output: Path, measure: int) -> None:
    """Teach a model both roles and say what it can do then, on validation notes that it has not seen."""
    pairs = [note for note in read_notes(settings.prompt_data, "train", settings) if note.is_pair]
    held_out: tuple[Note, ...] = ()
    if settings.validation_data != "none" and measure:
        held_out = read_notes(settings.validation_data, "validation", settings)
    twins = [(note.correct_note, note.incorrect_note) for note in held_out if note.is_pair][:measure]
    judge = (lambda rollout: pair_ordering(rollout, twins)) if twins else None
    fresh = settings.with_overrides(adapter="none") if settings.adapter == "auto" else settings
    run_warm_up(fresh, pairs, plan, output, judge)
    games = _games(held_out, measure, settings.seed)
    if games:
        rollout = _rollout(settings.with_overrides(adapter=str(output)))
        figures = format_skill(rollout, games, settings.seed)
        if judge:
            figures["validation_pairs_ordered"] = judge(rollout)
        (output / "warmup_metrics.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
        for name, figure in figures.items():
            say(f"{name}: {figure:.3f} ({len(games)} notes)")
    say(f"adapter: {output}")


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
    from medserl.evaluation.inputs import Source, Sources
    from medserl.evaluation.systems import resolve_systems, run_settings

    def source(file: str, split: SampleSplit, columns: Settings | None = None) -> Source:
        return Source(notes_path(file, split), _load(file, split, columns))

    ask_models = options.compare or not options.predictions
    models = resolve_systems(settings, options.compare, options.run) if ask_models else {}
    started = run_settings(settings, options.run)
    use_validation = options.probabilities and started.validation_data != "none"
    sources = Sources(
        judged=source(options.data, "test", settings),
        train=source(started.prompt_data, "train", started),
        validation=source(started.validation_data, "validation", started) if use_validation else None,
    )
    say(judge(sources, models, options, settings.seed))
    say(f"tables, predictions and submissions: {options.folder}")


def play(settings: Settings, note_file: Path | None, mode: str, run: Path | None) -> None:
    """One game, shown."""
    from medserl.evaluation.systems import resolve_systems
    from medserl.show import show_game

    if mode not in MODES:
        raise ConfigError(f"--mode {mode}: give error or benign")
    if run:
        settings = resolve_systems(settings, ["trained"], run)["trained"]
    note = _note_to_play(note_file, settings.seed)
    game = GameSetup(note, mode, random.Random(settings.seed).choice(ERROR_TYPES) if mode == "error" else None)
    show_game(_rollout(settings).play([game], derive_seed(settings.seed, "play"))[0])


def _note_to_play(path: Path | None, seed: int) -> Note:
    if path is None:
        return random.Random(seed).choice(read_notes("sample", "test"))
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"note {path}: {error}") from None
    if not text:
        raise DataError(f"note {path}: the file is empty")
    return Note(path.stem, text)


def medec(source: Path | None, output: Path) -> None:
    """Convert or fetch MEDEC and say what came of it."""
    from medserl.data.medec import convert_medec, fetch_medec

    report = convert_medec(source, output) if source else fetch_medec(output)
    for line in report.lines():
        say(line)
