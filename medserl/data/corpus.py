"""The sample corpus: notes built from the fact table, each with a wrong twin.

Invented patients, for developing software, not for clinical use. The same seed gives the same bytes.

Nobody shall solve it by counting words. So a split is built in *rounds*: in a round each fact gives one pair, and the
wrong terms are dealt out so that every form of a term stands in as many wrong twins as in right ones.

    train        facts not held out, all wordings but the last of each list
    validation   the same facts and wordings in combinations that train does not have
    test-seen    the same facts, told only in the last wording of each list, with openings and carriers kept back
    test-unseen  held-out facts, told in the manner of train
    untaught     the same, other notes, correct and without a twin: what play can teach where nobody made errors
    test-reworded  held-out facts in the manner of test-seen: in wordings that no other split has of them
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medserl.data.sample_names import FURTHER_TRAIN, LARGER_TEST, REWORDED_TEST, UNTAUGHT
from medserl.errors import DataError
from medserl.files import private_folder, write_private
from medserl.game.sentences import library_sentences
from medserl.game.text import split_sentences, split_words
from medserl.game.vcf import apply_vcf
from medserl.knowledge.facts import SLOTS, Fact, FactTable, load_facts
from medserl.knowledge.vignette import write_sentences

SAMPLE_SEED = 2026
ROUNDS = {"train": 5, "validation": 1, "test-seen": 1, "test-unseen": 2}
LARGER_TEST_SEED = 2027
LARGER_TEST_ROUNDS = {"test-seen": 3, "test-unseen": 5}
FURTHER_TRAIN_ROUNDS = 20
UNTAUGHT_SEED = 2028
UNTAUGHT_ROUNDS = {"untaught": 5, "test-reworded": 3}
_OF_HELD_OUT_FACTS = ("test-unseen", "untaught", "test-reworded")
_IN_WORDINGS_KEPT_BACK = ("test-seen", "test-reworded")
FILES = {split: f"medec_{split}_sample.jsonl" for split in ("train", "validation", "test")}
MIN_WORDS, MAX_WORDS = 40, 110
SYNONYM_SHARE = 4  # one form in four is a synonym, where a term has any
_TRIES, _DEALS = 200, 10  # notes to try with the same wordings, and how often to deal new ones
_FORBIDDEN = 1e6

SampleRow = dict[str, Any]


def build_corpus(seed: int = SAMPLE_SEED, table: FactTable | None = None) -> dict[str, list[SampleRow]]:
    """Rows of the train, validation and test files. Raises DataError where the fact table cannot be balanced."""
    rows = _build_splits(ROUNDS, seed, load_facts() if table is None else table)
    named = {
        "train": rows["train"],
        "validation": rows["validation"],
        "test": rows["test-seen"] + rows["test-unseen"],
    }
    for file, file_rows in named.items():
        _number(file_rows, f"sample-{file}")
    return named


def build_larger_test(seed: int = LARGER_TEST_SEED) -> list[SampleRow]:
    """1,001 test pairs, none of which is among the sample's: seen facts in the wordings kept back, and unseen facts."""
    rows = [row for split in _build_splits(LARGER_TEST_ROUNDS, seed, load_facts()).values() for row in split]
    _number(rows, "larger-test")
    return rows


def build_further_train(seed: int = SAMPLE_SEED) -> list[SampleRow]:
    """3,640 training pairs on the sample's seen facts, in the manner of its training notes: dealt after the sample, so
    in combinations of wordings that it does not have."""
    table = load_facts()
    builders = _builders(table, seed)
    for split, times in ROUNDS.items():
        _build_split(split, times, table, builders, random.Random(f"{seed}/{split}"))
    rows = _build_split("train", FURTHER_TRAIN_ROUNDS, table, builders, random.Random(f"{seed}/further-train"))
    _number(rows, "further-train")
    return rows


def build_untaught(seed: int = UNTAUGHT_SEED) -> tuple[list[SampleRow], list[SampleRow]]:
    """455 correct notes of the held-out facts, and 273 test pairs of them in other words; none is in another set."""
    splits = _build_splits(UNTAUGHT_ROUNDS, seed, load_facts())
    of_note = ("note_id", "correct_note", "fact_id", "split", "kind")
    _number(splits["untaught"], "untaught")
    _number(splits["test-reworded"], "reworded")
    return [{name: row[name] for name in of_note} for row in splits["untaught"]], splits["test-reworded"]


