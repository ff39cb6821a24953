"""The truth oracle against edits written by hand, against the corpus, and against anything a model may write."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.data.corpus import FILES
from medserl.knowledge.facts import load_facts
from medserl.knowledge.neutral import neutral_edits
from medserl.knowledge.oracle import check, check_edit
from medserl.knowledge.quantities import quantity_at, with_digits
from tests.places import ROOT

TABLE = load_facts()
EDITS, FRESH_EDITS = (
    [json.loads(line) for line in (ROOT / "tests" / "data" / name).read_text().splitlines()]
    for name in ("truth_edits.jsonl", "truth_edits_fresh.jsonl")
)
DOSE = TABLE.fact("pharmacotherapy-010")
ORGANISM = TABLE.fact("organism-001")


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for name in FILES.values() for line in (ROOT / "data" / name).read_text().splitlines()]


def test_the_file_of_edits_is_what_it_should_be() -> None:
    assert len(EDITS) >= 300
    assert len({(edit["original"], edit["modified"]) for edit in EDITS}) == len(EDITS)
    assert all(edit["why"] and edit["expected"] in ("true", "false", "unknown") for edit in EDITS)
    kinds = {TABLE.fact(edit["fact_id"]).pool.name for edit in EDITS}
    assert kinds == {pool.name for pool in TABLE.pools}


def test_the_oracle_is_right_on_95_percent_of_what_it_decides_and_decides_85_percent() -> None:
    answers = [
        (edit["expected"], check_edit(edit["original"], edit["modified"], TABLE.fact(edit["fact_id"])))
        for edit in EDITS
    ]
    decided = [(expected, truth.still_true) for expected, truth in answers if truth.still_true != "unknown"]
    right = [expected == verdict for expected, verdict in decided]
    assert sum(right) >= 0.95 * len(decided), Counter(decided)
    assert len(decided) >= 0.85 * len(answers)


def test_the_oracle_is_right_on_95_percent_of_what_it_decides_of_edits_that_mended_no_rule() -> None:
    """How much it decides of them is reported in docs/corpus.md and is no goal: that would be tuning again."""
    answers = [
        (edit["expected"], check_edit(edit["original"], edit["modified"], TABLE.fact(edit["fact_id"])).still_true)
        for edit in FRESH_EDITS
    ]
    decided = [expected == verdict for expected, verdict in answers if verdict != "unknown"]
    assert len(decided) >= 0.5 * len(answers)
    assert sum(decided) >= 0.95 * len(decided)


def test_every_right_note_is_true_and_every_wrong_twin_false(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        fact = TABLE.fact(row["fact_id"])
        assert check(row["correct_note"], fact).still_true == "true", row["note_id"]
        assert check(row["incorrect_note"], fact).still_true == "false", row["note_id"]


def test_twins_as_edits(rows: list[dict[str, Any]]) -> None:
    for row in rows[::20]:
        fact = TABLE.fact(row["fact_id"])
        assert check_edit(row["correct_note"], row["correct_note"], fact).still_true == "true"
        assert check_edit(row["correct_note"], row["incorrect_note"], fact).still_true == "false"


def test_neutral_edits_stay_true(rows: list[dict[str, Any]]) -> None:
    verdicts = Counter(
        check_edit(row["correct_note"], edit.modified, TABLE.fact(row["fact_id"])).still_true
        for row in random.Random(0).sample(rows, 40)
        for edit in neutral_edits(row["correct_note"])
    )
    assert verdicts["false"] == 0
    assert verdicts["true"] >= 0.99 * verdicts.total()


def test_a_neutral_edit_at_the_start_of_a_sentence_keeps_it_a_sentence(rows: list[dict[str, Any]]) -> None:
    """Without its capital letter, "116 mEq/L. the team starts" would be one sentence."""
    row = next(row for row in rows if " mEq/L. The team begins " in row["correct_note"])
    modified = row["correct_note"].replace("The team begins", "The team starts")
    assert check_edit(row["correct_note"], modified, TABLE.fact(row["fact_id"])).still_true == "true"


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ("300 mg", "true"),
        ("0.3 g", "true"),
        ("three hundred milligrams", "true"),
        ("300000 mcg", "true"),
        ("100 mg", "false"),
        ("3 g", "false"),
        ("250 mg", "unknown"),
        ("300 mL", "unknown"),
        ("not 300 mg", "false"),
        ("not 100 mg but 300 mg", "true"),
        ("300 mg rather than 100 mg", "true"),
        ("300 mg or 100 mg", "unknown"),
        ("300 mg and 100 mg", "false"),
        ("whatever", "unknown"),
    ],
)
def test_amounts_in_a_carrying_sentence(said: str, verdict: str) -> None:
    carrier = DOSE.pool.carriers[0]
    assert check("A man is seen. " + carrier.replace("{term}", said), DOSE).still_true == verdict


@pytest.mark.parametrize(
    ("sentence", "verdict"),
    [
        ("The illness is attributed to Streptococcus pneumoniae.", "true"),
        ("The illness is probably due to pneumococcus.", "true"),
        ("The illness is not attributed to Streptococcus pneumoniae.", "false"),
        ("The illness is attributed to Listeria monocytogenes.", "false"),
        ("The illness is not attributed to Listeria monocytogenes.", "unknown"),
        ("The illness is attributed to Haemophilus influenzae.", "false"),
        ("The illness is attributed to pneumococcus or Listeria monocytogenes.", "unknown"),
        ("The illness is attributed to something else.", "unknown"),
        ("The patient owns a book about Streptococcus pneumoniae.", "unknown"),
        ("The patient is well.", "unknown"),
        ("", "unknown"),
    ],
)
def test_statements(sentence: str, verdict: str) -> None:
    assert check(f"A man is seen. {sentence}", ORGANISM).still_true == verdict


def test_a_statement_left_out_or_contradicted_is_never_true() -> None:
    right = "The illness is attributed to Streptococcus pneumoniae."
    wrong = "The illness is attributed to Listeria monocytogenes."
    note = f"A 60-year-old man is seen. {right}"
    assert check_edit(note, "A 60-year-old man is seen.", ORGANISM).still_true == "unknown"
    assert check_edit(note, f"{note} {wrong}", ORGANISM).still_true == "false"


@given(original=st.text(max_size=150), modified=st.text(max_size=150))
def test_it_answers_on_any_two_texts(original: str, modified: str) -> None:
    assert check_edit(original, modified, ORGANISM).still_true in ("true", "false", "unknown")


@given(st.lists(st.sampled_from([*EDITS[0]["original"].split(), "not", "left", "300", "mg"]), max_size=25))
def test_it_answers_on_any_words(words: list[str]) -> None:
    for fact in (ORGANISM, DOSE, TABLE.fact("management-025")):
        assert check(" ".join(words), fact).reason


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("twenty-five days", "25 days"),
        ("three hundred mg", "300 mg"),
        ("1,000 mg and 90,000/uL", "1000 mg and 90000/uL"),
        ("someone tensed", "someone tensed"),
        ("Twelve hours", "12 hours"),
    ],
)
def test_spelled_numbers(text: str, digits: str) -> None:
    assert with_digits(text) == digits


def test_amounts_compare_across_units() -> None:
    def amount(text: str) -> Any:
        return quantity_at(text.split(), 0)

    assert amount("500 mg") == amount("0.5 g")
    assert amount("6 week") == amount("42 day")
    assert amount("1 year") == amount("12 month")
    assert amount("10 mg").ratio(amount("1 g")) == 100
    assert amount("3 month").ratio(amount("3 week")) == pytest.approx(4.34, abs=0.01)
    assert amount("3 mg").ratio(amount("3 week")) is None
    assert amount("mg 3") is None
