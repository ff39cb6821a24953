"""How a note states its fact: the sentence that carries it, the term it names, and whether it asserts or denies it."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any, Literal

from rapidfuzz.distance import Levenshtein

from medserl.game.text import split_words
from medserl.knowledge.facts import Fact, Pool, Term, load_facts
from medserl.knowledge.quantities import Quantity, as_number, quantity_at, with_digits

Naming = Literal["right", "wrong", "unlisted"]
FAR_OFF = 3.0  # an amount this many times too large or too small is wrong, whatever the table lists
_LONGEST_REMEMBERED = 1024
"""Characters of the longest text whose words are remembered: phrases and sentences, no whole notes."""
_RIGHT, _WRONG = "\0right", "\0wrong"


@dataclass(frozen=True)
class Statement:
    """What one sentence says about the fact. `names` is the term's standing, `stance` what is said of it."""

    names: Naming
    stance: Literal["asserts", "denies", "unclear"]
    reason: str


@lru_cache(maxsize=1)
def oracle_lexicon() -> Mapping[str, Any]:
    """The contents of `oracle.toml`."""
    return tomllib.loads(files("medserl.knowledge").joinpath("oracle.toml").read_text(encoding="utf-8"))


def keys(text: str) -> tuple[str, ...]:
    """Words to compare by: lower case, singular, digits for spelled numbers, without articles and mere emphasis.

    A slash before a word reads as "per".
    """
    return _remembered_keys(text) if len(text) <= _LONGEST_REMEMBERED else _keys(text)


def _keys(text: str) -> tuple[str, ...]:
    for short, long in oracle_lexicon()["abbreviations"]:
        text = re.sub(rf"\b{short}\b", long, text)
    found: list[str] = []
    for word in split_words(with_digits(text)).keys:
        if word[0] == "/":
            found.append("per")
            word = word[1:]
        if word not in oracle_lexicon()["dropped"]:
            found.append(_singular(word))
    return tuple(found)


_remembered_keys = lru_cache(maxsize=8192)(_keys)


def read_statement(sentence: str, fact: Fact) -> Statement | None:
    """What `sentence` states about the fact, or None where it is no statement of it."""
    words = list(keys(re.sub("|".join(oracle_lexicon()["emphatic"]), "", sentence)))
    tokens = _name_terms(words, fact)
    named = [token for token in tokens if token in (_RIGHT, _WRONG)]
    if not named and fact.pool.kind == "negation":
        tokens = _denial_moved_out(words, fact)
        named = [token for token in tokens if token in (_RIGHT, _WRONG)]
    if not named:
        return _judge_slot(words, fact)
    tokens = _without_contrast(tokens)
    left = {token for token in tokens if token in (_RIGHT, _WRONG)}
    names: Naming = "wrong" if _WRONG in left else "right"
    if _offers_a_choice(tokens):
        return Statement(names, "unclear", "leaves open which term")
    return _judge_frame(tokens, names, fact)


def _name_terms(words: Sequence[str], fact: Fact) -> list[str]:
    """`words` with every known term of the pool's kind replaced by a mark: right or wrong for this fact."""
    forms = _known_forms(fact)
    answer = quantity_at(keys(fact.answer.name), 0)
    longest = max(len(form) for form in forms)
    tokens: list[str] = []
    i = 0
    while i < len(words):
        amount = quantity_at(words, i) if answer else None
        standing = _amount_standing(amount, answer, forms) if amount and answer else None
        if standing in (_RIGHT, _WRONG):
            tokens.append(standing)
            i += 2
            continue
        for length in range(min(longest, len(words) - i), 0, -1):
            mark = forms.get(tuple(words[i : i + length]))
            if mark:
                tokens.append(mark)
                i += length
                break
        else:
            tokens.append(words[i])
            i += 1
    # a name and its synonym side by side, "name (synonym)", are one mention
    return [token for n, token in enumerate(tokens) if not (n and token == tokens[n - 1] == _RIGHT)]


