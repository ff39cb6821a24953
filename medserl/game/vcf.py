"""The VCF (verifiable change filter): was one small change made to the note, all of it in one sentence?

A pure function of two texts. It never raises on two strings, and every rejection names one reason. It says nothing
about medicine: whether an edit is an error is the game's business, not the filter's.

    words       NFKC, casefolded, look-alike letters as one; numbers whole; signs and symbols are words, mere
                punctuation is not; a mass of what is no word counts as too many edits
    word_edits  word-level Levenshtein operations from original to modified
    jaccard     |A ∩ B| / |A ∪ B| over the two bags of words
    bounds      length-aware, so that a change of a single word passes whatever the note's length (see `bounds`)
    one place   all edits, which may be several, lie inside one sentence, of the original and of the modified note alike
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from rapidfuzz.distance import Levenshtein

from medserl.game.text import Words, split_sentences, split_words

MIN_JACCARD = 0.85
MAX_JACCARD = 0.99
MAX_WORD_EDITS = 6
MOST_NEW_FILLING = 64
"""Characters that are no part of a word (blanks, punctuation, what cannot be seen) by which a note may grow, or one for
each of its words if that is more: enough for another layout, not for a wall of marks beside a word."""


class Reason(StrEnum):
    """Why an attempt was rejected.

    The rollout gives three kinds that the filter does not: `TRUNCATED`, the completion was cut at the token limit, and
    so is no answer; `FORMAT`, it held no note at all; and the `AUDIT_` ones of the edit audit (`knowledge`), which no
    note meets unless the setting `edit_audit` is `reject`.
    """

    EMPTY = "empty"
    TRUNCATED = "truncated"
    FORMAT = "format"
    NO_CHANGE = "no_change"
    TOO_MANY_EDITS = "too_many_edits"
    TOO_DIFFERENT = "too_different"
    TOO_SIMILAR = "too_similar"
    SEVERAL_SENTENCES = "several_sentences"
    AUDIT_NO_MEANING = "audit_no_meaning"
    AUDIT_MEANING = "audit_meaning"
    AUDIT_UNKNOWN = "audit_unknown"
    AUDIT_TO_THE_READER = "audit_to_the_reader"


@dataclass(frozen=True)
class Edit:
    """One changed stretch of words; nothing `original` is an insertion, nothing `modified` a deletion.

    Offsets are characters in the normalised form of each note (`game.text.normalize`).
    """

    original: str
    modified: str
    original_start: int
    original_end: int
    modified_start: int
    modified_end: int


class WordRanges(NamedTuple):
    """Word ranges a[a_from:a_to] -> b[b_from:b_to] of one edit."""

    a_from: int
    a_to: int
    b_from: int
    b_to: int


@dataclass(frozen=True)
class VCFResult:
    """The filter's decision. `reason` is None exactly when `passed`; `edits` are the changed stretches, in order."""

    passed: bool
    reason: Reason | None
    jaccard: float
    word_edits: int
    edits: tuple[Edit, ...] = ()


def apply_vcf(
    original: str,
    modified: str,
    min_jaccard: float = MIN_JACCARD,
    max_jaccard: float = MAX_JACCARD,
    max_word_edits: int = MAX_WORD_EDITS,
) -> VCFResult:
    """Decide whether `modified` is `original` with one small edit. Never raises on two strings.

    Args:
        original: The note as it was.
        modified: The note after the edit.
        min_jaccard: Least Jaccard similarity of the two bags of words, 0 to 1. One changed word always passes: in a
            short note the bound gives way (`bounds`).
        max_jaccard: Greatest, likewise.
        max_word_edits: Most words put in, taken out or replaced.

    Returns:
        `passed`, the one `reason` where it did not, and what was measured: `jaccard`, `word_edits`, and the `edits`,
        each with its words before and after.
    """
    a, b = split_words(original), split_words(modified)
    if not a.keys or not b.keys:
        return VCFResult(False, Reason.EMPTY, 0.0, max(len(a.keys), len(b.keys)))

    word_edits = Levenshtein.distance(a.keys, b.keys)
    jaccard = bag_jaccard(a.keys, b.keys)
    changed = _changed_ranges(a.keys, b.keys)
    floor, ceiling = bounds(len(a.keys), min_jaccard, max_jaccard)

    reason = None
    if word_edits == 0:
        reason = Reason.NO_CHANGE
    elif word_edits > max_word_edits or _filled_up(original, a, modified, b):
        reason = Reason.TOO_MANY_EDITS
    elif jaccard < floor:
        reason = Reason.TOO_DIFFERENT
    elif jaccard > ceiling:
        reason = Reason.TOO_SIMILAR
    elif not (_unbroken(a, changed[0].a_from, changed[-1].a_to) and _unbroken(b, changed[0].b_from, changed[-1].b_to)):
        reason = Reason.SEVERAL_SENTENCES
    return VCFResult(reason is None, reason, jaccard, word_edits, tuple(_edit(a, b, ranges) for ranges in changed))


