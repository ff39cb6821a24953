"""The sample corpus: rebuilt to the byte, balanced, fit for the VCF, and with the splits that it claims."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from medserl.data.corpus import (
    FILES,
    MAX_WORDS,
    MIN_WORDS,
    SAMPLE_SEED,
    build_corpus,
    build_larger_test,
    build_untaught,
    write_corpus,
    write_further_train,
    write_larger_test,
    write_untaught,
)
from medserl.data.sample_names import FURTHER_TRAIN, is_sample
from medserl.data.sources import load
from medserl.game.note import ERROR_TYPES
from medserl.game.text import split_sentences, split_words
from medserl.game.vcf import apply_vcf
from medserl.knowledge.facts import SLOTS, Fact, load_facts
from medserl.knowledge.vignette import vignette_data
from tests.places import ROOT

DATA = ROOT / "data"
TABLE = load_facts()
Row = dict[str, Any]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """All rows of the committed files."""
    return [json.loads(line) for name in FILES.values() for line in (DATA / name).read_text().splitlines()]


@pytest.fixture(scope="module")
def by_split(rows: list[Row]) -> dict[str, list[Row]]:
    split = defaultdict(list)
    for row in rows:
        split[row["split"]].append(row)
    return split


def test_the_committed_files_are_rebuilt_to_the_byte(tmp_path: Path) -> None:
    for path in write_corpus(tmp_path, SAMPLE_SEED):
        assert path.read_bytes() == (DATA / path.name).read_bytes(), f"{path.name}: run `medserl data sample`"


def test_another_seed_gives_other_notes() -> None:
    first, second = (build_corpus(seed)["validation"] for seed in (1, 2))
    assert [row["correct_note"] for row in first] != [row["correct_note"] for row in second]


def test_the_larger_test_holds_a_thousand_other_pairs(tmp_path: Path, rows: list[Row]) -> None:
    larger = build_larger_test()
    splits = {name: [row for row in larger if row["split"] == name] for name in ("test-seen", "test-unseen")}
    assert [len(each) for each in splits.values()] == [546, 455]
    assert len({row["note_id"] for row in larger}) == len({row["correct_note"] for row in larger}) == 1001
    known = {text for row in rows for text in (row["correct_note"], row["incorrect_note"])}
    assert not known & {text for row in larger for text in (row["correct_note"], row["incorrect_note"])}
    for split, mine in splits.items():
        facts = {row["fact_id"] for row in rows if row["split"] == split}
        assert Counter(row["fact_id"] for row in mine) == dict.fromkeys(facts, 3 if split == "test-seen" else 5)
    assert [json.loads(line) for line in write_larger_test(tmp_path).read_text().splitlines()] == larger


def test_further_training_pairs_are_of_the_seen_facts_and_in_no_other_set(tmp_path: Path, rows: list[Row]) -> None:
    further = [json.loads(line) for line in write_further_train(tmp_path).read_text().splitlines()]
    seen = {row["fact_id"] for row in rows if row["split"] == "train"}
    assert Counter(row["fact_id"] for row in further) == dict.fromkeys(seen, 20)
    others = {text for row in rows + build_larger_test() for text in (row["correct_note"], row["incorrect_note"])}
    assert not others & {text for row in further for text in (row["correct_note"], row["incorrect_note"])}
    assert is_sample(str(tmp_path / FURTHER_TRAIN))  # whose invented patients carry the badge


def test_untaught_notes_are_correct_ones_of_the_held_out_facts_and_in_no_other_set(
    tmp_path: Path, rows: list[Row]
) -> None:
    paths = write_untaught(tmp_path)
    notes, tests = ([json.loads(line) for line in path.read_text().splitlines()] for path in paths)
    held_out = {row["fact_id"] for row in rows if row["split"] == "test-unseen"}
    assert len(held_out) == 91
    assert Counter(row["fact_id"] for row in notes) == dict.fromkeys(held_out, 5)
    assert Counter(row["fact_id"] for row in tests) == dict.fromkeys(held_out, 3)
    loaded = load(str(paths[0]), "train")
    assert [(note.correct_note, note.is_pair, note.labelled) for note in loaded.notes] == [
        (row["correct_note"], False, True) for row in notes
    ]
    others = {text for row in rows + build_larger_test() for text in (row["correct_note"], row["incorrect_note"])}
    mine = {row["correct_note"] for row in notes}
    assert len(mine) == 455 and not mine & others
    again = {text for row in tests for text in (row["correct_note"], row["incorrect_note"])}
    assert len(again) == 546 and not again & (mine | others)
    assert all(is_sample(str(path)) for path in paths)


def test_the_reworded_test_tells_no_finding_as_the_untaught_notes_or_another_test_does() -> None:
    notes, tests = build_untaught()
    told, reworded = (
        {
            fact.fact_id: " ".join(row["correct_note"] for row in some if row["fact_id"] == fact.fact_id)
            for fact in TABLE.facts
        }
        for some in (notes + build_larger_test(), tests)
    )
    kept_back = [
        (fact.fact_id, getattr(fact, slot)[-1])
        for fact in TABLE.facts
        for slot in ("history", "exam", "tests")
        if fact.heldout and getattr(fact, slot) and "{" not in getattr(fact, slot)[-1]
    ]
    assert len(kept_back) > 91
    assert not [(fact, wording) for fact, wording in kept_back if wording in told[fact]]
    assert sum(wording in reworded[fact] for fact, wording in kept_back) > len(kept_back) / 2


def test_sizes(by_split: dict[str, list[Row]]) -> None:
    assert len(by_split["train"]) >= 512
    assert len(by_split["validation"]) >= 128
    assert len(by_split["test-seen"]) == len(by_split["test-unseen"]) >= 128
    assert sum((DATA / name).stat().st_size for name in FILES.values()) < 3_000_000


def test_no_note_occurs_twice_and_ids_are_unique(rows: list[Row]) -> None:
    assert len({row["note_id"] for row in rows}) == len(rows)
    assert len({row["correct_note"] for row in rows}) == len(rows)


def test_fields_agree_with_each_other(rows: list[Row]) -> None:
    for row in rows:
        fact = TABLE.fact(row["fact_id"])
        incorrect = row["incorrect_note"]
        spans = split_sentences(incorrect)
        assert row["sentences"] == [incorrect[span.start : span.end] for span in spans]
        assert row["sentences"][row["error_sentence_id"]] == row["error_sentence"]
        assert row["error_sentence_id"] > 0, "the opening never carries the fact"
        assert incorrect.replace(row["error_sentence"], row["corrected_sentence"]) == row["correct_note"]
        assert (row["error_type"], row["kind"]) == (fact.pool.error_type, fact.pool.kind)
        assert row["error_type"] in ERROR_TYPES


def test_lengths_and_no_placeholder_is_left(rows: list[Row]) -> None:
    for row in rows:
        assert MIN_WORDS <= len(split_words(row["correct_note"]).keys) <= MAX_WORDS, row["note_id"]
        assert not re.search(r"[{}]|  ", row["correct_note"] + row["incorrect_note"]), row["note_id"]


def test_at_least_99_percent_of_the_pairs_pass_the_vcf_both_ways(rows: list[Row]) -> None:
    results = [apply_vcf(row["correct_note"], row["incorrect_note"]) for row in rows]
    back = [apply_vcf(row["incorrect_note"], row["correct_note"]) for row in rows]
    assert sum(result.passed for result in results) >= 0.99 * len(rows)
    assert sum(result.passed for result in back) >= 0.99 * len(rows)
    assert {result.word_edits for result in results} <= {1, 2, 3, 4, 5, 6}


def _form(row: Row, sentence: str, fact: Fact) -> str:
    """The form of a term that stands in a carrying sentence."""
    for carrier in fact.pool.carriers:
        match = re.fullmatch(re.escape(carrier).replace(re.escape("{term}"), "(.+)"), sentence)
        if match and any(match[1] in term.forms for term in fact.pool.terms):
            return match[1]
    raise AssertionError(f"{row['note_id']}: {sentence!r} fits no carrier of {fact.pool.name}")


def test_every_form_of_a_term_is_as_often_wrong_as_right_in_each_split_and_pool(
    by_split: dict[str, list[Row]],
) -> None:
    for split, rows in by_split.items():
        right, wrong = defaultdict(Counter), defaultdict(Counter)
        for row in rows:
            fact = TABLE.fact(row["fact_id"])
            right[fact.pool.name][_form(row, row["corrected_sentence"], fact)] += 1
            wrong[fact.pool.name][_form(row, row["error_sentence"], fact)] += 1
        assert right == wrong, split


def test_right_and_wrong_forms_stand_for_the_right_and_a_listed_wrong_term(rows: list[Row]) -> None:
    for row in rows:
        fact = TABLE.fact(row["fact_id"])
        assert _form(row, row["corrected_sentence"], fact) in fact.answer.forms
        assert fact.pool.term_of(_form(row, row["error_sentence"], fact)) in fact.wrong_terms


def test_repeats_of_a_fact_vary_its_wrong_term(by_split: dict[str, list[Row]]) -> None:
    met = defaultdict(set)
    for row in by_split["train"]:
        fact = TABLE.fact(row["fact_id"])
        met[fact.fact_id].add(fact.pool.term_of(_form(row, row["error_sentence"], fact)).name)
    for fact_id, terms in met.items():
        assert len(terms) >= min(2, len(TABLE.fact(fact_id).wrong_terms)), fact_id


def test_facts_are_seen_where_the_split_says_so(by_split: dict[str, list[Row]]) -> None:
    facts = {split: {row["fact_id"] for row in rows} for split, rows in by_split.items()}
    heldout = {fact.fact_id for fact in TABLE.facts if fact.heldout}
    assert facts["test-unseen"] == heldout
    assert facts["train"] == facts["validation"] == facts["test-seen"]
    assert not facts["train"] & heldout


def _last_wordings(fact: Fact) -> list[str]:
    return [getattr(fact, slot)[-1] for slot in SLOTS if getattr(fact, slot)]


def _told(wording: str, note: str) -> bool:
    """Whether the note tells this wording, whoever the patient is."""
    parts = [re.escape(part) for part in re.split(r"\{\w+\}", wording.rstrip("."))]
    pattern = r"(?:\w+|The patient)".join(parts)
    return re.search(pattern, note, re.IGNORECASE) is not None


def test_the_last_wordings_are_in_test_seen_alone(by_split: dict[str, list[Row]]) -> None:
    for split in ("train", "validation", "test-seen"):
        for row in by_split[split]:
            fact = TABLE.fact(row["fact_id"])
            told = [_told(wording, row["correct_note"]) for wording in _last_wordings(fact)]
            assert all(told) if split == "test-seen" else not any(told), row["note_id"]


def test_openings_vitals_and_carriers_of_test_seen_are_kept_back(by_split: dict[str, list[Row]]) -> None:
    def opening_kept_back(note: str) -> bool:
        for templates in vignette_data()["openings"].values():
            pattern = re.sub(r"\\\{\w+\\\}", "[^.]+?", re.escape(templates[-1]))
            if re.match(pattern, note):
                return True
        return False

    for split, rows in by_split.items():
        for row in rows:
            pool = TABLE.fact(row["fact_id"]).pool
            before, after = pool.carriers[-1].split("{term}")
            stated = row["corrected_sentence"]
            kept_back = stated.startswith(before) and stated.endswith(after)
            assert kept_back == (split == "test-seen"), row["note_id"]
            if split == "test-seen":
                assert opening_kept_back(row["correct_note"]), row["note_id"]


def test_vital_signs_fit_the_case(rows: list[Row]) -> None:
    """Nobody whose breathing is assisted has normal vital signs, and a supraventricular tachycardia is fast."""
    assisted = [row["correct_note"] for row in rows if "bag-mask" in row["correct_note"]]
    assert assisted
    assert not any(re.search("igns are normal|normal limits|no abnormalities", note) for note in assisted)
    for row in rows:
        if TABLE.fact(row["fact_id"]).answer.name == "vagal maneuvers":
            pulse = re.search(r"pulse \D*(\d+)/min", row["correct_note"], re.IGNORECASE)
            assert pulse and int(pulse[1]) >= 150, row["note_id"]


def test_validation_tells_facts_in_combinations_that_train_does_not_have(by_split: dict[str, list[Row]]) -> None:
    def combination(row: Row) -> tuple[str, ...]:
        fact = TABLE.fact(row["fact_id"])
        return tuple(wording for _, wording in fact.wordings() if _told(wording, row["correct_note"]))

    train = {combination(row) for row in by_split["train"]}
    repeated = [row["note_id"] for row in by_split["validation"] if combination(row) in train]
    assert not repeated


def test_nothing_but_the_carrying_sentence_names_a_term_of_the_pool(rows: list[Row]) -> None:
    for row in rows:
        rest = row["correct_note"].replace(row["corrected_sentence"], "")
        for term in TABLE.fact(row["fact_id"]).pool.terms:
            for form in term.forms:
                assert not re.search(rf"(?<!\w){re.escape(form)}(?!\w)", rest, re.IGNORECASE), row["note_id"]


def test_the_patient_fits_the_fact(rows: list[Row]) -> None:
    for row in rows:
        fact, note = TABLE.fact(row["fact_id"]), row["correct_note"]
        age = int(re.search(r"(\d+)-year-old (\w+)", note)[1])
        assert fact.ages[0] <= age <= fact.ages[1], row["note_id"]
        person = re.search(r"-year-old (\w+)", note)[1]
        female = person in ("woman", "girl", "daughter")
        assert (person in ("boy", "girl", "son", "daughter")) == (age < 18), row["note_id"]
        assert fact.sex == "any" or (fact.sex == "female") == female, row["note_id"]
        wrong = (r"\b(he|him|his)\b(?! father)" if female else r"\b(she|her)\b") if person != "daughter" else r"\bhe\b"
        assert not re.search(wrong, note, re.IGNORECASE), row["note_id"]
        assert re.search(r"\b(an) (8|11-|18-)|\ba (?!8|11-|18-)\d|This \d|his \d", note, re.IGNORECASE), row["note_id"]


def test_the_carrying_sentence_stands_anywhere_but_late_where_it_looks_back(rows: list[Row]) -> None:
    """As in MEDEC, about one in five comes before the last two sentences."""
    after = [len(row["sentences"]) - 1 - row["error_sentence_id"] for row in rows]
    assert 0.15 < sum(n > 1 for n in after) / len(after) < 0.3
    assert min(row["error_sentence_id"] for row in rows) == 1, "right after the opening, but never before it"
    looks_back = vignette_data()["rules"]["looks_back"]
    for row, n in zip(rows, after, strict=True):
        carrier = carrier_of(row["corrected_sentence"], TABLE.fact(row["fact_id"]).pool.carriers)
        assert n <= 1 or not re.search(looks_back, carrier)


def carrier_of(sentence: str, carriers: Sequence[str]) -> str:
    """The wording that a carrying sentence was made from."""
    matches = [c for c in carriers if re.fullmatch(".+".join(map(re.escape, c.split("{term}"))), sentence)]
    return max(matches, key=len)


@pytest.mark.parametrize("source", ["sample", str(DATA / FILES["validation"])])
def test_whoever_reads_the_sample_is_told_that_its_patients_are_invented(
    source: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        load(source, "validation")
    assert "invented patients, for developing software, not for clinical use" in caplog.text
