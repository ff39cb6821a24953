"""The neutral table and the benign edits made from it."""

from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.data.corpus import FILES
from medserl.game.text import split_sentences, split_words
from medserl.game.vcf import apply_vcf
from medserl.knowledge.facts import load_facts
from medserl.knowledge.neutral import apply_neutral_edit, load_substitutions, n_pairs, neutral_edits
from tests.places import ROOT

# Words that may not be what a pair changes: negation, sides, times.
TOUCHY = frozenset(
    {
        *("no", "not", "never", "without", "none", "denies", "left", "right", "bilateral", "both"),
        *("minute", "minutes", "hour", "hours", "day", "days", "week", "weeks", "month", "months", "year", "years"),
        *("ago", "before", "after", "during", "daily", "weekly", "acute", "chronic"),
    }
)
PULSE = "A man is seen in the clinic today. His pulse is 80/min and he is quite well."


@pytest.fixture(scope="module")
def notes() -> list[str]:
    path = ROOT / "data" / FILES["train"]
    return [json.loads(line)["correct_note"] for line in path.read_text().splitlines()][:300]


def test_there_are_at_least_150_pairs() -> None:
    assert n_pairs() >= 150


def test_no_pair_changes_negation_a_number_a_side_or_a_time() -> None:
    for substitution in load_substitutions():
        old, new = (set(split_words(text).keys) for text in (substitution.old, substitution.new))
        changed = old ^ new
        assert not changed & TOUCHY, substitution
        assert not any(re.search(r"\d", word) for word in changed), substitution


def test_no_pair_changes_a_drug_or_an_organism_of_the_fact_table() -> None:
    kinds = {"drug", "organism", "dose"}
    terms = [term for pool in load_facts().pools if pool.kind in kinds for term in pool.terms]
    named = {word for term in terms for form in term.forms for word in split_words(form).keys if len(word) > 3}
    for substitution in load_substitutions():
        changed = set(split_words(substitution.old).keys) ^ set(split_words(substitution.new).keys)
        assert not changed & named, substitution


def test_a_known_note_is_edited_as_the_table_says() -> None:
    note = (
        "A man comes in. ECG shows no change, and his ECG was normal before. He feels well today, with no pain at all."
    )
    edited = {edit.modified: (edit.sentence_id, edit.sentence) for edit in neutral_edits(note)}
    assert edited[note.replace("ECG shows", "Electrocardiogram shows")] == (
        1,
        "Electrocardiogram shows no change, and his ECG was normal before.",
    )
    assert note.replace("his ECG", "his electrocardiogram") in edited
    assert note.replace("shows", "reveals") in edited


def test_context_keeps_a_pair_from_where_it_does_not_fit() -> None:
    def made(note: str) -> set[str]:
        return {edit.modified for edit in neutral_edits(note)}

    assert PULSE.replace("pulse is", "heart rate is") in made(PULSE)
    assert not any("heart rate" in text for text in made(PULSE.replace("80/min", "weak")))
    assert not any(
        "raised" in text for text in made("There is an elevated and painful lesion on the back of the hand.")
    )


@pytest.mark.parametrize(
    ("note", "never"),
    [
        ("He has a suddenly cold leg, and the foot is pale.", "a abruptly"),
        ("The artery ends abruptly on CT angiography of the leg.", "scan angiography"),
        ("A mass is seen on CT scan of the chest today.", "scan scan"),
        ("His vitals signs are stable, and he feels well.", "signs signs"),
    ],
)
def test_context_keeps_an_edit_grammatical(note: str, never: str) -> None:
    assert not any(never in edit.modified for edit in neutral_edits(note))


def test_every_edit_passes_the_vcf_and_names_its_sentence(notes: list[str]) -> None:
    for note in notes[::5]:
        before = split_sentences(note)
        for edit in neutral_edits(note):
            assert apply_vcf(note, edit.modified).passed
            after = split_sentences(edit.modified)
            assert len(after) == len(before)
            for i, (old, new) in enumerate(zip(before, after, strict=True)):
                same = note[old.start : old.end] == edit.modified[new.start : new.end]
                assert same == (i != edit.sentence_id)
            span = after[edit.sentence_id]
            assert edit.modified[span.start : span.end] == edit.sentence


def test_nearly_every_sample_note_offers_an_edit(notes: list[str]) -> None:
    assert sum(bool(neutral_edits(note)) for note in notes) >= 0.95 * len(notes)


def test_nearly_every_medec_note_offers_an_edit() -> None:
    folder = Path(os.environ.get("MEDEC_DIR", ROOT.parent / "shared" / "medec"))
    path = folder / "medec_ms_train_pairs.jsonl"
    if not path.is_file():
        pytest.skip(f"MEDEC is not there: {path.name} not found under $MEDEC_DIR or ../shared/medec")
    lines = path.read_text(encoding="utf-8").splitlines()[:300]
    offered = [bool(neutral_edits(json.loads(line)["correct_note"])) for line in lines]
    assert sum(offered) >= 0.95 * len(offered)


def test_the_same_seed_makes_the_same_edit(notes: list[str]) -> None:
    made = [apply_neutral_edit(notes[0], random.Random(seed)) for seed in (1, 1, 2, 3, 4)]
    assert made[0] == made[1]
    assert len(set(made)) > 1


@given(st.text(max_size=200))
def test_any_text_is_taken(text: str) -> None:
    result = apply_neutral_edit(text, random.Random(0))
    assert result is None or apply_vcf(text, result[0]).passed
