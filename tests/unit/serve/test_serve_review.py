"""What a review shows and what becomes of a decision, without any web."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.errors import DataError
from medserl.prediction.assessor import Finding
from medserl.serve.decisions import DecisionFile
from medserl.serve.review import Item, Review, pasted_id
from tests.reviewing import DRUGS, finding_of, text_of

TEXT = "He has a fever of 38.3 C.\nHe is treated with lithium. He is told to\ncome back."


@pytest.fixture
def file(tmp_path: Path) -> Iterator[DecisionFile]:
    held = DecisionFile.open(tmp_path / "d.jsonl")
    yield held
    held.close()


def found(p_error: float | None, **more: object) -> Finding:
    flagged = None if p_error is None else p_error >= 0.5
    return Finding("n", "INCORRECT" if flagged else None, p_error, flagged, **more)  # type: ignore[arg-type]


def item(name: str = "n", text: str = TEXT, finding: Finding | None = None) -> Item:
    return Item(name, text, finding, 0.5)


def stored(file: DecisionFile) -> list[dict]:
    return [json.loads(line) for line in file.path.read_text(encoding="utf-8").splitlines()]


POINTED = found(
    0.8, sentence=1, sentence_text="He is treated with lithium.", says="lithium", should_say="aspirin",
    correction="He is treated with aspirin.",
)  # fmt: skip


def test_the_list_is_by_suspicion_and_what_was_not_judged_comes_last(file: DecisionFile) -> None:
    items = [
        item("unjudged"),
        item("could not", finding=found(None, reason="too long")),
        item("low", finding=found(0.2)),
        item("verdict alone", finding=Finding("n", "INCORRECT", None, None)),
        item("high", finding=found(0.9)),
        item("as high", finding=found(0.9)),
    ]
    shown = [row["note_id"] for row in Review(items, file).listing()]
    assert shown == ["verdict alone", "high", "as high", "low", "could not", "unjudged"]


def test_an_accepted_suggestion_is_a_gold_pair(file: DecisionFile) -> None:
    review = Review([item(finding=POINTED)], file)
    sentence, correction = review.suggestion("n")
    review.decide("n", "accept", sentence=sentence, correction=correction, error_type="pharmacotherapy", comment="yes")
    (row,) = stored(file)
    assert row["incorrect_note"] == TEXT
    assert row["correct_note"] == TEXT.replace("lithium", "aspirin")
    assert (row["error_sentence_id"], row["error_type"], row["comment"]) == (1, "pharmacotherapy", "yes")
    assert (row["p_error"], row["threshold"]) == (0.8, 0.5)
    assert row["decided_at"]


def test_a_correction_keeps_the_lines_of_the_note(file: DecisionFile) -> None:
    review = Review([item(finding=POINTED)], file)
    review.decide("n", "accept", sentence=2, correction="He is told to  come\nback tomorrow.")
    assert stored(file)[0]["correct_note"] == TEXT.replace("back.", "back tomorrow.")


@pytest.mark.parametrize("correction", [None, "", " \n", "He is treated\nwith lithium."])
def test_accepted_without_another_wording_the_note_has_an_error_and_no_twin(
    file: DecisionFile, correction: str | None
) -> None:
    review = Review([item(finding=POINTED)], file)
    review.decide("n", "accept", sentence=1, correction=correction)
    (row,) = stored(file)
    assert (row["correct_note"], row["incorrect_note"], row["error_sentence_id"]) == (None, TEXT, 1)


def test_a_rejected_note_is_correct_and_forgets_what_was_accepted(file: DecisionFile) -> None:
    review = Review([item(finding=POINTED)], file)
    review.decide("n", "accept", sentence=1, correction="He is treated with aspirin.", comment="first")
    shown = review.decide("n", "reject")
    (row,) = stored(file)
    assert (row["correct_note"], row["incorrect_note"], row["corrected_sentence"]) == (TEXT, None, None)
    assert (row["comment"], shown["decision"], shown["decided"]["comment"]) == ("first", "reject", "first")


def test_a_comment_leaves_the_decision_as_it_is(file: DecisionFile) -> None:
    review = Review([item(finding=POINTED), item("other", "He is well.")], file)
    review.decide("n", "accept", sentence=1, correction="He is treated with aspirin.")
    review.decide("n", "comment", comment="ask the ward")
    review.decide("other", "comment", comment="odd")
    first, second = stored(file)
    assert (first["decision"], first["comment"], first["corrected_sentence"]) == (
        "accept", "ask the ward", "He is treated with aspirin.",
    )  # fmt: skip
    assert (second["decision"], second["correct_note"], second["commented_note"]) == (None, None, "He is well.")
    review.decide("other", "withdraw")
    assert [row["note_id"] for row in stored(file)] == ["n"]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"sentence": 3}, "no sentence 3; they are numbered from 0 to 2"),
        ({"sentence": -1}, "no sentence -1"),
        ({"correction": "He is well."}, "say which sentence"),
        ({"comment": "x" * 4001}, "may have 4,000"),
        ({"comment": "\ud83d"}, "half a character"),
        ({"sentence": 0, "correction": "a\udc00"}, "half a character"),
        ({"error_type": "typo"}, "give one of diagnosis"),
        ({"sentence": 0, "correction": "x " * 60_000}, "100,000 at most"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(file: DecisionFile, asked: dict, why: str) -> None:
    review = Review([item()], file)
    with pytest.raises(DataError, match=why):
        review.decide("n", "accept", **asked)
    assert not file.path.exists()


def test_there_is_no_decision_on_a_note_that_is_not_there(file: DecisionFile) -> None:
    with pytest.raises(DataError, match="no note 'm' here"):
        Review([item()], file).decide("m", "reject")


def test_pasted_notes_have_ids_of_their_text(file: DecisionFile) -> None:
    review = Review([], file)
    one = review.checked(None, "He is well.")
    assert one.note_id == pasted_id("He is well.") != pasted_id("He is ill.")
    review.add([one])
    review.add([review.checked("mine", "He is ill.")])
    assert review.checked("mine", "He is ill.").note_id == "mine"
    with pytest.raises(DataError, match="another note 'mine'"):
        review.checked("mine", "He is well again.")
    for text, why in ((" \n", "is empty"), ("x" * 100_001, "100,000 at most"), ("a\ud800", "half a character")):
        with pytest.raises(DataError, match=why):
            review.checked(None, text)


def test_a_decided_note_that_was_pasted_is_there_after_a_restart(tmp_path: Path) -> None:
    file = DecisionFile.open(tmp_path / "d.jsonl")
    review = Review([], file)
    pasted = review.checked(None, "He is well.")
    review.add([pasted])
    review.decide(pasted.note_id, "reject")
    file.close()
    again = DecisionFile.open(tmp_path / "d.jsonl")
    (row,) = Review([item(finding=POINTED)], again).listing()[1:]
    assert (row["note_id"], row["decision"]) == (pasted.note_id, "reject")
    again.close()


def test_a_decision_on_another_text_of_the_same_id_is_not_taken_for_this_one(file: DecisionFile) -> None:
    Review([item("n", "An older note.")], file).decide("n", "reject")
    with pytest.raises(DataError, match="decision on another text under the id 'n'; give --decisions another file"):
        Review([item("n", "A newer note.")], file)
    with pytest.raises(DataError, match="ids must be unique"):
        Review([item("m", "One."), item("m", "Two.")], file)


def test_the_sentence_is_found_where_the_source_numbers_others(file: DecisionFile) -> None:
    """The source has two of our sentences as one, or breaks lines elsewhere: its number is not ours."""
    named = found(0.8, sentence=0, sentence_text="He is treated with  lithium.", says="lithium", should_say="aspirin")
    assert item(finding=named).sentence == 1
    wide = found(
        0.8, sentence=0, sentence_text="He has a fever of 38.3 C. He is treated with lithium.", says="lithium",
        should_say="aspirin", correction="He has a fever of 38.3 C. He is treated with aspirin.",
    )  # fmt: skip
    assert item(finding=wide).sentence is None  # two of ours: which is meant is not guessed
    narrow = found(0.8, sentence=4, sentence_text="is told to come", says="told", should_say="asked", correction="x")
    assert item(finding=narrow).sentence == 2
    assert item(finding=narrow).correction == "He is asked to\ncome back."
    assert item(finding=found(0.8, sentence=9, sentence_text="Elsewhere.")).sentence is None


@given(st.text(alphabet=st.sampled_from("aB. \n\t-1*<é☑"), max_size=80))
def test_the_pieces_are_the_text(text: str) -> None:
    pieces = item(text=text).pieces
    assert "".join(pieces) == text
    assert len(pieces) % 2 == 1
    assert all(sentence.strip() for sentence in pieces[1::2])


def test_what_is_hidden_in_a_note_is_shown(file: DecisionFile) -> None:
    review = Review([item(text="He takes \u202easpirin\u202c.\x1b[2J")], file)
    shown = "".join(review.detail("n")["shown"])
    assert "\\u202easpirin\\u202c" in shown
    assert "\\x1b[2J" in shown
    assert review.detail("n")["text"] == "He takes \u202easpirin\u202c.\x1b[2J"


def test_ten_notes_of_the_tests_are_as_they_say() -> None:
    """The stand-ins that the browser sees are right themselves: each finding fits its note."""
    for number in range(len(DRUGS)):
        assert Item("n", text_of(number), finding_of(number)).correction == finding_of(number).correction
