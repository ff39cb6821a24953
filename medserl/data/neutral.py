"""Rewordings that carry no clinical meaning, from a committed table: benign edits for warm-up and for the oracle."""

from __future__ import annotations

import random
import re
import tomllib
from functools import cache
from importlib.resources import files

from medserl.game.text import split_sentences
from medserl.game.vcf import apply_vcf


@cache
def neutral_pairs() -> tuple[tuple[str, str], ...]:
    """Every substitution as (old, new), in each direction that is safe."""
    text = files(__package__).joinpath("neutral.toml").read_text(encoding="utf-8")
    pairs = tomllib.loads(text)["pairs"]
    return tuple((a, b) for one, other in pairs for a, b in ((one, other), (other, one)))


def neutral_edits(note: str) -> list[str]:
    """Every note that one substitution of the table, at its first place, makes of `note`, and that passes the VCF."""
    edited = []
    for old, new in neutral_pairs():
        match = re.search(rf"(?<!\w){re.escape(old)}(?!\w)", note)
        if match:
            modified = note[: match.start()] + new + note[match.end() :]
            if apply_vcf(note, modified).passed:
                edited.append(modified)
    return edited


def apply_neutral_edit(note: str, rng: random.Random) -> tuple[str, int, str] | None:
    """A neutral rewording of `note`: the new note, the number of the changed sentence and its new text."""
    edited = neutral_edits(note)
    if not edited:
        return None
    modified = rng.choice(edited)
    before, after = split_sentences(note), split_sentences(modified)
    for number, (a, b) in enumerate(zip(before, after, strict=False)):
        if note[a.start : a.end] != modified[b.start : b.end]:
            return modified, number, modified[b.start : b.end]
    return None
