"""The edit audit: what kind of statement did an edit change, and may an edit of this mode do so?

Labels by mode rest on the Injector's honesty: in error mode a harmless synonym, in benign mode a real error, teaches
the Assessor nonsense. The audit closes that hole as far as rules can. It uses no model, and it does not judge whether
an edit makes the note *wrong*, only whether the edit can carry meaning:

    neutral     the note certainly says what it said: the neutral table, synonyms, spelled numbers, the same amount in
                another unit, inflections, and words that state nothing
    a class     something was changed that does carry meaning; the most telling class of `EditClass`
    unknown     content was changed that no list knows

Policy: `Audit.objection`. Unknown edits are allowed in neither mode. Of the hand-labelled ones (docs/experiments.md)
half in error mode leave the note true, a fifth in benign mode make it wrong; and in benign mode nonsense, which no
list knows, is flagged and so would pay. The lexicon is `audit.toml`, with the fact table's terms and the neutral table.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from importlib.resources import files
from itertools import chain
from typing import Any

from rapidfuzz.distance import Levenshtein

from medserl.game.roles import Mode
from medserl.game.vcf import Reason
from medserl.knowledge.facts import load_facts
from medserl.knowledge.neutral import load_substitutions
from medserl.knowledge.quantities import amounts, as_number
from medserl.knowledge.rewriting import Phrase, Rewritings, rewrite_rules, simplest
from medserl.knowledge.statement import all_forms, keys, oracle_lexicon


class EditClass(StrEnum):
    """What an edit changed. Symptoms and findings with a name of their own count as diagnoses."""

    NUMBER = "number"
    UNIT = "unit"
    NEGATION = "negation"
    LATERALITY = "laterality"
    TIME = "time"
    DRUG = "drug"
    DIAGNOSIS = "diagnosis"
    ORGANISM = "organism"
    MANAGEMENT = "management"
    NEUTRAL = "neutral"
    UNKNOWN = "unknown"


_KINDS = {
    "drug": EditClass.DRUG,
    "organism": EditClass.ORGANISM,
    "diagnosis": EditClass.DIAGNOSIS,
    "procedure": EditClass.MANAGEMENT,
    "therapy": EditClass.MANAGEMENT,
}
"""Kinds of the fact table's pools whose terms are made of words of one class."""

_TELLING = (*(each for each in EditClass if each is not EditClass.NEUTRAL), EditClass.NEUTRAL)
"""The most telling class first: an edit is neutral only if it is so both ways."""

_NAMES = (EditClass.DRUG, EditClass.ORGANISM)
_BY_WORD = (*_NAMES, EditClass.NUMBER, EditClass.TIME, EditClass.DIAGNOSIS, EditClass.MANAGEMENT)
_CUE_REACH, _HEAD_REACH, _LONGEST_TERM = 3, 2, 4
_SHORTEST_STEM = 4


@dataclass(frozen=True)
class ChangedWords:
    """A changed stretch of words, and what stands right before and after it."""

    removed: Phrase
    added: Phrase
    before: Phrase
    after: Phrase


@dataclass(frozen=True)
class Audit:
    """The class of an edit, whether it is too slight for any reader to find, and whether it speaks to the reader."""

    edit_class: EditClass
    slight: bool = False
    to_the_reader: bool = False

    def objection(self, mode: Mode) -> Reason | None:
        """Why the edit is not allowed in this mode; None where it is.

        Error mode asks for an edit that can carry meaning, benign mode for one that cannot. A pulse of 97 for 96, or
        another age, is neither.
        """
        if self.to_the_reader:
            return Reason.AUDIT_TO_THE_READER
        if self.edit_class is EditClass.UNKNOWN:
            return Reason.AUDIT_UNKNOWN
        neutral = self.edit_class is EditClass.NEUTRAL
        if mode == "error":
            return Reason.AUDIT_NO_MEANING if neutral or self.slight else None
        return None if neutral else Reason.AUDIT_MEANING


def audit(original: str, modified: str, rules: Rewritings | None = None) -> Audit:
    """What the edit that made `modified` of `original` is. Never raises on two strings.

    The class is the same when the pair is turned round: the more telling of those that the two directions show.
    `rules` (of `rules_of`) are used instead of those of all `neutral_pairs`.
    """
    rules = neutral_rules() if rules is None else rules
    old, new = (simplest(keys(text), rules) for text in (original, modified))
    if amounts(old) == amounts(new):
        return Audit(EditClass.NEUTRAL)
    there, back = _changed_stretches(old, new), _changed_stretches(new, old)
    denied = _denied(old) != _denied(new)
    edit_class = min((_class_one_way(stretches, denied) for stretches in (there, back)), key=_TELLING.index)
    slight = edit_class is EditClass.NUMBER and all(map(_is_slight, there + back))
    added = chain.from_iterable(stretch.added for stretch in there)
    return Audit(edit_class, slight, to_the_reader=not set(audit_lexicon()["to_the_reader"]).isdisjoint(added))