def _denial_moved_out(words: Sequence[str], fact: Fact) -> list[str]:
    """Yes-or-no answers are verbs, and a denial may stand inside one: "is hardly indicated"."""
    denials = [word for word in words if word in oracle_lexicon()["inner_denying"]]
    return _name_terms([word for word in words if word not in denials], fact) + denials


def _amount_standing(amount: Quantity, answer: Quantity, forms: Mapping[tuple[str, ...], str]) -> str | None:
    ratio = amount.ratio(answer)
    if ratio is None:
        return None
    if amount.measures == answer.measures and ratio == 1:
        return _RIGHT
    listed = [quantity_at(form, 0) for form, mark in forms.items() if mark == _WRONG]
    return _WRONG if amount in listed or ratio >= FAR_OFF else None


@lru_cache(maxsize=512)
def _known_forms(fact: Fact) -> dict[tuple[str, ...], str]:
    """Words of every known form of a term -> its mark. Terms of other pools of the same kind are wrong, too."""
    if fact.pool.kind == "negation":
        return _polar_forms(fact)
    forms: dict[tuple[str, ...], str] = {}
    for pool in load_facts().pools:
        if pool.kind == fact.pool.kind and pool != fact.pool:
            forms |= {keys(form): _WRONG for term in pool.terms for form in all_forms(term)}
    forms |= {keys(form): _WRONG for term in fact.pool.terms for form in all_forms(term)}
    return forms | {keys(form): _RIGHT for form in all_forms(fact.answer)}


def _polar_forms(fact: Fact) -> dict[tuple[str, ...], str]:
    """Forms of a yes-or-no pool: denying one answer states the other."""
    positive, negative = (list(oracle_lexicon()[name]) for name in ("positive", "negative"))
    denied = [_negate(form) for form in positive], [_negate(form) for form in negative]
    yes, no = positive + denied[1], negative + denied[0]
    is_yes = fact.answer.name in yes
    return {keys(form): _RIGHT if is_yes else _WRONG for form in yes} | {
        keys(form): _WRONG if is_yes else _RIGHT for form in no
    }


def _negate(form: str) -> str:
    first, rest = form.split(" ", 1)
    return f"{first} not {rest}"


def all_forms(term: Term) -> tuple[str, ...]:
    """Names and synonyms of the fact table and of the oracle's own list."""
    return (*term.forms, *oracle_lexicon()["synonyms"].get(term.name, ()))


def _without_contrast(tokens: list[str]) -> list[str]:
    """Leaves out what is only denied: "A rather than B", "A, not B" and "not B but A" state A."""
    text = " ".join(tokens)
    marks = f"(?:{_RIGHT}|{_WRONG})"
    text = re.sub(rf"not {marks} but (?:rather )?({marks})", r"\1", text)
    for connector in sorted(oracle_lexicon()["contrast"], key=len, reverse=True):
        text = re.sub(rf"({marks}) {connector} (?:{marks}|\w+$)", r"\1", text)
    return text.split(" ")


def _offers_a_choice(tokens: Sequence[str]) -> bool:
    """Whether an "or" stands between two terms. One elsewhere is the carrying sentence's own."""
    marks = [i for i, token in enumerate(tokens) if token in (_RIGHT, _WRONG)]
    return "or" in tokens[marks[0] : marks[-1]]


