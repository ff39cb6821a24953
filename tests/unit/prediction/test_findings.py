"""Files of findings: whatever a note holds, it comes back as it was, and its place on the page is its own."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.data.columns import ColumnNames
from medserl.data.labels import is_missing
from medserl.data.readers import read_notes
from medserl.data.standard_input import form_of
from medserl.game.note import Note
from medserl.prediction.assessor import Finding, shown_text
from medserl.prediction.findings import JudgedNote, by_suspicion, write_findings
from medserl.prediction.page import in_pieces

TEXTS = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Cn")) | st.sampled_from('\n\t,;"=-'), min_size=1, max_size=80
).filter(lambda text: not is_missing(text.strip()))
BY_NAME = ColumnNames(id="note_id", note="text", flag="none")


def judged(text: str, p_error: float | None = 0.7, note_id: str = "a", **found: object) -> JudgedNote:
    finding = Finding(note_id, "INCORRECT", p_error, True, **found)  # type: ignore[arg-type]
    return JudgedNote(Note(note_id, text, labelled=False), finding, 0.5)


@given(st.lists(TEXTS, min_size=2, max_size=4), st.sampled_from([".csv", ".jsonl"]))
def test_a_file_of_findings_is_a_file_of_the_same_notes(texts: list[str], ending: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"found{ending}"
        write_findings(path, [judged(text, note_id=f"n{i}") for i, text in enumerate(texts)])
        read = read_notes(path, BY_NAME).notes
    assert [(note.note_id, note.correct_note) for note in read] == [(f"n{i}", text) for i, text in enumerate(texts)]


@given(TEXTS, st.data())
def test_the_pieces_of_a_flagged_note_are_the_note(text: str, data: st.DataObject) -> None:
    sentences = shown_text(Note("a", text)).sentences
    number = data.draw(st.none() | st.integers(0, len(sentences)))
    says = data.draw(st.none() | st.text(max_size=5))
    pieces = in_pieces(judged(text, sentence=number, says=says))
    marked = pieces.before_words + pieces.words + pieces.after_words
    assert pieces.before + marked + pieces.after == text
    assert marked == (sentences[number] if number is not None and number < len(sentences) else "")
    assert not pieces.words or re.fullmatch(re.escape(says or ""), pieces.words, re.IGNORECASE)


def test_what_could_not_be_judged_comes_last_and_ties_stay_in_order() -> None:
    chances = [None, 0.2, 0.9, None, 0.9, 0.0]
    ordered = by_suspicion(judged("Well.", p, str(i)) for i, p in enumerate(chances))
    assert [one.finding.note_id for one in ordered] == ["2", "4", "1", "5", "0", "3"]


@pytest.mark.parametrize(
    ("content", "ending"),
    [
        (b"She has fever, chills, and a cough.\nShe is well.", ".txt"),
        (b"[Seen at night]\nShe is well.", ".txt"),
        (b"note\nShe is well.", ".csv"),
        (b'"Text ID";"Text"\n1;She is well.', ".csv"),
        (b"note", ".txt"),
        (json.dumps({"note": ["a"]}, indent=1).encode(), ".json"),
        (b'"She is well."\n"He is ill."', ".json"),
        (b"PAR1...", ".parquet"),
        (b"\x1f\x8bno gzip", ".txt.gz"),
    ],
)
def test_the_form_of_what_comes_on_standard_input(content: bytes, ending: str) -> None:
    assert form_of(content, {"note", "text"}) == ending
