"""Texts that have a label, what a system said of them, and the files that hold what it said."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from medserl.errors import DataError, shorten
from medserl.files import write_private
from medserl.game.note import Note
from medserl.game.parsing import note_sentences
from medserl.game.roles import Verdict

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

NoVerdict = Literal["unreadable", "truncated", "too_long"]
"""Why a system gave no verdict: none could be read, its answer was cut off, or the note has no room in the model."""


@dataclass(frozen=True)
class LabelledText:
    """One text to judge, and the truth about it.

    `pair_id` is the same for both twins of a pair and None for a lone text. `error_type` and `fact_id` are those of
    the pair, on both twins. `sentences` are the source's numbered ones, else the ones that our splitter finds.
    `error_sentence_id`, the source's number, and `corrected_sentence` are known of texts with an error only.
    """

    text_id: str
    text: str
    is_error: bool
    pair_id: str | None = None
    error_type: str | None = None
    error_sentence_id: int | None = None
    sentences: tuple[str, ...] = ()
    corrected_sentence: str | None = None
    fact_id: str | None = None
    split: str | None = None

    @property
    def is_published(self) -> bool:
        """Whether this is the text that the source publishes, and not the corrected twin of one."""
        return self.pair_id is None or self.text_id == self.pair_id

    @property
    def collection(self) -> str:
        """`MS` or `UW` by MEDEC's ids (`ms-val-0`, `uw-test-3`), else `other`."""
        prefix = self.text_id.partition("-")[0].upper()
        return prefix if prefix in ("MS", "UW") else "other"


@dataclass(frozen=True)
class Prediction:
    """What a system said of one text.

    `verdict` is None where the system gave none, and `no_verdict` says why, where that is known. `p_incorrect` is the
    probability of INCORRECT among the two verdicts. `error_sentence_id` and `correction` answer MEDEC's subtasks B and
    C, where they were asked. `truncated` is how many of its samples were cut at the token limit: these give no verdict.
    """

    text_id: str
    verdict: Verdict | None
    error_sentence_id: int | None = None
    correction: str | None = None
    p_incorrect: float | None = None
    completion: str = ""
    truncated: int = 0
    no_verdict: NoVerdict | None = None


def labelled_texts(notes: Iterable[Note], *, published_only: bool = False) -> tuple[LabelledText, ...]:
    """The texts of the notes: both twins of a pair, one text of a lone note.

    The text that the source publishes, of a pair the one with the error, has the note's id, as in MEDEC's rows; its
    corrected twin is called `NOTE-corrected`. With `published_only` there are no corrected twins. A note of which
    nobody says whether it is correct gives no text: a missing label is none.
    """
    texts: list[LabelledText] = []
    for note in notes:
        if not note.labelled:
            continue
        if note.incorrect_note is None:
            texts.append(_correct(note, note.note_id))
        elif note.is_pair and not published_only:
            texts += [_correct(note, f"{note.note_id}-corrected"), _incorrect(note)]
        else:
            texts.append(replace(_incorrect(note), pair_id=None))
    return tuple(texts)


def _correct(note: Note, text_id: str) -> LabelledText:
    assert note.correct_note is not None
    sentences = note.sentences
    if note.is_pair:  # the note's sentences are those of the other twin
        sentences = _corrected_sentences(note)
    return LabelledText(
        text_id,
        note.correct_note,
        is_error=False,
        pair_id=note.note_id if note.is_pair else None,
        error_type=note.error_type,
        sentences=sentences or note_sentences(note.correct_note),
        fact_id=note.fact_id,
        split=note.split,
    )


def _corrected_sentences(note: Note) -> tuple[str, ...]:
    """The sentences of the correct twin; none where it is not known which sentence differs."""
    place, corrected = note.error_sentence_id, note.corrected_sentence
    if place is None or corrected is None or place >= len(note.sentences):
        return ()
    return (*note.sentences[:place], corrected, *note.sentences[place + 1 :])


def _incorrect(note: Note) -> LabelledText:
    assert note.incorrect_note is not None
    return LabelledText(
        note.note_id,
        note.incorrect_note,
        is_error=True,
        pair_id=note.note_id if note.is_pair else None,
        error_type=note.error_type,
        error_sentence_id=note.error_sentence_id,
        sentences=note.sentences or note_sentences(note.incorrect_note),
        corrected_sentence=note.corrected_sentence,
        fact_id=note.fact_id,
        split=note.split,
    )


def write_predictions(path: str | Path, predictions: Iterable[Prediction]) -> None:
    """One JSON object a line, whole or not at all. Raises OutputError where the file cannot be written."""
    write_private(Path(path), (json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in predictions))


def read_predictions(path: str | Path) -> list[Prediction]:
    """The predictions of a file that `write_predictions` wrote.

    Raises:
        DataError: no such file, or a line that is no prediction; the message names it.
    """
    lines = read_text(path).split("\n")
    return [_prediction(line, f"{path}, line {n}") for n, line in enumerate(lines, 1) if line.strip()]


def read_text(path: str | Path) -> str:
    """The text of a file of predictions: UTF-8, or UTF-16 by its byte order mark; lone surrogates as they stand.

    Raises:
        DataError: no regular file (a pipe may never end), or bytes that are neither.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise DataError(
                f"{path}: cannot be read: it is a {'folder' if path.is_dir() else 'device or pipe'}, no file"
            )
        content = path.read_bytes()
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return content.decode("utf-16", "surrogatepass")
        return content.decode("utf-8", "surrogatepass").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: cannot be read: byte {error.start} is no {error.encoding}; save it as UTF-8"
        ) from None
    except (OSError, ValueError) as error:  # a zero byte in the path is a ValueError
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _prediction(line: str, where: str) -> Prediction:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: no JSON: {error.msg}") from None
    except (ValueError, RecursionError):  # a number of thousands of digits, or brackets thousands deep
        raise DataError(f"{where}: no prediction: JSON that is too deep, or holds too long a number") from None
    known = [field.name for field in fields(Prediction)]
    if not isinstance(row, dict) or not {"text_id", "verdict"} <= row.keys() <= set(known):
        raise DataError(f"{where}: no prediction; wanted is an object with text_id and verdict, and of {known} only")
    wrong = [name for name, value in row.items() if not _fits(name, value)]
    if wrong:
        value = row[wrong[0]]
        shown = f"a {type(value).__name__}" if isinstance(value, list | dict) else json.dumps(value)[:40]
        raise DataError(f"{where}: {wrong[0]} cannot be {shown}")
    return Prediction(**row)


def _fits(name: str, value: Any) -> bool:
    if name in ("text_id", "completion"):
        return isinstance(value, str)
    if name == "truncated":
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if value is None:
        return True
    if name == "verdict":
        return value in VERDICTS
    if name == "no_verdict":
        return value in get_args(NoVerdict)
    if name == "correction":
        return isinstance(value, str)
    if isinstance(value, bool):
        return False
    if name == "error_sentence_id":
        return isinstance(value, int)
    return isinstance(value, int | float) and 0 <= value <= 1


def check_unique(ids: Sequence[str], what: str) -> None:
    """Raises DataError, naming it, where an id stands twice."""
    seen: set[str] = set()
    for one in ids:
        if one in seen:
            raise DataError(f"{what} {shorten(one)!r} occurs twice; ids must be unique")
        seen.add(one)
