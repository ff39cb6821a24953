"""`medserl predict --html`: the flagged notes as one page that opens from disk without a network.

Safety: the template engine escapes everything, characters that hide or command are made visible, and a content security
policy forbids every script and every connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from importlib.resources import files
from pathlib import Path

from markupsafe import Markup

from medserl import __version__
from medserl.display.visible import visible
from medserl.evaluation.thresholds import Threshold
from medserl.files import write_private
from medserl.game.parsing import note_sentences, partition_words
from medserl.game.text import split_sentences
from medserl.prediction.findings import JudgedNote
from medserl.reports.html import templates

TEMPLATE, STYLE = "page.html.jinja", "page.css"


@dataclass(frozen=True)
class ShownNote:
    """A flagged note in five pieces: before and after its sentence, and that sentence around the words in question.

    Where no words are known the sentence is all `before_words`; where no sentence is, the note is all `before`.
    """

    judged: JudgedNote
    before: str
    before_words: str = ""
    words: str = ""
    after_words: str = ""
    after: str = ""


def write_page(path: Path, judged: Sequence[JudgedNote], source: str, threshold: Threshold) -> Path:
    """Write the flagged ones of these notes, in their order, to `path` and return it.

    Raises:
        OutputError: the file cannot be written.
    """
    write_private(path, render_page(judged, source, threshold).encode("utf-8", "replace"))
    return path


def render_page(judged: Sequence[JudgedNote], source: str, threshold: Threshold) -> str:
    """The whole page."""
    flagged = [one for one in judged if one.finding.flagged]
    return (
        templates("medserl.prediction")
        .get_template(TEMPLATE)
        .render(
            notes=[in_pieces(one) for one in flagged],
            total=len(judged),
            not_judged=sum(one.finding.reason is not None for one in judged),
            source=source,
            threshold=threshold,
            style=Markup(files("medserl.prediction").joinpath(STYLE).read_text(encoding="utf-8")),
            visible=visible,
            version=__version__,
            today=date.today().isoformat(),
        )
    )


def in_pieces(one: JudgedNote) -> ShownNote:
    """The note parted where its finding points."""
    text, start, end = _place(one)
    if start == end:
        return ShownNote(one, text)
    before_words, words, after_words = partition_words(text[start:end], one.finding.says or "")
    return ShownNote(one, text[:start], before_words, words, after_words, text[end:])


def _place(one: JudgedNote) -> tuple[str, int, int]:
    """The text to show, and where its sentence stands in it; sentences of the source's own stand on a line each."""
    number, sentences = one.finding.sentence, one.sentences
    text = one.text
    if sentences == note_sentences(text):
        spans = [(span.start, span.end) for span in split_sentences(text)]
    else:
        text, spans, place = "\n".join(sentences), [], 0
        for sentence in sentences:
            spans.append((place, place + len(sentence)))
            place += len(sentence) + 1
    return (text, *spans[number]) if number is not None and number < len(spans) else (text, 0, 0)
