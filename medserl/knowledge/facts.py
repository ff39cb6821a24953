"""The fact table: which term a set of findings points to, and which terms are wrong for it.

The table is written by hand, one TOML file per error type in the folder `facts`. The patients in it are invented:
for developing software, not for clinical use. A *pool* is a few terms of one kind that share their carrying
sentences; a *fact* is one clinical situation that settles which term of its pool is right. Loading checks every rule
that a program can check, so that nobody builds notes from a broken table.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from medserl.errors import DataError
from medserl.game.note import ERROR_TYPES

KINDS = (
    *("diagnosis", "organism", "drug", "dose", "number"),
    *("negation", "laterality", "time", "procedure", "therapy"),
)
VITALS = (
    *("normal", "febrile", "tachycardic", "hypotensive", "hypertensive"),
    *("hypoxic", "febrile-hypoxic", "septic", "bradycardic", "racing", "breathing-affected"),
)
SLOTS = ("presents", "history", "exam", "tests")
PRONOUNS = frozenset({"Sub", "sub", "poss", "Poss", "obj"})
MIN_FACTS_PER_FILE = 48
MAX_NOTE_WORDINGS = 72  # words: the longest wording of each slot together

_FILES = {error_type: f"{error_type}.toml" for error_type in ERROR_TYPES} | {"causalOrganism": "organism.toml"}


@dataclass(frozen=True)
class Term:
    """One possible answer of a pool. `synonyms` mean exactly the same."""

    name: str
    synonyms: tuple[str, ...]

    @property
    def forms(self) -> tuple[str, ...]:
        return (self.name, *self.synonyms)


@dataclass(frozen=True)
class Pool:
    """Terms of one kind; each of the `carriers` is a sentence with one `{term}`, and fits every term."""

    name: str
    kind: str
    error_type: str
    carriers: tuple[str, ...]
    terms: tuple[Term, ...]

    def term_of(self, form: str) -> Term:
        """The term that has this name or synonym, whatever its case."""
        for term in self.terms:
            if form.casefold() in (known.casefold() for known in term.forms):
                return term
        raise DataError(f"pool {self.name}: {form!r} is no term of it; see its [[pool.terms]]")


@dataclass(frozen=True)
class Fact:
    """One situation and its answer. Each of the four slots lists wordings of the same finding; `tests` may be empty.

    `ages` are years, both ends included, between which the answer holds; `vitals` says which vital signs fit.
    """

    fact_id: str
    pool: Pool
    answer: Term
    wrong: tuple[str, ...]
    heldout: bool
    ages: tuple[int, int]
    sex: str
    vitals: str
    presents: tuple[str, ...]
    history: tuple[str, ...]
    exam: tuple[str, ...]
    tests: tuple[str, ...]
    why: str
    source: str

    @property
    def wrong_terms(self) -> tuple[Term, ...]:
        """The terms that are wrong here, each once, in the pool's order."""
        listed = {self.pool.term_of(form).name for form in self.wrong}
        return tuple(term for term in self.pool.terms if term.name in listed)

    def wordings(self) -> Iterator[tuple[str, str]]:
        """Every (slot, wording) of the findings."""
        for slot in SLOTS:
            for wording in getattr(self, slot):
                yield slot, wording


@dataclass(frozen=True)
class FactTable:
    """All facts, in the order of the files."""

    facts: tuple[Fact, ...]

    @property
    def pools(self) -> tuple[Pool, ...]:
        return tuple(dict.fromkeys(fact.pool for fact in self.facts))

    def of_pool(self, pool: Pool) -> tuple[Fact, ...]:
        return tuple(fact for fact in self.facts if fact.pool == pool)

    def fact(self, fact_id: str) -> Fact:
        """The fact of this id. Raises DataError where there is none."""
        for fact in self.facts:
            if fact.fact_id == fact_id:
                return fact
        raise DataError(f"fact {fact_id!r} is not in the fact table (medserl/knowledge/facts/*.toml)")


@lru_cache(maxsize=1)
def load_facts() -> FactTable:
    """The fact table that comes with the package. Raises DataError that lists what breaks a rule, and where."""
    facts: list[Fact] = []
    for error_type, name in _FILES.items():
        text = files("medserl.knowledge").joinpath("facts", name).read_text(encoding="utf-8")
        facts += parse_facts(text, error_type, name)
    table = FactTable(tuple(facts))
    repeated = [fact_id for fact_id, n in Counter(fact.fact_id for fact in facts).items() if n > 1]
    if repeated:
        raise DataError(f"fact ids used more than once: {', '.join(repeated)}; give each fact its own id")
    return table


