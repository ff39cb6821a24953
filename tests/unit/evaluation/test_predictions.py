"""Labelled texts and the files of predictions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.data.readers import read_notes
from medserl.errors import DataError, RunError
from medserl.evaluation.predictions import Prediction, labelled_texts, read_predictions, write_predictions
from medserl.game.note import Note

PAIR = Note(
    "p",
    correct_note="Fever. It is flu.",
    incorrect_note="Fever. It is gout.",
    error_type="diagnosis",
    error_sentence="It is gout.",
    corrected_sentence="It is flu.",
    error_sentence_id=1,
    sentences=("Fever.", "It is gout."),
    fact_id="f1",
    split="known",
)


def test_a_pair_gives_both_twins() -> None:
    correct, incorrect = labelled_texts([PAIR])
    assert (correct.text_id, correct.text, correct.is_error) == ("p-corrected", "Fever. It is flu.", False)
    assert (incorrect.text_id, incorrect.text, incorrect.is_error) == ("p", "Fever. It is gout.", True)
    assert correct.pair_id == incorrect.pair_id == "p"
    assert (correct.is_published, incorrect.is_published) == (False, True)
    assert correct.sentences == ("Fever.", "It is flu.")
    assert incorrect.sentences == ("Fever.", "It is gout.")
    assert (correct.error_sentence_id, correct.corrected_sentence) == (None, None)
    assert (incorrect.error_sentence_id, incorrect.corrected_sentence) == (1, "It is flu.")
    for twin in (correct, incorrect):
        assert (twin.error_type, twin.fact_id, twin.split) == ("diagnosis", "f1", "known")


def test_published_texts_have_the_notes_ids_and_no_twins() -> None:
    texts = labelled_texts([PAIR, Note("c", "Fine."), Note("i", None, "Wrong.")], published_only=True)
    assert [(t.text_id, t.is_error, t.pair_id) for t in texts] == [
        ("p", True, None),
        ("c", False, None),
        ("i", True, None),
    ]
    assert all(text.is_published for text in texts)


def test_published_texts_are_the_twins_texts_but_for_the_corrected_ones() -> None:
    notes = [PAIR, Note("c", "Fine."), Note("i", None, "Wrong.")]
    published = [replace(t, pair_id=None) for t in labelled_texts(notes) if t.is_published]
    assert published == list(labelled_texts(notes, published_only=True))


def test_a_lone_note_gives_one_text() -> None:
    texts = labelled_texts([Note("c", "Fine.", sentences=("Fine.",)), Note("i", None, "Wrong.")])
    assert [(t.text_id, t.text, t.is_error, t.pair_id) for t in texts] == [
        ("c", "Fine.", False, None),
        ("i", "Wrong.", True, None),
    ]
    assert texts[0].sentences == ("Fine.",)


def test_where_the_source_numbers_no_sentences_the_text_is_split() -> None:
    for unknown in (
        Note("p", "One. Two.", "One. Too.", sentences=("One.", "Too.")),
        Note("p", "One. Two.", "One. Too.", sentences=("One.",), error_sentence_id=4, corrected_sentence="Two."),
    ):
        assert labelled_texts([unknown])[0].sentences == ("One.", "Two.")  # which sentence differs is not guessed
    assert [t.sentences for t in labelled_texts([Note("p", "One. Two.", "One. Too.")])] == [
        ("One.", "Two."),
        ("One.", "Too."),
    ]


def test_medec_validation_is_574_published_texts(medec_dir: Path) -> None:
    notes = read_notes(medec_dir / "MEDEC-MS-ValidationSet-with-GroundTruth-and-ErrorType.csv").notes
    published = labelled_texts(notes, published_only=True)
    assert (len(published), sum(t.is_error for t in published)) == (574, 319)
    twins = labelled_texts(notes)
    assert (len(twins), sum(t.pair_id is not None for t in twins)) == (574 + 319, 2 * 319)


@given(
    st.lists(
        st.builds(
            Prediction,
            text_id=st.text(),
            verdict=st.sampled_from(["CORRECT", "INCORRECT", None]),
            error_sentence_id=st.none() | st.integers(0, 40),
            correction=st.none() | st.text(),
            p_incorrect=st.none() | st.floats(0, 1),
            completion=st.text(st.characters(exclude_categories=[])),
        )
    )
)
def test_predictions_survive_the_file(tmp_path_factory: pytest.TempPathFactory, predictions: list[Prediction]) -> None:
    path = tmp_path_factory.mktemp("predictions") / "p.jsonl"
    write_predictions(path, predictions)
    assert read_predictions(path) == predictions
    assert [file.name for file in path.parent.iterdir()] == ["p.jsonl"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: no JSON"),
        ("[]", "line 2: no prediction"),
        ("[" * 100_000, "line 2: no prediction: JSON that is too deep"),
        ('{"text_id": "a", "verdict": null, "error_sentence_id": ' + "9" * 5000 + "}", "or holds too long a number"),
        ('{"text_id": "a", "verdict": null, "p_incorrect": Infinity}', "line 2: p_incorrect cannot be Infinity"),
        ('{"text_id": "a", "verdict": null, "p_incorrect": -1e400}', "line 2: p_incorrect cannot be -Infinity"),
        ('{"text_id": "a", "verdict": null, "correction": [[[]]]}', "line 2: correction cannot be a list"),
        ('{"text_id": "a", "verdict": null, "no_verdict": "lost"}', 'line 2: no_verdict cannot be "lost"'),
        ('{"text_id": "a"}', "line 2: no prediction"),
        ('{"text_id": "a", "verdict": null, "note": 1}', "line 2: no prediction"),
        ('{"text_id": 3, "verdict": null}', "line 2: text_id cannot be 3"),
        ('{"text_id": "a", "verdict": "MAYBE"}', 'line 2: verdict cannot be "MAYBE"'),
        ('{"text_id": "a", "verdict": null, "p_incorrect": 1.5}', "line 2: p_incorrect cannot be 1.5"),
        ('{"text_id": "a", "verdict": null, "p_incorrect": NaN}', "line 2: p_incorrect cannot be NaN"),
        ('{"text_id": "a", "verdict": null, "error_sentence_id": true}', "line 2: error_sentence_id cannot be true"),
        ('{"text_id": "a", "verdict": null, "correction": 4}', "line 2: correction cannot be 4"),
        ('{"text_id": "a", "verdict": null, "completion": null}', "line 2: completion cannot be null"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"text_id": "ok", "verdict": null}\n' + line + "\n")
    with pytest.raises(DataError, match=message.replace("[", r"\[")):
        read_predictions(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_predictions_saved_by_any_editor_are_read_alike(tmp_path: Path, encoding: str, line_end: str) -> None:
    lines = ['{"text_id": "ä", "verdict": "CORRECT"}', "", '{"text_id": "b", "verdict": null}']
    (tmp_path / "p.jsonl").write_bytes(line_end.join(lines).encode(encoding))
    assert read_predictions(tmp_path / "p.jsonl") == [Prediction("ä", "CORRECT"), Prediction("b", None)]


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: cannot be read"):
        read_predictions(tmp_path / "none.jsonl")
    with pytest.raises(RunError, match="cannot be written"):
        write_predictions(tmp_path / "no" / "folder.jsonl", [])
