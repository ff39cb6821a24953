"""The truth oracle: is the fact, as a note states it, still true? No model, no guess.

What is judged is *the note's statement of its fact*, the sentence that names the term:

    true     the statement asserts the right term, in any of its forms
    false    it asserts a wrong term, denies the right one, or names something that is certainly another thing
             (a word turned into its opposite, an amount three times off, another organism)
    unknown  there is no statement, or it cannot be read for certain

`check_edit` also looks at what else was changed. An edit elsewhere never makes the statement false; but the
statement rests on the findings, so it is true only as long as they mean the same. An edit elsewhere keeps it *true*
when it is neutral: a substitution of the neutral table, case, plural, digits for a spelled number, the same amount in
another unit, a detail that means nothing exchanged or left out, an age within the fact's ages, a vital sign within
the range that goes with the fact. Any other change of a finding makes it *unknown*: whether the changed findings
still point to the same term is medicine, and a program that knows only the table must not guess it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from rapidfuzz.distance import Levenshtein

from medserl.game.episode import StillTrue
from medserl.game.text import normalize, split_sentences, split_words
from medserl.knowledge.facts import Fact, load_facts
from medserl.knowledge.neutral import load_substitutions, with_case
from medserl.knowledge.quantities import amounts
from medserl.knowledge.statement import Statement, keys, oracle_lexicon, read_statement
from medserl.knowledge.vignette import rules, vignette_data, vital_ranges


@dataclass(frozen=True)
class OracleAnswer:
    """The oracle's answer, and why."""

    still_true: StillTrue
    reason: str


def still_true(original: str, modified: str | None, fact_id: str | None) -> StillTrue | None:
    """The oracle's word on an accepted edit; None without one, or for a note without a fact of our table."""
    fact = _facts().get(fact_id) if fact_id else None
    return check_edit(original, modified, fact).still_true if fact and modified is not None else None


@lru_cache(maxsize=1)
def _facts() -> dict[str, Fact]:
    return {fact.fact_id: fact for fact in load_facts().facts}


def check(note: str, fact: Fact) -> OracleAnswer:
    """Whether `note` states the fact truly. Looks at the carrying sentence only. Never raises on any text."""
    return _combine([statement for _, statement in _statements(_sentences(note), fact)])


def check_edit(original: str, modified: str, fact: Fact) -> OracleAnswer:
    """Whether the fact is still true after the edit. `original` is taken to be true."""
    stated = check(modified, fact)
    if stated.still_true != "true":
        return stated
    before, after = _sentences(_explain_neutral(original, modified)), _sentences(modified)
    stating = {i for i, _ in _statements(after, fact)}
    if len(before) == len(after) + 1:
        gone = next((i for i, sentence in enumerate(after) if before[i] != sentence), len(after))
        if _is_detail(before[gone]):
            del before[gone]
    if len(before) != len(after):
        return OracleAnswer("unknown", "sentences were added, joined or left out")
    age = _age(modified)
    for i, (old, new) in enumerate(zip(before, after, strict=True)):
        if old != new and i not in stating and not _means_the_same(old, new, fact, age):
            return OracleAnswer("unknown", f"a finding may have changed: {new!r}")
    return OracleAnswer("true", "the right term is stated and nothing else has changed its meaning")


def _statements(sentences: Sequence[str], fact: Fact) -> list[tuple[int, Statement]]:
    read = [(i, read_statement(sentence, fact)) for i, sentence in enumerate(sentences)]
    return [(i, statement) for i, statement in read if statement is not None]


def _combine(statements: Sequence[Statement]) -> OracleAnswer:
    """One answer for a note: false outweighs unknown, and unknown outweighs true."""
    judged = [_judge(statement) for statement in statements]
    for verdict in ("false", "unknown", "true"):
        for truth in judged:
            if truth.still_true == verdict:
                return truth
    return OracleAnswer("unknown", "no sentence states the fact")


def _judge(statement: Statement) -> OracleAnswer:
    if statement.stance == "unclear" or statement.names == "unlisted":
        return OracleAnswer("unknown", statement.reason)
    if statement.names == "right":
        if statement.stance == "asserts":
            return OracleAnswer("true", statement.reason)
        return OracleAnswer("false", "denies the right term")
    if statement.stance == "asserts":
        return OracleAnswer("false", f"asserts a wrong term: {statement.reason}")
    return OracleAnswer("unknown", "denies a wrong term, which does not state the right one")


def _sentences(note: str) -> list[str]:
    text = normalize(note)
    return [text[span.start : span.end] for span in split_sentences(text)]