def build_untaught_pairs(seed: int = UNTAUGHT_SEED) -> list[SampleRow]:
    """The same 455 notes, each with its wrong twin."""
    rows = _build_splits(UNTAUGHT_ROUNDS, seed, load_facts())["untaught"]
    _number(rows, "untaught")
    return rows


def _builders(table: FactTable, seed: int) -> dict[str, FactWordings]:
    return {fact.fact_id: FactWordings(fact, random.Random(f"{seed}/{fact.fact_id}")) for fact in table.facts}


def _build_splits(rounds: Mapping[str, int], seed: int, table: FactTable) -> dict[str, list[SampleRow]]:
    builders = _builders(table, seed)
    return {
        split: _build_split(split, times, table, builders, random.Random(f"{seed}/{split}"))
        for split, times in rounds.items()
    }


def _number(rows: Sequence[SampleRow], prefix: str) -> None:
    for number, row in enumerate(rows, start=1):
        row["note_id"] = f"{prefix}-{number:04d}"


def write_corpus(directory: Path, seed: int = SAMPLE_SEED) -> list[Path]:
    """Write the three JSON Lines files into `directory` and return their paths.

    Raises:
        OutputError: they cannot be written there.
    """
    private_folder(directory)
    return [_write(directory / FILES[split], rows) for split, rows in build_corpus(seed).items()]


def write_larger_test(directory: Path) -> Path:
    """Write the larger test's file into `directory` and return its path. Raises OutputError where that cannot be."""
    private_folder(directory)
    return _write(directory / LARGER_TEST, build_larger_test())


def write_further_train(directory: Path) -> Path:
    """Write the further training pairs into `directory` and return their file's path. Raises OutputError likewise."""
    private_folder(directory)
    return _write(directory / FURTHER_TRAIN, build_further_train())


def write_untaught(directory: Path) -> tuple[Path, Path]:
    """Write the notes of untaught facts, and the test of these in other words. Raises OutputError likewise."""
    private_folder(directory)
    notes, pairs = build_untaught()
    return _write(directory / UNTAUGHT, notes), _write(directory / REWORDED_TEST, pairs)


