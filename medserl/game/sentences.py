"""Sentences of a note: lines first, then what the sentence splitter finds in each, set right for clinical writing.

A line break ends a sentence, unless the text is wrapped there (`_is_wrapped`). Inside the lines the splitter of
`sentencex` decides, but for full stops after the abbreviations, units and initials that notes are full of (`_ends`).
"""

from __future__ import annotations

import itertools
import logging
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from sentencex import get_sentence_boundaries

_LINE = re.compile("[^\n\r\v\f\x1c-\x1e\x85\u2028\u2029]*(?:\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]|$)")
LIST_MARK = re.compile(
    r"[-*+](?!\d)|[•·▪◦●○■□►–—_☐☑☒]|\(?\d{1,3}[.):](?=\s|$)|\(?[A-Za-z]\)|[A-Z]\.(?=\s+[A-Z])|[a-z]\.(?=\s)|\[[ xX]?\]"
)
_HEADING = re.compile(r"[A-Z][\w /&()-]{0,40}:")
_UNFINISHED = re.compile(
    r"(?:^|[\s(])(?:a|an|the|of|and|or|to|with|without|is|was|are|were|be|been|has|had|in|on|at|by|for|from|than|as|her|his"
    r"|their|that|which|who|due|no|not|mm|Dr\.|Mr\.|Mrs\.|Ms\.|vs\.)$"
)
"""A line that breaks off after one of these goes on in the next."""
NARROWEST_WRAP, WIDEST_WRAP = 50, 150
"""Width of wrapped text in characters. Shorter lines are lists, longer ones are paragraphs of their own."""

_STOP = re.compile(r"\.[\"'”’)\]]*\s+(?=[\"'“‘(\[]?(\w))")
_LONGEST_TOKEN = 24
_DOTTED = re.compile(r"(?:[A-Za-z]\.)+[A-Za-z]")
_AFTER_NUMBER = re.compile(r"\d\s*$")
_WORD = re.compile(r"[\w'’]+")

_LISTS = {
    name: frozenset(words)
    for name, words in tomllib.loads(
        files("medserl.game").joinpath("abbreviations.toml").read_text(encoding="utf-8")
    ).items()
}
"""Abbreviations, units and openers: see `abbreviations.toml`."""

LONGEST_PIECE = 8192
"""Characters given to the splitter at once: on longer ones it takes quadratic time."""
_REMEMBERED, _LONGEST_REMEMBERED = 2048, 4096
"""Texts whose sentences are remembered, and characters of the longest of them: 8 M characters in all."""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Span:
    """A half-open range of characters, `text[start:end]`."""

    start: int
    end: int


def split_sentences(text: str) -> tuple[Span, ...]:
    """Spans of the sentences of `text`, without the white space around them; blank sentences are left out."""
    return _remembered(text) if len(text) <= _LONGEST_REMEMBERED else _split(text)


def _split(text: str) -> tuple[Span, ...]:
    spans = []
    for segment in _segments(text):
        # One blank for each white space: the splitter knows no other, and panics at some.
        line = re.sub(r"\s", " ", text[segment.start : segment.end])
        starts = [*_starts(line), len(line)]
        for start, end in itertools.pairwise(starts):
            stripped = line[start:end].strip()
            if stripped:
                first = segment.start + line.index(stripped[0], start)
                spans.append(Span(first, first + len(stripped)))
    return tuple(spans)


_remembered = lru_cache(maxsize=_REMEMBERED)(_split)
forget_sentences = _remembered.cache_clear


# -- lines ----------------------------------------------------------------------------------------------------------


def _segments(text: str) -> Iterator[Span]:
    """Runs of lines in which every line break is one of wrapped text."""
    lines = [Span(*match.span()) for match in _LINE.finditer(text) if match.group()]
    first = 0
    for block in _blocks(text, lines):
        inside = _is_wrapped([text[line.start : line.end].rstrip() for line in block])
        for i, line in enumerate(block):
            if i == len(block) - 1 or not (inside or _UNFINISHED.search(text[line.start : line.end].rstrip()[-12:])):
                yield Span(first, line.end)
                first = line.end


def _blocks(text: str, lines: list[Span]) -> Iterator[list[Span]]:
    """Lines that may be one wrapped text: no blank line, list item or heading begins among them."""
    block: list[Span] = []
    for line in lines:
        shown = text[line.start : line.end].strip()
        before = text[block[-1].start : block[-1].end].rstrip() if block else ""
        if block and (not shown or not before or before[-1] == ":" or LIST_MARK.match(shown) or _HEADING.match(shown)):
            yield block
            block = []
        block.append(line)
    if block:
        yield block


