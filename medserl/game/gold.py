"""Gold pairs, twins made by a physician or by the fact table: what each role should have said of them."""

from __future__ import annotations

from medserl.game.parsing import InjectorFormat
from medserl.game.text import split_sentences, split_words
from medserl.game.vcf import apply_vcf

NEIGHBOURS = 1
"""Words quoted on either side of those that differ: they tell where in the note they belong."""


def right_words(correct: str, incorrect: str) -> str:
    """What the correct note says where its wrong twin parts from it, with a word on either side; never empty text
    unless the note has no words.

    >>> right_words("He has a type 2 diabetes.", "He has a type 1 diabetes.")
    'type 2 diabetes'
    """
    right, wrong = split_words(correct), split_words(incorrect)
    shorter = min(len(right.keys), len(wrong.keys))
    before = _common(right.keys, wrong.keys, shorter)
    after = _common(right.keys[::-1], wrong.keys[::-1], shorter - before)
    first = max(0, before - NEIGHBOURS)
    last = min(len(right.keys), len(right.keys) - after + NEIGHBOURS) - 1
    return " ".join(right.text[right.spans[first][0] : right.spans[last][1]].split()) if right.spans else ""


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