def _write(path: Path, rows: Sequence[SampleRow]) -> Path:
    write_private(path, (json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


@dataclass
class FactWordings:
    """Deals out the wordings of one fact evenly, no combination twice."""

    fact: Fact
    rng: random.Random
    _decks: dict[str, list[str]] = field(default_factory=dict)
    _used: set[tuple[str, ...]] = field(default_factory=set)

    def findings(self, held_back: bool) -> dict[str, str]:
        """A wording for each slot. `held_back` gives the last wording of each list, else it is left out."""
        slots = {slot: getattr(self.fact, slot) for slot in SLOTS if getattr(self.fact, slot)}
        if held_back:
            return {slot: wordings[-1] for slot, wordings in slots.items()}
        for _ in range(_TRIES):
            drawn = {slot: self._deal(slot, wordings[:-1]) for slot, wordings in slots.items()}
            if tuple(drawn.values()) not in self._used:
                break
        self._used.add(tuple(drawn.values()))
        return drawn

    def carrier(self, held_back: bool) -> str:
        carriers = self.fact.pool.carriers
        return carriers[-1] if held_back else self._deal("carrier", carriers[:-1])

    def _deal(self, slot: str, wordings: Sequence[str]) -> str:
        deck = self._decks.setdefault(slot, [])
        if not deck:
            deck += self.rng.sample(wordings, len(wordings))
        return deck.pop()


def _build_split(
    split: str, rounds: int, table: FactTable, builders: Mapping[str, FactWordings], rng: random.Random
) -> list[SampleRow]:
    rows = []
    for pool in table.pools:
        facts = [fact for fact in table.of_pool(pool) if fact.heldout == (split in _OF_HELD_OUT_FACTS)]
        times: dict[tuple[str, str], int] = defaultdict(int)
        for _ in range(rounds):
            for fact, right, wrong in deal_forms(facts, times, rng):
                rows.append(_build_row(split, builders[fact.fact_id], right, wrong, rng))
    rng.shuffle(rows)
    return rows


def deal_forms(
    facts: Sequence[Fact], times: dict[tuple[str, str], int], rng: random.Random
) -> list[tuple[Fact, str, str]]:
    """One (fact, right form, wrong form) for each fact; the wrong forms are the right forms dealt out anew.

    `times` counts how often a fact has met each wrong term, so that repeats differ; it is brought up to date.
    """
    from scipy.optimize import linear_sum_assignment  # heavy

    right = _right_forms(facts, rng)
    costs = [[_cost(fact, right[i], form, times, rng) for form in right] for i, fact in enumerate(facts)]
    _, columns = linear_sum_assignment(costs)
    dealt = []
    for i, column in enumerate(columns):
        fact, wrong = facts[i], right[column]
        if costs[i][column] >= _FORBIDDEN:
            raise _unbalanced(fact)
        times[fact.fact_id, fact.pool.term_of(wrong).name] += 1
        dealt.append((fact, right[i], wrong))
    return dealt


def _right_forms(facts: Sequence[Fact], rng: random.Random) -> list[str]:
    """For each fact a form of its answer: mostly the name; in yes-or-no pools any form alike."""
    forms = []
    for fact in facts:
        answer = fact.answer
        if fact.pool.kind == "negation":
            forms.append(rng.choice(answer.forms))
        elif answer.synonyms and rng.randrange(SYNONYM_SHARE) == 0:
            forms.append(rng.choice(answer.synonyms))
        else:
            forms.append(answer.name)
    return forms


def _cost(fact: Fact, right: str, wrong: str, times: Mapping[tuple[str, str], int], rng: random.Random) -> float:
    """Cost of `wrong` for this fact: rarely met terms first, then forms of the same kind; the rest by chance."""
    noise = rng.random()
    term = fact.pool.term_of(wrong)
    if term not in fact.wrong_terms:
        return _FORBIDDEN
    unlike = (wrong == term.name) != (right == fact.answer.name)
    return 10 * times.get((fact.fact_id, term.name), 0) + 2 * unlike + noise


def _unbalanced(fact: Fact) -> DataError:
    return DataError(
        f"fact {fact.fact_id}: its wrong terms cannot be balanced within pool {fact.pool.name}; list more of them"
    )


def _build_row(split: str, wordings: FactWordings, right: str, wrong: str, rng: random.Random) -> SampleRow:
    """One pair. Redrawn until both twins fit (see `_fits`), which is nearly always the first time."""
    held_back = split in _IN_WORDINGS_KEPT_BACK
    for _ in range(_DEALS):
        carrier = wordings.carrier(held_back)
        findings = wordings.findings(held_back)
        stated, misstated = carrier.replace("{term}", right), carrier.replace("{term}", wrong)
        for _ in range(_TRIES):
            told = write_sentences(wordings.fact, findings, carrier, rng, held_back)
            correct, incorrect = (" ".join(told).replace("{term}", form) for form in (right, wrong))
            if _fits(correct, stated, incorrect, misstated):
                return _row(split, wordings.fact, correct, incorrect, stated, misstated)
    raise DataError(f"fact {wordings.fact.fact_id}: no note fits the limits with the carrier {carrier!r}; shorten it")


def _fits(correct: str, stated: str, incorrect: str, misstated: str) -> bool:
    """Whether the length is right, the twin passes the VCF, and the carrying sentence is one to a sentence splitter.

    The splitter is the library as it comes: to it a unit of one letter ("1 g.", "6.0 mEq/L.") reads as an abbreviation
    inside a note, so such a sentence has to end it.
    """
    return (
        MIN_WORDS <= len(split_words(correct).keys) <= MAX_WORDS
        and apply_vcf(correct, incorrect).passed
        and stated in library_sentences(correct)
        and misstated in library_sentences(incorrect)
    )


def _sentences(note: str) -> list[str]:
    return [note[span.start : span.end] for span in split_sentences(note)]


def _row(split: str, fact: Fact, correct: str, incorrect: str, right: str, wrong: str) -> SampleRow:
    sentences = _sentences(incorrect)
    return {
        "note_id": "",
        "correct_note": correct,
        "incorrect_note": incorrect,
        "error_type": fact.pool.error_type,
        "error_sentence": wrong,
        "corrected_sentence": right,
        "error_sentence_id": sentences.index(wrong),
        "sentences": sentences,
        "fact_id": fact.fact_id,
        "split": split,
        "kind": fact.pool.kind,
    }