def _is_wrapped(lines: list[str]) -> bool:
    """Whether each line is broken where the next word would not have fitted, as an editor breaks them."""
    if len(lines) < 2 or len(lines[0]) < NARROWEST_WRAP:
        return False
    width = max(map(len, lines))
    if width > WIDEST_WRAP:
        return False
    full = all(
        len(line) >= NARROWEST_WRAP and len(line) + 1 + len(after.split(maxsplit=1)[0]) > width
        for line, after in itertools.pairwise(lines)
    )
    # Two lines are weak evidence: the second must go on in small letters.
    return full and (len(lines) > 2 or lines[1].lstrip()[0].islower())


# -- sentences of a line --------------------------------------------------------------------------------------------


def _starts(line: str) -> list[int]:
    """Where the sentences of a line begin."""
    starts = set(_library_starts(line))
    for match in _STOP.finditer(line):
        ends = _ends(line, match.start(), match.end(), match[1])
        if ends is True:
            starts.add(match.end())
        elif ends is False:
            starts.discard(match.end())
    return sorted(starts | {0})


def _ends(line: str, stop: int, start: int, initial: str) -> bool | None:
    """Whether the full stop at `stop` ends a sentence, where the next begins at `start`; None: as the splitter says."""
    before = line[max(0, stop - _LONGEST_TOKEN) : stop]
    token = (before.split() or [""])[-1].lstrip("(['\"“‘")
    if not token or token.endswith(".") or initial == "_":
        return None
    word, following = token.lower(), _WORD.match(line, start)
    next_word = following.group().lower() if following else ""
    opens = next_word in _LISTS["openers"] or (next_word in _LISTS["capital_openers"] and initial.isupper())
    lead = before[: -len(token)].rstrip()
    if ((token.isdigit() and len(token) <= 3) or len(token) == 1) and (not lead or lead[-1] in ".;:!?"):
        return False  # the number of a list item
    if word in _LISTS["before_name"] or token == "Ms" or (word in _LISTS["before_number"] and initial.isdigit()):
        return False
    if word in _LISTS["clipped"] and not initial.isupper():
        return opens
    if _DOTTED.fullmatch(token):
        return opens or (word in _LISTS["dosing"] and initial.isupper())
    unit = word.rpartition("/")[2].rpartition("-")[2].lstrip("0123456789.,") in _LISTS["units"] and not word.isalpha()
    unit = unit or (word in _LISTS["units"] and bool(_AFTER_NUMBER.search(lead)))
    if initial.islower():
        return opens if unit else None
    if len(token) == 1 and token.isupper() and not unit:
        previous = (lead.split() or [""])[-1].lower()
        return True if opens or previous in _LISTS["labelled"] else None
    if initial.isdigit():
        return True if unit else None
    return True if initial.isupper() else None


def _library_starts(line: str) -> Iterator[int]:
    """Where the splitter has sentences begin. Linear: a long line is given to it in pieces."""
    line = _LONE_SURROGATE.sub("\ufffd", line)  # broken JSON can hold one; the library wants valid UTF-8
    place, begins = 0, True
    while place < len(line):
        piece = line[place : place + LONGEST_PIECE]
        stop = max(piece.rfind(mark) + 2 for mark in (". ", "! ", "? "))
        if place + len(piece) < len(line):
            piece = piece[: stop if stop > 1 else piece.rfind(" ") + 1 or len(piece)]
        yield from (place + start for start in _library(piece) if start or begins)
        place, begins = place + len(piece), stop > 1


def library_sentences(line: str) -> list[str]:
    """The sentences of a line by the splitter alone, without the rules of this module."""
    starts = [*_library_starts(line), len(line)]
    return [line[start:end].strip() for start, end in itertools.pairwise(starts)]


def _library(piece: str) -> list[int]:
    """Starts of sentences by `sentencex`; by a plain rule where the library fails."""
    try:
        return [boundary["start_index"] for boundary in get_sentence_boundaries("en", piece)]
    except BaseException as error:
        # A panic of the native library is no Exception; a keyboard interrupt is none either, and is not ours.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        say_once()
        return [0, *(match.end() for match in re.finditer(r"[.!?] +(?=[A-Z])", piece))]


@lru_cache(maxsize=1)
def say_once() -> None:
    _logger.warning("the sentence splitter failed on a text, which was split at its full stops instead")
