"""Words and sentences of a note: the one place that says what counts as either."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

import regex

from medserl.game.lookalikes import APOSTROPHES, SUBSCRIPTS, SUPERSCRIPTS, fold, normalize
from medserl.game.sentences import Span, split_sentences

__all__ = [
    "HALF_A_CHARACTER",
    "MAX_CHARACTERS",
    "Span",
    "Words",
    "normalize",
    "split_sentences",
    "split_words",
    "too_long",
]

MAX_CHARACTERS = 100_000
"""A note longer than this is refused by name wherever notes are read: the longest discharge summaries have a third."""

HALF_A_CHARACTER = re.compile("[\ud800-\udfff]")
"""One of the two halves that some programs write a character in: no text that can be stored holds one."""

# Whatever carries clinical meaning is a word, and what does not is none. A word has a bounded length, so that one
# endless word counts as many. In angle brackets are classes of characters: see `_ASCII` and `_UNICODE`.
_WORDS = r"""(?= [^\s,;:()] ) (?:
      (?: (?<= <letter> | <number> | \) ) / )?                                               # 82/min
      <letter> <mark>{0,47} (?: <apostrophe> <letter> <mark>{0,47} ){0,3}
    | (?: (?<! [\w)\]}%.,'"\u2019\u201d\u2010-\u2015\u2212/-] ) <dash> (?= \.?<digit> ) )?  # a minus that is a sign
      (?: (?<! [\w)\]}%.,'"\u2019\u201d] ) \. )?                                           # .5
      <digit>{1,32} (?: [.,/:\u2044\u2215] <digit>{1,32} ){0,4}                             # 38.3, 120/70, 1:10
      (?: [eE] <dash> <digit>{1,3} )?                                                      # 2E-3
    | \^ <dash>? <digit>{1,32} | <raised>{1,32} | <lowered>{1,32}                          # 10^9
    | <sign>                                                            # one of < % and the like, or an emoji
    | (?<= [\s(] ) <dash> (?= [ \t]{0,3} (?: [,;.)\]\r\n] | \Z ) )      # a result: "Babinski -"
    | (?<= <letter> | <number> ) <dash> (?= [ \t]{0,3} (?: [,;.)\]] | \Z ) )                # "HIV-, HBV+"
    | (?: (?<= [A-Z] ) | (?<= Rh ) ) <dash> (?= \s )                                        # "Rh- mother"
    | (?<= \S[ \t] ) (?: <dash> | \? ) (?= <letter> | <number> )                           # "+CP -SOB", "?PE"
)"""
_ASCII = {
    **dict.fromkeys(("letter", "mark"), "[A-Za-z]"),
    **dict.fromkeys(("digit", "number"), "[0-9]"),
    **dict.fromkeys(("raised", "lowered"), "(?!)"),
    "sign": "[<>=+%~$^]",
    "dash": "-",
    "apostrophe": "['`]",
}
_UNICODE = {
    "letter": r"[\p{L}\p{Nl}]",
    "mark": r"[\p{L}\p{Nl}\p{M}]",
    "digit": r"\p{Nd}",
    "number": r"\p{N}",
    "raised": rf"(?: \u207b? [{SUPERSCRIPTS}] )",
    "lowered": f"[{SUBSCRIPTS}]",
    "sign": r"(?: (?! [`|\u00a6\u00a8\u00af\u2212] ) [\p{S}\p{No}%\u2030\u2031\u207a\u207b\u208a\u208b] )",
    "dash": r"[-\u2010-\u2013\u2212]",
    "apostrophe": f"[{APOSTROPHES}]",
}


def _with_classes(classes: Mapping[str, str]) -> str:
    return reduce(lambda pattern, name: pattern.replace(f"<{name}>", classes[name]), classes, _WORDS)


_WORD = regex.compile(_with_classes(_UNICODE), regex.VERBOSE)
# The same for ASCII, which most notes are: several times as fast.
_ASCII_WORD = re.compile(_with_classes(_ASCII), re.VERBOSE | re.ASCII)


@dataclass(frozen=True)
class Words:
    """The words of a text: `keys[i]` is the folded word, `spans[i]` where it stands in the normalised text."""

    text: str
    keys: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]


def too_long(note: str) -> str | None:
    """What is wrong with the length of a note, to be said after its name; None for a note that may be read."""
    if len(note) <= MAX_CHARACTERS:
        return None
    return f"has {len(note):,} characters; a note may have {MAX_CHARACTERS:,} at most: split it"


def split_words(text: str) -> Words:
    """Words of `text` as the VCF counts them (docs/design.md). Case and mere punctuation are not part of a word."""
    text = normalize(text)
    pattern = _ASCII_WORD if text.isascii() else _WORD
    spans = tuple([match.span() for match in pattern.finditer(text)])
    if text.isascii() and "^" not in text and "`" not in text:
        lower = text.lower()
        return Words(text, tuple([lower[start:end] for start, end in spans]), spans)
    return Words(text, tuple([_key(text, start, end) for start, end in spans]), spans)


def _key(text: str, start: int, end: int) -> str:
    """The folded word; digits raised or lowered after a number say so: 10\u2079 and 10^9 are alike, 109 is another."""
    word = text[start:end]
    if word.isascii() and (word[0] != "^" or len(word) == 1):
        return word.lower().replace("`", "'")
    key = fold(word)
    before = text[start - 1 : start]
    if word[0] == "^" or word[-1] in _RAISED:
        return key.removeprefix("^") if before.isalpha() else "^" + key.removeprefix("^")
    return f"_{key}" if word[-1] in _LOWERED and before.isdigit() else key


_RAISED, _LOWERED = frozenset("⁰¹²³⁴⁵⁶⁷⁸⁹"), frozenset("₀₁₂₃₄₅₆₇₈₉")
