"""What is judged and what was said of it: labelled texts, and a system's predictions on them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from medserl.data.notes import Note
from medserl.game.roles import Verdict


@dataclass(frozen=True)
class LabelledText:
    """One text with its label. The twins of a pair share `pair_id`."""

    text_id: str
    text: str
    is_error: bool
    pair_id: str | None = None
    error_type: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Prediction:
    """What a system said of one text; `verdict` None is no verdict, which counts as wrong."""

    text_id: str
    verdict: Verdict | None
    completion: str = ""


def labelled_texts(notes: Sequence[Note], *, published_only: bool = False) -> tuple[LabelledText, ...]:
    """Both twins of every pair and every lone note; with `published_only` a pair gives its incorrect text alone.

    In MEDEC's files a row with an error is published as the incorrect text; its corrected twin comes with it as the
    reference, and is not one of the benchmark's texts.
    """
    texts = []
    for note in notes:
        pair = note.note_id if note.is_pair and not published_only else None
        common = {"pair_id": pair, "error_type": note.error_type, "split": note.split}
        if note.correct_note is not None and not (published_only and note.is_pair):
            suffix = "-correct" if pair else ""
            texts.append(LabelledText(note.note_id + suffix, note.correct_note, False, **common))
        if note.incorrect_note is not None:
            suffix = "-incorrect" if pair else ""
            texts.append(LabelledText(note.note_id + suffix, note.incorrect_note, True, **common))
    return tuple(texts)


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """One JSON object a line, whole or not at all."""
    scratch = path.with_name(f".{path.name}.partial")
    lines = (json.dumps(asdict(prediction), ensure_ascii=False) + "\n" for prediction in predictions)
    scratch.write_text("".join(lines), encoding="utf-8")
    os.replace(scratch, path)