def _class_one_way(stretches: Sequence[ChangedWords], denied: bool) -> EditClass:
    """The class by what was removed, added, and stands around it; `denied`: what the text denies was changed."""
    removed = tuple(chain.from_iterable(stretch.removed for stretch in stretches))
    added = tuple(chain.from_iterable(stretch.added for stretch in stretches))
    return (
        _known_change(removed, added, stretches)
        or (EditClass.NEGATION if denied and _denials(removed) else None)
        or (EditClass.NEUTRAL if _is_wording(removed, added) else None)
        or _change_by_context(stretches)
        or EditClass.UNKNOWN
    )


# -- what means the same -------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def neutral_rules() -> Rewritings:
    return rules_of(neutral_pairs())


def neutral_pairs() -> list[tuple[str, str]]:
    """Phrases that mean the same: the neutral table, the fact table's synonyms, and `same` of `audit.toml`."""
    pairs = [(sub.old, sub.new) for sub in load_substitutions()]
    pairs += [(form, term.name) for pool in load_facts().pools for term in pool.terms for form in all_forms(term)]
    return pairs + [(group[0], form) for group in audit_lexicon()["same"] for form in group[1:]]


def rules_of(pairs: Iterable[tuple[str, str]]) -> Rewritings:
    """Rewrite rules of phrases that mean the same."""
    return rewrite_rules((keys(a), keys(b)) for a, b in pairs)


# -- what was changed ---------------------------------------------------------------------------------------------


def _changed_stretches(old: Phrase, new: Phrase) -> list[ChangedWords]:
    """Aligned from the lesser text to the greater: of several shortest alignments both ways take the same one."""
    runs = Levenshtein.opcodes(old, new) if old <= new else Levenshtein.opcodes(new, old).inverse()
    return [
        ChangedWords(
            old[run.src_start : run.src_end],
            new[run.dest_start : run.dest_end],
            before=new[max(0, run.dest_start - _CUE_REACH) : run.dest_start],
            after=new[run.dest_end : run.dest_end + _HEAD_REACH],
        )
        for run in runs
        if run.tag != "equal"
    ]


def _known_change(removed: Phrase, added: Phrase, stretches: Sequence[ChangedWords]) -> EditClass | None:
    """The class whose words differ between what was removed and what was added, or None."""
    for name in _NAMES:
        if _differ(name, removed, added) and _of(name, removed) and _of(name, added):
            return name
    if _of(EditClass.LATERALITY, removed) != _of(EditClass.LATERALITY, added):
        return EditClass.LATERALITY
    if _denials(removed) != _denials(added):
        return EditClass.NEGATION
    if _numbers(removed) != _numbers(added):
        return EditClass.TIME if any(_counts_time(stretch) for stretch in stretches) else EditClass.NUMBER
    if _of(EditClass.UNIT, removed) != _of(EditClass.UNIT, added):
        return EditClass.UNIT
    return next((edit_class for edit_class in _BY_WORD if _differ(edit_class, removed, added)), None)


def _differ(edit_class: EditClass, removed: Phrase, added: Phrase) -> bool:
    old, new = _of(edit_class, removed), _of(edit_class, added)
    return len(old) != len(new) or not all(_inflected(a, b) for a, b in zip(old, new, strict=True))


def _of(edit_class: EditClass, words: Phrase) -> list[str]:
    return [word for word in words if class_of(word) is edit_class]


def _denials(words: Phrase) -> int:
    return sum(word in _denying() for word in words)


def _denied(words: Phrase) -> list[str]:
    """The word that each denial denies: the first after it that states something."""
    empty = _wording() | _denying()
    return [
        next((word for word in words[i + 1 :] if word not in empty), "")
        for i, denial in enumerate(words)
        if denial in _denying()
    ]


def _numbers(words: Phrase) -> list[str]:
    return [word for word in words if word.lstrip("-.^_")[:1].isdigit()]


def _counts_time(stretch: ChangedWords) -> bool:
    """Whether its numbers count days or the like; a patient's age is a number."""
    words = (*stretch.removed, *stretch.added, *stretch.after[:1])
    return "old" not in (*words, *stretch.after) and any(class_of(word) is EditClass.TIME for word in words)


