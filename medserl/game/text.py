"""Words and sentences of a note: the one place that says what counts as either."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from sentencex import get_sentence_boundaries

# Numbers stay whole (38.3, 120/70), letters keep an inner apostrophe, and signs that carry clinical meaning are words.
_WORD = re.compile(r"\d+(?:[.,/]\d+)*|[^\W\d_]+(?:['’][^\W\d_]+)*|[<>=≤≥±+%]")

MAX_CHARACTERS = 100_000
"""A note longer than this is refused by name wherever notes are read: the longest discharge summaries have a third."""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Span:
    """A half-open range of characters, `text[start:end]`."""

    start: int
    end: int


@dataclass(frozen=True)
class Words:
    """The words of a text: `keys[i]` is the casefolded word, `spans[i]` where it stands in the normalised text."""

    text: str
    keys: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]


def too_long(note: str) -> str | None:
    """What is wrong with the length of a note, to be said after its name; None for a note that may be read."""
    if len(note) <= MAX_CHARACTERS:
        return None
    return f"has {len(note):,} characters; a note may have {MAX_CHARACTERS:,} at most: split it"


def normalize(text: str) -> str:
    """NFKC form: the text that all spans refer to. Ordinary clinical text is left as it is."""
    return unicodedata.normalize("NFKC", text)


def split_words(text: str) -> Words:
    """Words of `text` as the VCF counts them (DESIGN, section 4). Punctuation and case are not part of a word."""
    text = normalize(text)
    matches = list(_WORD.finditer(text))
    return Words(
        text=text,
        keys=tuple(match.group().casefold() for match in matches),
        spans=tuple(match.span() for match in matches),
    )


@lru_cache(maxsize=4096)
def split_sentences(text: str) -> tuple[Span, ...]:
    """Spans of the sentences of `text`, without the white space around them; blank sentences are left out."""
    spans = []
    encodable = _LONE_SURROGATE.sub("\ufffd", text)  # broken JSON can hold one; the library wants valid UTF-8
    for boundary in get_sentence_boundaries("en", encodable):
        start, end = boundary["start_index"], boundary["end_index"]
        raw = text[start:end]
        stripped = raw.strip()
        if stripped:
            lead = len(raw) - len(raw.lstrip())
            spans.append(Span(start + lead, start + lead + len(stripped)))
    return tuple(spans)