def parse_facts(text: str, error_type: str, where: str, min_facts: int = MIN_FACTS_PER_FILE) -> list[Fact]:
    """Facts of one file's text. `where` is the file's name, for messages. Raises DataError naming every broken rule."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{where}: not valid TOML: {error}") from None
    facts: list[Fact] = []
    problems: list[str] = []
    for raw in data.get("pool", []):
        pool, pool_facts, pool_problems = _read_pool(raw, error_type)
        problems += pool_problems
        if pool is not None:
            facts += pool_facts
            if not pool_problems:
                problems += _answer_counts(pool, pool_facts)
    if not problems and len(facts) < min_facts:
        problems.append(f"{len(facts)} facts where at least {min_facts} are needed")
    if problems:
        raise DataError(f"{where}: " + "; ".join(problems))
    return facts


def _read_pool(raw: Mapping[str, Any], error_type: str) -> tuple[Pool | None, list[Fact], list[str]]:
    name = str(raw.get("name", "a pool without a name"))
    missing = {"name", "kind", "carriers", "terms", "facts"} ^ set(raw)
    if missing:
        return None, [], [f"{name}: missing or unknown keys {sorted(missing)}"]
    terms = tuple(Term(term["name"], tuple(term["synonyms"])) for term in raw["terms"])
    pool = Pool(name, raw["kind"], error_type, tuple(raw["carriers"]), terms)
    problems = _pool_problems(pool)
    facts = []
    for raw_fact in raw["facts"]:
        fact, fact_problems = _read_fact(raw_fact, pool)
        problems += fact_problems
        if fact is not None:
            facts.append(fact)
    return pool, facts, problems


def _pool_problems(pool: Pool) -> list[str]:
    problems = []
    if pool.kind not in KINDS:
        problems.append(f"kind {pool.kind!r} is none of {', '.join(KINDS)}")
    if len(set(pool.carriers)) < 5:
        problems.append("fewer than 5 carriers")
    for carrier in pool.carriers:
        if carrier.count("{term}") != 1 or re.search(r"\b[Aa]n? \{term\}", carrier) or not carrier.endswith("."):
            problems.append(f"carrier {carrier!r} needs one {{term}}, no article before it, and a full stop")
    forms = Counter(form.casefold() for term in pool.terms for form in term.forms)
    problems += [f"term form {form!r} stands for two terms" for form, n in forms.items() if n > 1]
    problems += [f"term {term.name!r} has more than 5 words" for term in pool.terms if len(term.name.split()) > 5]
    return [f"{pool.name}: {problem}" for problem in problems]


def _read_fact(raw: Mapping[str, Any], pool: Pool) -> tuple[Fact | None, list[str]]:
    fact_id = str(raw.get("id", f"a fact without an id in {pool.name}"))
    needed = {"id", "answer", "wrong", "heldout", "ages", "sex", "vitals", *SLOTS, "why", "source"}
    if needed ^ set(raw):
        return None, [f"{fact_id}: missing or unknown keys {sorted(needed ^ set(raw))}"]
    try:
        answer = pool.term_of(raw["answer"])
        fact = Fact(
            fact_id=fact_id,
            pool=pool,
            answer=answer,
            wrong=tuple(raw["wrong"]),
            heldout=raw["heldout"],
            ages=(raw["ages"][0], raw["ages"][1]),
            sex=raw["sex"],
            vitals=raw["vitals"],
            **{slot: tuple(raw[slot]) for slot in SLOTS},
            why=raw["why"],
            source=raw["source"],
        )
        wrong_terms = fact.wrong_terms
    except DataError as error:
        return None, [f"{fact_id}: {error}"]
    problems = _wording_problems(fact)
    if answer in wrong_terms:
        problems.append("its answer is also listed as wrong")
    if len(set(fact.wrong)) < 3:
        problems.append("fewer than 3 wrong forms")
    if fact.sex not in ("any", "female", "male") or fact.vitals not in VITALS:
        problems.append(f"unknown sex {fact.sex!r} or vitals {fact.vitals!r}")
    if not 2 <= fact.ages[0] <= fact.ages[1] <= 95:
        problems.append(f"ages {list(fact.ages)} do not lie in order between 2 and 95")
    return fact, [f"{fact_id}: {problem}" for problem in problems]


def _wording_problems(fact: Fact) -> list[str]:
    problems = []
    slots = {slot: getattr(fact, slot) for slot in SLOTS}
    for slot, wordings in slots.items():
        if len(set(wordings)) < 4 and not (slot == "tests" and not wordings):
            problems.append(f"{slot} has {len(set(wordings))} wordings where 4 are needed")
    longest = sum(max((len(w.split()) for w in wordings), default=0) for wordings in slots.values())
    if longest > MAX_NOTE_WORDINGS:
        problems.append(f"the longest wordings add up to {longest} words; {MAX_NOTE_WORDINGS} are allowed")
    for slot, wording in fact.wordings():
        if not wording.isascii():
            problems.append(f"not ASCII: {wording!r}")
        if set(re.findall(r"\{(\w*)\}", wording)) - PRONOUNS or wording.count("{") != wording.count("}"):
            problems.append(f"unknown braces: {wording!r}")
        if slot == "presents" and (wording.endswith(".") or not _starts_lower(wording)):
            problems.append(f"presents is no noun phrase: {wording!r}")
        if slot != "presents" and not wording.endswith("."):
            problems.append(f"no full stop: {wording!r}")
        for term in fact.pool.terms:
            for form in term.forms:
                if re.search(rf"(?<!\w){re.escape(form)}(?!\w)", wording, re.IGNORECASE):
                    problems.append(f"{slot} gives away {form!r}: {wording!r}")
    return problems


def _starts_lower(phrase: str) -> bool:
    return not phrase[0].isupper() or phrase.split()[0].isupper()


def _answer_counts(pool: Pool, facts: list[Fact]) -> list[str]:
    """Every term answers as many facts as any other, one in three of them held out, or terms would give notes away."""
    problems = []
    right = Counter(fact.answer.name for fact in facts)
    held = Counter(fact.answer.name for fact in facts if fact.heldout)
    for term in pool.terms:
        n = right[term.name]
        if n not in (3, 6) or held[term.name] * 3 != n:
            held_out = f"{held[term.name]} of them held out"
            problems.append(f"{pool.name}: {term.name!r} answers {n} facts, {held_out}; it has to be 3 or 6, a third")
    return problems