def _is_slight(stretch: ChangedWords) -> bool:
    """Whether it is another age, or numbers nearly as large stand for numbers."""
    old, new = (_numbers(words) for words in (stretch.removed, stretch.added))
    if len(old) != len(stretch.removed) or len(new) != len(stretch.added) or len(old) != len(new):
        return _is_wording(stretch.removed, stretch.added)
    return "old" in stretch.after or all(_near(a, b) for a, b in zip(old, new, strict=True))


def _near(a: str, b: str) -> bool:
    """Whether two numbers, or the parts of two like 120/70, are less than `smallest_telling_ratio` apart."""
    old, new = ([as_number(part) for part in word.split("/")] for word in (a, b))
    if len(old) != len(new):
        return False
    return all(
        x is not None and y is not None and x * y > 0 and max(x / y, y / x) < audit_lexicon()["smallest_telling_ratio"]
        for x, y in zip(old, new, strict=True)
    )


def _is_wording(removed: Phrase, added: Phrase) -> bool:
    """Whether only words that state nothing, or inflections of the same words, differ. Denials were compared before."""
    if _sexes(removed) and _sexes(added) and _sexes(removed) != _sexes(added):
        return False
    empty = _wording() | _denying() | _sexed("male") | _sexed("female")
    old, new = ([word for word in words if word not in empty] for words in (removed, added))
    return len(old) == len(new) and all(_inflected(a, b) for a, b in zip(old, new, strict=True))


def _change_by_context(stretches: Sequence[ChangedWords]) -> EditClass | None:
    """The class of a term that no list knows, by the word it goes with: "gives X", "X syndrome"."""
    for stretch in stretches:
        if len(stretch.added) > _LONGEST_TERM or any(map(_wording().issuperset, (stretch.removed, stretch.added))):
            continue  # no term took another's place
        for table, words in (("heads", stretch.after), ("cues", reversed(stretch.before))):
            for word in words:
                for name, listed in audit_lexicon()[table].items():
                    if word in listed:
                        return EditClass(name)
    return None


def _inflected(a: str, b: str) -> bool:
    stem = len(_common_start(a, b))
    return a == b or (stem >= _SHORTEST_STEM and {a[stem:], b[stem:]} <= _endings())


def _common_start(a: str, b: str) -> str:
    return next((a[:i] for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(a, b, key=len))


# -- words --------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def audit_lexicon() -> Mapping[str, Any]:
    """The contents of `audit.toml`."""
    return tomllib.loads(files("medserl.knowledge").joinpath("audit.toml").read_text(encoding="utf-8"))


@lru_cache(maxsize=16384)
def class_of(word: str) -> EditClass | None:
    """The class that a word by itself belongs to, by the lists, else by how it begins or ends; None for other words."""
    known = _listed().get(word)
    if known or len(word) < audit_lexicon()["shortest_by_form"] or word in audit_lexicon()["ordinary"]:
        return known
    for place, matches in (("endings", word.endswith), ("beginnings", word.startswith)):
        for name, forms in audit_lexicon()[place].items():
            if matches(tuple(forms)):
                return EditClass(name)
    return None


@lru_cache(maxsize=1)
def _listed() -> Mapping[str, EditClass]:
    """Words of `audit.toml` and of the fact table's terms; where a word is in two lists, the first one counts."""
    listed: dict[str, EditClass] = {}
    for name, words in audit_lexicon()["words"].items():
        for word in words:
            listed.setdefault(word, EditClass(name))
    for pool in load_facts().pools:
        if pool.kind in _KINDS:
            for word in chain.from_iterable(keys(form) for term in pool.terms for form in all_forms(term)):
                if re.fullmatch(r"[a-z]{3,}", word) and word not in _wording():
                    listed.setdefault(word, _KINDS[pool.kind])
    return dict.fromkeys(oracle_lexicon()["organisms"], EditClass.ORGANISM) | listed


@lru_cache(maxsize=1)
def _wording() -> frozenset[str]:
    return frozenset(audit_lexicon()["wording"])


@lru_cache(maxsize=1)
def _denying() -> frozenset[str]:
    return frozenset(oracle_lexicon()["denying"]) | frozenset(audit_lexicon()["denying"])


@lru_cache(maxsize=2)
def _sexed(sex: str) -> frozenset[str]:
    return frozenset(audit_lexicon()[sex])


def _sexes(words: Phrase) -> set[str]:
    return {sex for sex in ("male", "female") if not _sexed(sex).isdisjoint(words)}


@lru_cache(maxsize=1)
def _endings() -> frozenset[str]:
    return frozenset(audit_lexicon()["inflections"])
