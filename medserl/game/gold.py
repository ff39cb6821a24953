"""Gold pairs, twins made by a physician or by the fact table: what each role should have said of them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

from medserl.game.parsing import InjectorFormat, note_sentences
from medserl.game.text import Words, split_sentences, split_words
from medserl.game.vcf import apply_vcf

NEIGHBOURS = 1
"""Words quoted on either side of those that differ: they tell where in the note they belong."""


@dataclass(frozen=True)
class Place:
    """Where a text parts from its twin: the number of the sentence, what stands there, and what should."""

    sentence: int
    says: str
    should_say: str


def parting(text: str, twin: str, *, is_error: bool) -> Place:
    """Where `text` parts from its twin, its words there with one on either side; no words only where it has none.

    A correct text should say what it says.

    >>> parting("He is ill. He has type 1 diabetes.", "He is ill. He has type 2 diabetes.", is_error=True)
    Place(sentence=1, says='type 1 diabetes', should_say='type 2 diabetes')
    """
    here, there = split_words(text), split_words(twin)
    shorter = min(len(here.keys), len(there.keys))
    before = _common(here.keys, there.keys, shorter)
    after = _common(here.keys[::-1], there.keys[::-1], shorter - before)
    says = _quoted(here, before, after)
    return Place(_sentence_of(text, before), says, _quoted(there, before, after) if is_error else says)


def _quoted(words: Words, before: int, after: int) -> str:
    """The words but for the `before` first and `after` last ones, with `NEIGHBOURS` on either side, on one line."""
    if not words.spans:
        return ""
    first = max(0, before - NEIGHBOURS)
    last = min(len(words.keys), len(words.keys) - after + NEIGHBOURS) - 1
    return " ".join(words.text[words.spans[first][0] : words.spans[last][1]].split())


def _sentence_of(text: str, place: int) -> int:
    """The number of the sentence in which the word at `place` stands; past the last word, the last sentence."""
    ends = accumulate(len(split_words(sentence).keys) for sentence in note_sentences(text))
    return min(sum(end <= place for end in ends), max(0, len(note_sentences(text)) - 1))


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


def _common(a: tuple[str, ...], b: tuple[str, ...], most: int) -> int:
    """Words, at most `most`, that both begin with."""
    return next((i for i in range(most) if a[i] != b[i]), most)
