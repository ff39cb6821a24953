"""Gold pairs, twins made by a physician or by the fact table: what each role should have said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medserl.game.parsing import InjectorFormat
from medserl.game.text import Span, Words, split_sentences, split_words
from medserl.game.vcf import apply_vcf

NEIGHBOURS = 1
"""Words quoted on either side of those that differ: they tell where in the note they belong."""


@dataclass(frozen=True)
class Difference:
    """Where a text parts from its twin: the number of the sentence, what stands there, and what should."""

    sentence: int
    says: str
    should_say: str


def parting(text: str, twin: str, *, is_error: bool) -> Difference:
    """Where `text` parts from its twin, its words there with one on either side that is in the same sentence; no words
    only where it has none. A correct text should say what it says.

    >>> parting("He is ill. He has type 1 diabetes.", "He is ill. He has type 2 diabetes.", is_error=True)
    Difference(sentence=1, says='type 1 diabetes', should_say='type 2 diabetes')
    """
    spans = split_sentences(text), split_sentences(twin)
    here, there = (
        [" ".join(note[span.start : span.end].split()) for span in mine]
        for note, mine in zip((text, twin), spans, strict=True)
    )
    shorter = min(len(here), len(there))
    before = _common(here, there, shorter)
    after = _common(here[::-1], there[::-1], shorter - before)
    if before + after == shorter:  # whole sentences are missing, if any are: beside the one that they follow
        before = max(0, before - 1)
    parts = [_part(note, mine[before : len(mine) - after]) for note, mine in zip((text, twin), spans, strict=True)]
    if not all(part.keys for part in parts):
        before, parts = 0, [split_words(text), split_words(twin)]
    says, should_say = _quoted(*parts)
    return Difference(before, says, should_say if is_error else says)


def _part(note: str, sentences: Sequence[Span]) -> Words:
    return split_words(note[sentences[0].start : sentences[-1].end] if sentences else "")


def _quoted(here: Words, there: Words) -> tuple[str, str]:
    """The words in which two texts differ, with `NEIGHBOURS` on either side, on one line; no part of a `q8h`."""
    shorter = min(len(here.keys), len(there.keys))
    before = _common(here.keys, there.keys, shorter)
    after = _common(here.keys[::-1], there.keys[::-1], shorter - before)
    first = max(0, before - NEIGHBOURS)
    quoted = []
    for words in (here, there):
        last = min(len(words.keys), len(words.keys) - after + NEIGHBOURS) - 1
        run = (words.spans[first][0], words.spans[last][1]) if words.spans else (0, 0)
        quoted.append(" ".join(_whole(words.text, *run).split()))
    return quoted[0], quoted[1]


def _whole(text: str, start: int, end: int) -> str:
    """The text from `start` to `end`, with the letters and digits that it is joined to."""
    while start and text[start - 1].isalnum():
        start -= 1
    while text[end : end + 1].isalnum():
        end += 1
    return text[start:end]


def injection_answer(original: str, modified: str, form: InjectorFormat) -> str | None:
    """What the Injector should write to turn `original` into `modified`; None where the game has no way to say it."""
    if not apply_vcf(original, modified).passed:
        return None
    if form == "note":
        return f"<note>{modified}</note>"
    before, after = split_sentences(original), split_sentences(modified)
    changed = [
        i
        for i, (a, b) in enumerate(zip(before, after, strict=False))
        if original[a.start : a.end] != modified[b.start : b.end]
    ]
    if len(before) != len(after) or len(changed) != 1:
        return None
    span = after[changed[0]]
    return f"{changed[0]} {' '.join(modified[span.start : span.end].split())}"


def _common(a: Sequence[str], b: Sequence[str], most: int) -> int:
    """How many items, at most `most`, both begin with."""
    return next((i for i in range(most) if a[i] != b[i]), most)