def bag_jaccard(a: Sequence[str], b: Sequence[str]) -> float:
    """Jaccard similarity of two bags (multisets) of words, 0 to 1; two empty bags are alike."""
    bag_a, bag_b = Counter(a), Counter(b)
    shared = sum((bag_a & bag_b).values())
    union = len(a) + len(b) - shared
    return shared / union if union else 1.0


def bounds(n_words: int, min_jaccard: float, max_jaccard: float) -> tuple[float, float]:
    """Jaccard floor and ceiling for an original of `n_words` words.

    A single word substituted gives (N-1)/(N+1), deleted (N-1)/N, inserted N/(N+1). The floor is lowered to the
    smallest of these and the ceiling raised to the largest, so every single-word change passes at every length.
    """
    return min(min_jaccard, (n_words - 1) / (n_words + 1)), max(max_jaccard, n_words / (n_words + 1))


def _changed_ranges(a: Sequence[str], b: Sequence[str]) -> list[WordRanges]:
    """Word ranges that lie between stretches equal in both: neighbouring operations are one edit to a reader."""
    changed = []
    a_from = b_from = 0
    for run in Levenshtein.opcodes(a, b):
        if run.tag != "equal":
            continue
        if (a_from, b_from) != (run.src_start, run.dest_start):
            changed.append(WordRanges(a_from, run.src_start, b_from, run.dest_start))
        a_from, b_from = run.src_end, run.dest_end
    if (a_from, b_from) != (len(a), len(b)):
        changed.append(WordRanges(a_from, len(a), b_from, len(b)))
    return changed


def _edit(a: Words, b: Words, ranges: WordRanges) -> Edit:
    a_start, a_end = _extent(a, ranges.a_from, ranges.a_to)
    b_start, b_end = _extent(b, ranges.b_from, ranges.b_to)
    return Edit(a.text[a_start:a_end], b.text[b_start:b_end], a_start, a_end, b_start, b_end)


def _extent(words: Words, first: int, last: int) -> tuple[int, int]:
    """Characters of words[first:last]; where there are none, the empty place right after the word before."""
    if first < last:
        return words.spans[first][0], words.spans[last - 1][1]
    place = words.spans[first - 1][1] if first else 0
    return place, place


def _unbroken(words: Words, first: int, last: int) -> bool:
    """Whether no sentence begins strictly inside words[first:last]."""
    if last - first < 2:
        return True
    start, end = words.spans[first][0], words.spans[last - 1][1]
    if not _MAY_END_SENTENCE.search(words.text, start, end):
        return True  # most edits are a word or two: no need to look for sentences at all
    return not any(start < sentence.start < end for sentence in split_sentences(words.text))


_MAY_END_SENTENCE = re.compile(r"[^\w ,'-]")
"""Whatever is no letter, digit, blank or comma: the splitter knows the full stops of a hundred scripts."""


def _filled_up(original: str, a: Words, modified: str, b: Words) -> bool:
    """Whether `modified` holds far more characters that are no part of a word."""
    before, after = len(original) - sum(map(len, a.keys)), len(modified) - sum(map(len, b.keys))
    return after - before > max(MOST_NEW_FILLING, len(a.keys))
