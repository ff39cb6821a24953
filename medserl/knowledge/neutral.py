"""Edits that change a note's wording and not its meaning, from the table `neutral.toml`."""

from __future__ import annotations

import random
import re
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from medserl.errors import DataError
from medserl.game.text import split_sentences
from medserl.game.vcf import apply_vcf


@dataclass(frozen=True)
class Substitution:
    """`old` may be replaced by `new`. `before` and `after` must match the text that stands directly around it."""

    old: str
    new: str
    pattern: re.Pattern[str]
    before: re.Pattern[str] | None = None
    after: re.Pattern[str] | None = None

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where in `text` it may be used."""
        return [
            match.span()
            for match in self.pattern.finditer(text)
            if (self.before is None or self.before.search(text[: match.start()]))
            and (self.after is None or self.after.match(text, match.end()))
        ]


@dataclass(frozen=True)
class NeutralEdit:
    """One benign edit of a note: `sentence_id` counts from 0, `sentence` is its new text."""

    modified: str
    sentence_id: int
    sentence: str
    substitution: Substitution


@lru_cache(maxsize=1)
def load_substitutions() -> tuple[Substitution, ...]:
    """All substitutions, each way on its own. Raises DataError where a pair is given twice."""
    data = tomllib.loads(files("medserl.knowledge").joinpath("neutral.toml").read_text(encoding="utf-8"))
    directed = [(old, new, None, None) for old, new in data["either_way"] + data["one_way"]]
    directed += [(new, old, None, None) for old, new in data["either_way"]]
    for entry in data["context"]:
        old, new = entry["pair"]
        ways = [(old, new)] if entry.get("one_way") else [(old, new), (new, old)]
        directed += [(a, b, entry.get("before"), entry.get("after")) for a, b in ways]
    repeated = {pair[:2] for pair in directed if [other[:2] for other in directed].count(pair[:2]) > 1}
    if repeated:
        raise DataError(f"neutral.toml: given twice: {sorted(repeated)}; keep one of each")
    return tuple(_substitution(*pair) for pair in directed)


def n_pairs() -> int:
    """Number of pairs in the table, a pair that works both ways counted once."""
    return len({frozenset((sub.old, sub.new)) for sub in load_substitutions()})


def neutral_edits(note: str) -> list[NeutralEdit]:
    """Every benign edit that the table offers for `note` and that passes the VCF, in the table's order."""
    sentences = split_sentences(note)
    starts = {span.start for span in sentences}
    edits = []
    for substitution in load_substitutions():
        for start, end in substitution.spans(note):
            replaced = with_case(substitution.new, note[start:end], starts=start in starts)
            modified = note[:start] + replaced + note[end:]
            inside = [i for i, span in enumerate(sentences) if span.start <= start and end <= span.end]
            now = split_sentences(modified)
            if not inside or len(now) != len(sentences) or not apply_vcf(note, modified).passed:
                continue
            changed = now[inside[0]]
            edits.append(NeutralEdit(modified, inside[0], modified[changed.start : changed.end], substitution))
    return edits


def apply_neutral_edit(note: str, rng: random.Random) -> tuple[str, int, str] | None:
    """One benign edit by chance: (modified note, sentence number from 0, that sentence's new text), or None."""
    edits = neutral_edits(note)
    if not edits:
        return None
    edit = rng.choice(edits)
    return edit.modified, edit.sentence_id, edit.sentence


def _substitution(old: str, new: str, before: str | None, after: str | None) -> Substitution:
    return Substitution(
        old=old,
        new=new,
        pattern=re.compile(rf"(?<![\w-]){re.escape(old)}(?![\w-])", re.IGNORECASE),
        before=re.compile(before, re.IGNORECASE) if before else None,
        after=re.compile(after, re.IGNORECASE) if after else None,
    )


def with_case(new: str, replaced: str, starts: bool = False) -> str:
    """`new`, with a capital letter where a sentence `starts`, or where the replaced text has one and is no acronym."""
    if starts or (replaced[0].isupper() and not replaced[:2].isupper()):
        return new[0].upper() + new[1:]
    return new
