"""The texts of an evaluation: those that are judged, and those that TF-IDF and thresholds are fitted on."""

from __future__ import annotations

import hashlib
import json
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from medserl.data.readers import LoadedNotes
from medserl.data.seen import Seen, seen_in
from medserl.evaluation.options import EvaluationOptions
from medserl.evaluation.predictions import LabelledText, labelled_texts
from medserl.evaluation.systems import BASE, Judgement
from medserl.game.note import Note

log = logging.getLogger("medserl")

T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """Notes and the file they are from."""

    file: Path
    loaded: LoadedNotes


@dataclass(frozen=True)
class Sources:
    """The notes to judge, those that baselines are fitted on, and those that thresholds are chosen on, if any."""

    judged: Source
    train: Source
    validation: Source | None = None


@dataclass(frozen=True)
class Texts:
    """The texts to judge, those that the TF-IDF baseline is fitted on, and those that thresholds are chosen on.

    `train` and `held_out` are empty, or hold texts of both classes; `train` is empty where judged notes are among the
    training notes (`seen`).
    """

    judged: tuple[LabelledText, ...]
    train: tuple[LabelledText, ...]
    held_out: tuple[LabelledText, ...]
    published_only: bool
    seen: Seen

    @property
    def fingerprint(self) -> str:
        """The same for evaluations of the same texts, and for no others."""
        listed = json.dumps([[text.text_id, text.text, text.is_error] for text in self.judged])
        return hashlib.sha256(listed.encode()).hexdigest()


def choose_texts(sources: Sources, options: EvaluationOptions, seed: int, files: Sequence[Judgement]) -> Texts:
    """The texts of an evaluation in which these judgements were read from files."""
    notes = _draw(sources.judged.loaded.notes, options.limit, seed)
    alone = options.published_only or _lack_corrected_twins(files, labelled_texts(notes))
    seen = seen_in(notes, sources.train.loaded.notes)
    train = () if seen.ids else _fitting_texts(sources.train.loaded.notes, published_only=alone)
    held_out: tuple[LabelledText, ...] = ()
    if sources.validation is not None:
        unseen = _draw(_unseen(sources.validation.loaded.notes, notes), options.limit, seed)
        held_out = _fitting_texts(unseen, published_only=alone)
        if not _of_both_classes(held_out):
            log.warning(
                "no thresholds: %s holds no notes of both classes besides the judged ones", sources.validation.file
            )
            held_out = ()
    judged = labelled_texts(notes, published_only=alone)
    return Texts(judged, train if _of_both_classes(train) else (), held_out, alone, seen)


def _fitting_texts(notes: Sequence[Note], published_only: bool) -> tuple[LabelledText, ...]:
    """Texts to fit on: the kind that is judged, but of MEDEC's pairs without its correct notes both twins."""
    texts = labelled_texts(notes, published_only=published_only)
    return texts if _of_both_classes(texts) else labelled_texts(notes)


def texts_for(
    name: str, texts: Sequence[LabelledText], options: EvaluationOptions, seed: int
) -> Sequence[LabelledText]:
    """The texts that a model is asked about: all, but of the untrained one, where that is asked for, those of a sample
    of the notes, both twins of each."""
    notes = list(dict.fromkeys(text.pair_id or text.text_id for text in texts))
    if name != BASE or not 0 < options.base_notes < len(notes):
        return texts
    drawn = set(_draw(notes, options.base_notes, seed))
    return [text for text in texts if (text.pair_id or text.text_id) in drawn]


def _draw(notes: Sequence[T], limit: int, seed: int) -> Sequence[T]:
    return random.Random(seed).sample(notes, limit) if 0 < limit < len(notes) else notes


def _unseen(notes: Sequence[Note], judged: Sequence[Note]) -> list[Note]:
    """The notes that are not judged: a threshold chosen on judged texts is no finding."""
    seen = set(seen_in(notes, judged).ids)
    return [note for note in notes if note.note_id not in seen]


def _lack_corrected_twins(files: Sequence[Judgement], texts: Sequence[LabelledText]) -> bool:
    """Whether a file is about the published texts alone, as a submission is: then all systems are judged on these."""
    corrected = {text.text_id for text in texts if not text.is_published}
    for file in files:
        if corrected and corrected.isdisjoint(one.text_id for one in file.predictions):
            log.info("%s is about the published texts alone, so all systems are judged on these", file.name)
            return True
    return False


def _of_both_classes(texts: Sequence[LabelledText]) -> bool:
    return len({text.is_error for text in texts}) == 2
