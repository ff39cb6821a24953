"""How a run starts or goes on: what was given is read and checked before a model is loaded or anything is written.

Notes that are given as a list are put into the run folder when the run starts, and the settings of the run name these
files: from there on it is a run like any other, to resume, to evaluate and to report on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medserl.config import Settings
from medserl.data.given import NoteLike, given_notes, require_alike
from medserl.data.readers import BY_GUESS, LoadedNotes
from medserl.data.sources import AUTO, COLUMN_SETTINGS, NONE, SAMPLE, RunData, column_names, data_files, run_data
from medserl.data.writing import note_lines
from medserl.engines import create_engine, training_engine_name
from medserl.engines.base import Engine
from medserl.errors import ConfigError
from medserl.evaluation.validation import Validation
from medserl.game.note import Note
from medserl.game.prompts import SHIPPED
from medserl.models import adapter_source
from medserl.models.four_bits import require_four_bits
from medserl.rollout import VCFRolloutGenerator
from medserl.rounds.fitting import fitting_notes
from medserl.runs.resume import Changes, resumed_settings
from medserl.runs.runlog import RunFolder, default_path
from medserl.runs.tracking import require_wandb

log = logging.getLogger("medserl")

GIVEN_NOTES: Mapping[str, str] = {"prompt_data": "notes.jsonl", "validation_data": "validation.jsonl"}
"""The file of a run folder that holds the notes given for a setting."""

_ARGUMENTS = {"prompt_data": "notes", "validation_data": "validation"}


@dataclass
class RunPlan:
    """A run before its first round, or one that goes on.

    `run` is the folder of a run that goes on, and `changes` are the settings that change with it. `lists` are the notes
    that were given as lists, by the setting that they stand for.
    """

    settings: Settings
    data: RunData
    run: RunFolder | None = None
    changes: Changes = field(default_factory=dict)
    lists: dict[str, LoadedNotes] = field(default_factory=dict)

    def fitting(self, rollout: VCFRolloutGenerator) -> tuple[list[Note], list[Note] | None, Validation | None]:
        """The training notes that can be played on, the notes that gold pairs are taken from where these are others,
        both as far as they fit into the model's context, and what validates.

        Raises:
            DataError: none fits.
        """
        train, gold, held_out = self.data.train, self.data.gold, self.data.validation
        playable = (note for note in train.notes if note.correct_note is not None)
        notes = fitting_notes(rollout, playable, f"training notes of {train.source}")
        pairs = fitting_notes(rollout, gold.notes, f"gold pairs of {gold.source}") if gold else None
        if held_out is None:
            return notes, pairs, None
        judged = fitting_notes(rollout, held_out.notes, f"validation notes of {held_out.source}")
        return notes, pairs, Validation(judged, self.settings.eval_notes, self.settings.seed)

    def start(self) -> RunFolder:
        """Make the folder of the run.

        Raises:
            RunError: there is a run in the folder already, or it cannot be written.
        """
        own = {GIVEN_NOTES[setting]: note_lines(loaded.notes) for setting, loaded in self.lists.items()}
        return RunFolder.create(self.settings, input_files(self.settings), self.data.record(), own)


def plan_run(
    given: Settings,
    notes: Iterable[NoteLike] | None = None,
    validation: Iterable[NoteLike] | str | None = AUTO,
    *,
    written: bool = True,
) -> RunPlan:
    """Read what a run starts from, or what a run that is resumed began with.

    `notes` and `validation` stand in the place of `prompt_data` and `validation_data`; `validation` "auto" leaves
    it to that setting, and with None nothing validates. Without `written` the run is to leave no folder.

    Raises:
        ConfigError: a setting cannot be used, or cannot be changed in a run that goes on, or says what a list says too.
        DataError: the notes cannot be used.
        RunError: the run to go on with is damaged, in use or none.
    """
    if given.wandb:
        require_wandb()
    if validation is None and given.validation_data not in (AUTO, NONE):
        raise ConfigError(f"validation is None, but validation_data is {given.validation_data!r}; give one of them")
    lists = _lists(given, notes, validation)
    if given.resume:
        return _resumed(given, lists)
    _require_trainable(given)
    settings = given if validation is not None else given.with_overrides(validation_data=NONE)
    if lists and written:
        path = Path(settings.output_dir) if settings.output_dir else default_path(settings.model)
        settings, lists = _with_files(settings, lists, path)
    return RunPlan(settings, run_data(settings, given=lists), lists=lists)


def _require_trainable(settings: Settings) -> None:
    """Raises ConfigError where games played with these settings could not be learnt from, or not on this machine."""
    settings.require_trainable()
    require_four_bits(settings)


def _lists(given: Settings, notes: Any, validation: Any) -> dict[str, LoadedNotes]:
    """The notes that are given as lists, by the setting that they stand for."""
    automatic = isinstance(validation, str) and validation == AUTO
    said = {"prompt_data": notes, "validation_data": None if automatic else validation}
    lists = {}
    for setting, items in said.items():
        if items is None:
            continue
        name = _ARGUMENTS[setting]
        if getattr(given, setting) != Settings.model_fields[setting].default:
            raise ConfigError(f"{name} and {setting} both say which notes to take; give one of them")
        lists[setting] = given_notes(items, name, column_names(given))
        require_alike(lists[setting].notes, name)
    return lists


def _with_files(
    settings: Settings, lists: Mapping[str, LoadedNotes], folder: Path
) -> tuple[Settings, dict[str, LoadedNotes]]:
    """The settings of a run in `folder` that holds the lists as files, and the lists under the names of these."""
    places = {setting: str(folder / GIVEN_NOTES[setting]) for setting in lists}
    columns = dict.fromkeys(COLUMN_SETTINGS) if "prompt_data" in lists else {}  # our own file needs none named
    own_file = "validation_data" not in lists and settings.validation_data not in (AUTO, NONE, SAMPLE)
    if columns and own_file and column_names(settings) != BY_GUESS:
        raise ConfigError("columns are named for the rows of notes: give validation as a list too, by load_notes(path)")
    renamed = {setting: _called(loaded, places[setting]) for setting, loaded in lists.items()}
    return settings.with_overrides(output_dir=str(folder), **places, **columns), renamed


def _called(loaded: LoadedNotes, source: str) -> LoadedNotes:
    return replace(loaded, source=source)


def _resumed(given: Settings, lists: Mapping[str, LoadedNotes]) -> RunPlan:
    """The run with what may change changed, after a look at whether all that it began with is as it was."""
    if lists:
        raise ConfigError(
            f"resume goes on with the notes that the run began with: leave {_ARGUMENTS[next(iter(lists))]} out"
        )
    path = Path(str(given.resume))
    run, started = RunFolder.reopen(path)
    try:
        settings, changes = resumed_settings(started, given, path)
        _require_trainable(settings)
        run.require_same_data(input_files(settings))
        data = run_data(settings)
        run.require_same_notes(data.record())
    except BaseException:
        run.close()
        raise
    return RunPlan(settings, data, run, changes)


def input_files(settings: Settings) -> dict[str, Path]:
    """What the games of a run follow from, by its use: a resumed run must find it as it was."""
    files = data_files(settings)
    if settings.prompts not in SHIPPED:
        files["prompts"] = Path(settings.prompts)
    adapter = adapter_source(settings) if settings.engine != "scripted" else None
    if adapter:
        files["adapter"] = adapter / "adapter_model.safetensors"
    return files


def engine_of(settings: Settings) -> tuple[Settings, Engine]:
    """The engine that trains, and the settings, which name OpenRLHF where it was found: only it reads its checkpoints.

    Raises:
        ConfigError: the engine cannot train with these settings, or is not installed.
        ModelError: the model cannot be loaded.
    """
    name = training_engine_name(settings)
    found = settings.with_overrides(engine=name)
    return (found if name == "openrlhf" else settings), create_engine(found)
