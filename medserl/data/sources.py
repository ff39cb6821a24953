"""Which notes a command works on: each source told in one line, and which notes judge a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from medserl.config import Settings
from medserl.data.columns import ColumnNames, known_names
from medserl.data.holdout import split_notes
from medserl.data.labels import NO_LABELS
from medserl.data.readers import BY_GUESS, LoadedNotes, kinds_of, read_notes
from medserl.data.sample_names import SampleSplit, is_sample
from medserl.data.sample_paths import sample_path
from medserl.data.seen import seen_in
from medserl.data.standard_input import spooled
from medserl.data.tabular import HUB, Place
from medserl.data.writing import note_lines
from medserl.errors import DataError
from medserl.files import write_private

log = logging.getLogger("medserl")

SAMPLE, AUTO, NONE, STANDARD_INPUT = "sample", "auto", "none", "-"
COLUMN_SETTINGS = {"id_column": "id", "note_column": "note", "incorrect_column": "incorrect", "label_column": "flag"}
"""The settings that name columns of a person's own file, and what is in each."""
_MEDEC_TRAIN = "medec_train.jsonl"
_ROWS_NAMED = 10
"""Rows left out of a file that are named one by one; MEDEC's test file has 328."""


def notes_path(source: str, split: SampleSplit) -> Path:
    """The file, or the sample's `split` for the word `sample`."""
    return sample_path(split) if source == SAMPLE else Path(source)


def load(
    source: str, split: SampleSplit, settings: Settings | None = None, *, lenient: bool = False, called: str = ""
) -> LoadedNotes:
    """Notes of a source, or of the sample, told in one line of the log; settings may name the columns.

    `lenient` is for a source beside the one that the columns were named for: where it lacks one, it is guessed.
    `called` is what a person calls the source, where that is not its path.

    Raises:
        DataError: the source cannot be used.
    """
    columns = column_names(settings) if settings and source != SAMPLE else BY_GUESS
    place = str(notes_path(source, split)) if source == SAMPLE else source
    loaded = read_notes(place, columns, lenient=lenient)
    if called:
        loaded = replace(loaded, source=called)
    for row in loaded.skipped[:_ROWS_NAMED]:
        log.warning("left out: %s", row)
    if len(loaded.skipped) > _ROWS_NAMED:
        log.warning("... and %d rows more were left out", len(loaded.skipped) - _ROWS_NAMED)
    if is_sample(source):
        name = f"sample notes ({split if source == SAMPLE else Path(source).name})"
        name += ": invented patients, for developing software, not for clinical use"
        log.info("%s; %s", name, kinds_of(loaded.notes))
    else:
        log.info("%s", loaded.summary())
    return loaded


def column_names(settings: Settings) -> ColumnNames:
    """The columns that the settings name."""
    return ColumnNames(**{role: getattr(settings, name) for name, role in COLUMN_SETTINGS.items()})


def load_unlabelled(source: str, settings: Settings) -> LoadedNotes:
    """Notes to judge, from a source or, for `-`, standard input; the log says which labels are not looked at.

    Raises:
        DataError: the source cannot be used.
    """
    settings = settings.with_overrides(label_column=NO_LABELS)
    if source == STANDARD_INPUT:
        with spooled(known_names(column_names(settings))) as path:
            loaded = load(str(path), "test", settings, called="standard input")
    else:
        loaded = load(source, "test", settings)
    twins = sum(note.incorrect_note is not None for note in loaded.notes)
    if twins:
        log.info("%d notes come with a text that holds an error: that one is judged", twins)
    if loaded.labels or twins:
        named = f" ({', '.join(map(repr, loaded.labels))})" if loaded.labels else ""
        log.info("labels are not looked at%s; `medserl evaluate` scores labelled notes", named)
    return loaded


@dataclass(frozen=True)
class RunData:
    """What a run learns from and what judges it. `validation` is None where nothing does; `judged_by` says it in words.

    `is_split` is set where the validation notes were held out of the training file. `gold` are the notes that gold
    pairs are taken from, where a source of their own was named.
    """

    train: LoadedNotes
    validation: LoadedNotes | None
    judged_by: str
    is_split: bool = False
    gold: LoadedNotes | None = None

    @property
    def learnt(self) -> LoadedNotes:
        """All notes that the run learns from."""
        if self.gold is None:
            return self.train
        both = " and ".join(Path(each.source).name for each in (self.train, self.gold))
        return replace(self.train, notes=(*self.train.notes, *self.gold.notes), source=both)

    @property
    def validation_name(self) -> str:
        """The validation notes by the name of their file, without its folder; empty without them."""
        if self.validation is None:
            return ""
        return f"a split of {Path(self.train.source).name}" if self.is_split else Path(self.validation.source).name

    def record(self) -> dict[str, object]:
        """What a run's provenance says of it."""
        record: dict[str, object] = {"sha256": self.train.sha256, "validation": self.judged_by}
        record["playable"] = sum(note.correct_note is not None for note in self.train.notes)
        if self.gold:
            record["gold_pairs"] = sum(note.is_pair for note in self.gold.notes)
        if self.validation:
            record["notes"] = seen_in(self.validation.notes, self.learnt.notes).record()
        if self.is_split and self.validation:
            record["held_out"] = [note.note_id for note in self.validation.notes]
        return record