def _explain_neutral(original: str, modified: str) -> str:
    """`original` with every neutral substitution made that brings it nearer to `modified`."""
    current, target = original, split_words(modified).keys
    distance = Levenshtein.distance(split_words(current).keys, target)
    while distance:
        best = current
        for new, pattern in _either_way():
            for match in pattern.finditer(current):
                tried = current[: match.start()] + with_case(new, match[0]) + current[match.end() :]
                tried_distance = Levenshtein.distance(split_words(tried).keys, target)
                if tried_distance < distance:
                    best, distance = tried, tried_distance
        if best == current:
            break
        current = best
    return current


@lru_cache(maxsize=1)
def _either_way() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """(new text, pattern of the old) both ways round: what may be replaced may also have been the replacement."""
    pairs = {(sub.old, sub.new) for sub in load_substitutions()}
    pairs |= {(new, old) for old, new in pairs}
    return tuple((new, re.compile(rf"(?<![\w-]){re.escape(old)}(?![\w-])", re.I)) for old, new in sorted(pairs))


def _means_the_same(old: str, new: str, fact: Fact, age: int | None) -> bool:
    """Whether a changed sentence, not the carrying one, certainly means what it did."""
    return (
        amounts(keys(old)) == amounts(keys(new))
        or (_is_detail(old) and _is_detail(new))
        or _only_synonyms(keys(old), keys(new))
        or _only_age(old, new, fact)
        or _only_vitals(old, new, fact, age)
    )


def _only_synonyms(old: Sequence[str], new: Sequence[str]) -> bool:
    if len(old) != len(new):
        return False
    changed = [{a, b} for a, b in zip(old, new, strict=True) if a != b]
    return all(any(pair <= set(group) for group in oracle_lexicon()["same"]) for pair in changed)


def _is_detail(sentence: str) -> bool:
    return keys(sentence) in _details()


@lru_cache(maxsize=1)
def _details() -> frozenset[tuple[str, ...]]:
    subjects = {"Sub": ("He", "She", "The patient"), "poss": ("his", "her"), "Poss": ("His", "Her")}
    told = set()
    for detail in vignette_data()["details"]:
        texts = [detail["text"]]
        for placeholder, words in subjects.items():
            texts = [text.replace("{" + placeholder + "}", word) for text in texts for word in words]
        told |= {keys(text) for text in texts}
    return frozenset(told)


_AGE = re.compile(r"\b(\d+)-year-old")


def _age(note: str) -> int | None:
    match = _AGE.search(" ".join(note.split()))
    return int(match[1]) if match else None


def _only_age(old: str, new: str, fact: Fact) -> bool:
    """Only the age differs, it is one for which the fact holds, and no child has become an adult or the reverse."""
    ages = _age(old), _age(new)
    if None in ages or _AGE.sub("#-year-old", old, 1) != _AGE.sub("#-year-old", new, 1):
        return False
    before, after = (age for age in ages if age is not None)
    grown = rules()["adult_from"]
    return fact.ages[0] <= after <= fact.ages[1] and (before < grown) == (after < grown)


_VITALS = {
    "temp": re.compile(r"(\d+\.\d) C \((\d+\.\d) F\)"),
    "pulse": re.compile(r"(?:pulse|heart rate)(?: is| of| slow at| is slow at)* (\d+)/min", re.I),
    "resp": re.compile(r"(?:respirations|respiratory rate)(?: are| is| of)* (\d+)/min", re.I),
    "bp": re.compile(r"(\d+)/(\d+) mm ?Hg"),
    "sat": re.compile(r"oxygen saturation(?: is| of)* (\d+)%", re.I),
}


def _only_vitals(old: str, new: str, fact: Fact, age: int | None) -> bool:
    """Only numbers of vital signs differ, and each lies in the range that goes with the fact."""
    if re.sub(r"[\d.]+", "#", old) != re.sub(r"[\d.]+", "#", new):
        return False
    ranges = vital_ranges(fact, age is not None and age < rules()["child_below"])
    rest = new
    for name, pattern in _VITALS.items():
        match = pattern.search(new)
        if not match:
            continue
        rest = rest.replace(match.group(), "")
        numbers = [float(number) for number in match.groups()]
        if name == "temp":
            celsius, fahrenheit = numbers
            if abs(celsius * 9 / 5 + 32 - fahrenheit) > 0.11:
                return False
            numbers = [celsius * 10]
        limits = [ranges.get(part) for part in (("systolic", "diastolic") if name == "bp" else (name,))]
        if any(limit is None or not limit[0] <= n <= limit[1] for n, limit in zip(numbers, limits, strict=True)):
            return False
    return not re.search(r"\d", rest)