def _judge_frame(tokens: Sequence[str], names: Naming, fact: Fact) -> Statement | None:
    """Compare what stands around the term with the pool's carrying sentences."""
    frame = Counter(token for token in tokens if token not in (_RIGHT, _WRONG))
    carriers = _carrier_words(fact.pool)
    carrier = min(carriers, key=lambda words: (frame - words).total() + (words - frame).total())
    added = frame - carrier
    safe = {word for words in carriers for word in words}
    safe |= {*oracle_lexicon()["stating"], *oracle_lexicon()["hedging"], *oracle_lexicon()["denying"]}
    said = f" {' '.join(tokens)} "
    left_open = [phrase for phrase in oracle_lexicon()["open"] if f" {phrase} " in said]
    strange = [word for word in added if word not in safe]
    if left_open or strange:
        like_a_carrier = (frame & carrier).total() * 2 >= carrier.total()
        reason = f"does not plainly state the term: {' '.join(left_open + strange)}"
        return Statement(names, "unclear", reason) if like_a_carrier else None
    denials = sum(n for word, n in added.items() if word in oracle_lexicon()["denying"])
    denials += sum(f" {phrase} " in said for phrase in oracle_lexicon()["denying_phrases"])
    if denials > 1:
        return Statement(names, "unclear", "denies more than once")
    return Statement(names, "denies" if denials else "asserts", "carries the term")


@lru_cache(maxsize=64)
def _carrier_words(pool: Pool) -> tuple[Counter[str], ...]:
    return tuple(Counter(keys(carrier.replace("{term}", " "))) for carrier in pool.carriers)


def _judge_slot(words: Sequence[str], fact: Fact) -> Statement | None:
    """A carrying sentence that names no known term: what stands in the term's place?"""
    for carrier in fact.pool.carriers:
        before, after = (keys(part) for part in carrier.split("{term}"))
        end = len(words) - len(after)
        if tuple(words[: len(before)]) == before and tuple(words[end:]) == after and end > len(before):
            return _judge_unlisted(tuple(words[len(before) : end]), fact)
    return None


def _judge_unlisted(slot: tuple[str, ...], fact: Fact) -> Statement:
    said = " ".join(slot)
    for form in all_forms(fact.answer):
        change = None if quantity_at(slot, 0) else _single_change(keys(form), slot)  # amounts: see _amount_standing
        if change == "spelling":
            return Statement("right", "asserts", f"{said!r} is the answer with a slip of the pen")
        if change == "opposite":
            return Statement("wrong", "asserts", f"{said!r} turns a word of the answer into its opposite")
    known = {word for form in all_forms(fact.answer) for word in keys(form)}
    if fact.pool.kind == "organism" and any(
        word in oracle_lexicon()["organisms"] and word not in known for word in slot
    ):
        return Statement("wrong", "asserts", f"{said!r} is another organism")
    if any(
        _single_change(keys(form), slot) == "spelling"
        for term in fact.pool.terms
        if term != fact.answer
        for form in all_forms(term)
    ):
        return Statement("wrong", "asserts", f"{said!r} is a wrong term with a slip of the pen")
    return Statement("unlisted", "unclear", f"{said!r} is not in the fact table")


def _single_change(form: Sequence[str], slot: Sequence[str]) -> Literal["spelling", "opposite"] | None:
    """How `slot` differs from `form`, if in a single word: misspelled, or turned into something else for certain."""
    if len(form) != len(slot):
        return None
    differing = [(a, b) for a, b in zip(form, slot, strict=True) if a != b]
    if len(differing) != 1:
        return None
    a, b = differing[0]
    if as_number(a) is not None and as_number(b) is not None:
        return "opposite"
    if any(a in group and b in group for group in oracle_lexicon()["opposites"]) or _opposite_prefix(a, b):
        return "opposite"
    return "spelling" if min(len(a), len(b)) >= 7 and Levenshtein.distance(a, b) == 1 else None


def _opposite_prefix(a: str, b: str) -> bool:
    for one, other in oracle_lexicon()["opposite_prefixes"]:
        for first, second in ((one, other), (other, one)):
            rest = a[len(first) :]
            if a.startswith(first) and len(rest) >= 5 and b == second + rest:
                return True
    return False


def _singular(word: str) -> str:
    if word == "%":
        return "percent"
    if word.startswith((".", "-.")):
        return word.replace(".", "0.", 1)
    word = re.sub(r"['’]s$", "", word)
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith("uses"):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word