def run_data(settings: Settings, *, lenient: bool = False, given: Mapping[str, LoadedNotes] | None = None) -> RunData:
    """The training notes and the validation notes that the settings name, no note in both where a file is split.

    `validation_data = "auto"` is the sample's validation notes for the sample, MEDEC's validation file beside MEDEC's
    training file, and for any other file a split of it (`holdout`), the same for the same file and seed. `lenient` is
    that of `load`. `given` are notes that need not be read, by the setting that they stand for.

    Raises:
        DataError: a source cannot be used, or none of the training notes is correct.
    """
    given = given or {}
    train = given.get("prompt_data") or load(settings.prompt_data, "train", settings, lenient=lenient)
    prompt_data = train.source if "prompt_data" in given else settings.prompt_data
    if all(note.correct_note is None for note in train.notes):
        raise DataError(f"{prompt_data}: no note without an error in it, so there is nothing to play on")
    gold = None
    if settings.gold_data not in (AUTO, prompt_data):
        gold = load(settings.gold_data, "train", settings, lenient=True)
    source = settings.validation_data
    if "validation_data" in given:
        source = given["validation_data"].source
    elif source == AUTO:
        source = _automatic(prompt_data)
    if source == NONE:
        return _told(RunData(train, None, "none", gold=gold))
    if source != AUTO:
        validation = given.get("validation_data") or load(source, "validation", settings, lenient=True)
        return _told(RunData(train, validation, f"{source} ({len(validation.notes)} notes)", gold=gold))
    kept, held_out = split_notes(train.notes, settings.seed)
    if not held_out:
        return _told(RunData(train, None, f"none: {prompt_data} has too few notes that could be held out", gold=gold))
    name = f"split of {prompt_data} ({len(held_out)} notes)"
    judges = replace(train, notes=held_out, source=name, skipped=())
    return _told(RunData(replace(train, notes=kept), judges, name, True, gold))


def data_files(settings: Settings) -> dict[str, Path]:
    """The files and folders that the settings' notes are read from, by their use; a data set of the hub is neither."""
    sources = {name: getattr(settings, name) for name in ("prompt_data", "validation_data", "gold_data")}
    if sources["validation_data"] == AUTO:
        sources["validation_data"] = _automatic(settings.prompt_data)
    splits: dict[str, SampleSplit] = {"prompt_data": "train", "validation_data": "validation", "gold_data": "train"}
    return {
        use: sample_path(splits[use]) if source == SAMPLE else Path(Place.of(source).where)
        for use, source in sources.items()
        if source not in (AUTO, NONE) and not source.startswith(HUB)
    }


def _automatic(prompt_data: str) -> str:
    if is_sample(prompt_data):
        return SAMPLE
    published = _published(prompt_data, "validation")
    return str(published) if published else AUTO


def _published(prompt_data: str, split: SampleSplit) -> Path | None:
    """MEDEC's notes of that split, where they lie beside its training notes."""
    file = Path(prompt_data).with_name(f"medec_{split}.jsonl")
    return file if Path(prompt_data).name == _MEDEC_TRAIN and file.is_file() else None


def test_source(settings: Settings, kept: Path) -> str:
    """The labelled notes that a run with these settings is to be evaluated on: they follow its training notes.

    The sample's test notes for the sample; MEDEC's test notes, or else its validation notes, where they lie beside its
    training notes; for any other file the notes that judged the run, written to `kept` where they are a part of that
    file. Where these are not of both kinds, correct and wrong, there is nothing to score on them: the sample's.

    Raises:
        DataError: a source cannot be used.
        OutputError: the notes cannot be written.
    """
    if is_sample(settings.prompt_data):
        return SAMPLE
    published = _published(settings.prompt_data, "test") or _published(settings.prompt_data, "validation")
    if published:
        return str(published)
    data = run_data(settings)
    judged = data.validation.notes if data.validation else ()
    if not any(note.incorrect_note for note in judged) or not any(note.correct_note for note in judged):
        return SAMPLE
    if not data.is_split and data.validation:
        return data.validation.source
    write_private(kept, note_lines(judged))
    return str(kept)


def _told(data: RunData) -> RunData:
    """Says what is trained on and what judges the run."""
    unlabelled = sum(not note.labelled for note in data.train.notes)
    if unlabelled:
        log.info("training takes %d notes without a label for correct ones", unlabelled)
    wrong = sum(note.correct_note is None for note in data.train.notes)
    if wrong:
        log.info("%d notes with an error but no correction are not trained on", wrong)
    log.info("validation: %s", data.judged_by)
    if data.validation and not data.is_split:
        seen = seen_in(data.validation.notes, data.learnt.notes)
        if seen.ids:
            log.warning("validation: %s", seen.sentence(data.learnt.source))
    return data
