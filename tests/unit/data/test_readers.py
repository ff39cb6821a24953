"""Reading notes: MEDEC's CSV, pairs, own notes; what is kept to the letter, skipped by name, or refused."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.data.encodings import examine
from medserl.data.readers import ColumnNames, parse_sentences, read_notes, unique_ids
from medserl.errors import DataError
from medserl.game.note import ERROR_TYPES, Note

MEDEC_HEADER = (
    *("Text ID", "Text", "Sentences", "Error Flag", "Error Type", "Error Sentence ID"),
    *("Error Sentence", "Corrected Sentence", "Corrected Text"),
)
WRONG, RIGHT = "He has a cough.\nHe is given warfarin. ", "He has a cough.\nHe is given amoxicillin. "
FLAGGED = (
    *("ms-1", WRONG, "0 He has a cough.\n1 He is given warfarin.", "1", "Pharmacotherapy", "1"),
    *("He is given warfarin.", "He is given amoxicillin.", RIGHT),
)
CLEAN = ("ms-2", RIGHT, "0 He has a cough.\n1 He is given amoxicillin.", "0", "NA", "-1", "NA", "NA", "NA")


def csv_text(*rows: Sequence[str], lineterminator: str = "\n") -> str:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator=lineterminator).writerows(rows)
    return out.getvalue()


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def jsonl(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def refusal(path: Path, columns: ColumnNames | None = None) -> str:
    """The message of the DataError, which is one line that names the file."""
    with pytest.raises(DataError) as caught:
        read_notes(path, columns or ColumnNames())
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    return message


# -- the forms -------------------------------------------------------------------------------------------


def test_medec_csv_gives_pairs_and_correct_notes(tmp_path):
    content = csv_text(MEDEC_HEADER, FLAGGED, CLEAN)
    loaded = read_notes(write(tmp_path, "MEDEC-MS-ValidationSet.csv", content))
    assert loaded.notes == (
        Note(
            note_id="ms-1",
            correct_note=RIGHT,
            incorrect_note=WRONG,
            error_type="pharmacotherapy",
            error_sentence="He is given warfarin.",
            corrected_sentence="He is given amoxicillin.",
            error_sentence_id=1,
            sentences=("He has a cough.", "He is given warfarin."),
        ),
        Note("ms-2", RIGHT, sentences=("He has a cough.", "He is given amoxicillin.")),
    )
    assert loaded.skipped == ()
    assert loaded.skipped_summary() == ""
    assert loaded.sha256 == hashlib.sha256(content.encode()).hexdigest()


def test_paired_jsonl_keeps_every_field(tmp_path):
    row = {
        "note_id": "p-1",
        "correct_note": RIGHT,
        "incorrect_note": WRONG,
        "error_type": "causalorganism",
        "error_sentence": "He is given warfarin.",
        "corrected_sentence": "He is given amoxicillin.",
        "error_sentence_id": 1,
        "sentences": ["He has a cough.", "He is given warfarin."],
        "fact_id": "drug-7",
        "split": "test-seen",
        "kind": "drug",
    }
    (note,) = read_notes(write(tmp_path, "pairs.jsonl", jsonl(row))).notes
    expected = {**row, "error_type": "causalOrganism", "sentences": tuple(row["sentences"])}
    expected |= {"labelled": True, "patient": None}
    del expected["kind"]
    assert vars(note) == expected


@pytest.mark.parametrize("column", ["correct_note", "note", "text", "Text", "NOTE", "Correct Note"])
def test_a_column_of_correct_notes_is_enough(tmp_path, column):
    for path in (
        write(tmp_path, "mine.csv", csv_text([column], ["Pain."])),
        write(tmp_path, "mine.jsonl", jsonl({column: "Pain."})),
    ):
        loaded = read_notes(path)
        (note,) = loaded.notes
        assert note.correct_note == "Pain."
        assert not note.is_pair
        assert loaded.skipped == ()  # a final line break is no blank row
        assert note.note_id == ("mine-2" if path.suffix == ".csv" else "mine-1")


def test_own_column_names(tmp_path):
    content = csv_text(["nr", "good", "bad", "what"], ["7", "Is well.", "Is ill.", "Diagnosis"])
    path = write(tmp_path, "mine.csv", content)
    columns = ColumnNames(id="nr", note="good", incorrect="bad", error_type="what")
    assert read_notes(path, columns).notes == (Note("7", "Is well.", "Is ill.", "diagnosis"),)


def test_own_flag_column_with_words(tmp_path):
    rows = (["Is well.", "CORRECT"], ["Is ill.", "INCORRECT"], ["Is in.", "maybe"])
    path = write(tmp_path, "mine.csv", csv_text(["text", "label"], *rows))
    loaded = read_notes(path, ColumnNames(flag="label"))
    texts = [(note.correct_note, note.incorrect_note) for note in loaded.notes]
    assert texts == [("Is well.", None), (None, "Is ill.")]
    assert [row.why for row in loaded.skipped] == ["'label' is 'maybe', neither correct nor an error"]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        *((name.upper(), name) for name in ERROR_TYPES),
        *(("causal organism", "causalOrganism"), ("Causal_Organism", "causalOrganism")),
        *((" Treatment ", "treatment"), ("Allergy Alert", "Allergy Alert")),
    ],
)
def test_error_types_get_medecs_spelling_and_unknown_ones_stay(tmp_path, written, read):
    row = {"correct_note": "Is well.", "incorrect_note": "Is ill.", "error_type": written}
    (note,) = read_notes(write(tmp_path, "a.jsonl", jsonl(row))).notes
    assert note.error_type == read


def test_a_flagged_text_without_its_correction_can_be_judged_but_not_played(tmp_path):
    row = (*FLAGGED[:-1], "NA")
    (note,) = read_notes(write(tmp_path, "a.csv", csv_text(MEDEC_HEADER, row))).notes
    assert (note.correct_note, note.incorrect_note) == (None, WRONG)


# -- sentences -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("0 One.\n1 Two.", ("One.", "Two.")),
        ("0 Tests:\n\n1 Count 11,100/mm3\nSerum\n2 L\nK+", ("Tests:\n", "Count 11,100/mm3\nSerum", "L\nK+")),
        ("0 Potassium\n4 mEq/L\n1 Two.", ("Potassium\n4 mEq/L", "Two.")),
        ("0 One.\r\n1 Two.\r\n", ("One.", "Two.\r\n")),
        ("0 One.\n1\n2 Three.", ("One.", "", "Three.")),
        ("Unnumbered.\n1 Two.", ("Unnumbered.", "Two.")),
        ("0 â‰¥ 3 \u2028 1 x\x85 1 y", ("â‰¥ 3 \u2028 1 x\x85 1 y",)),
        ("", ()),
    ],
)  # fmt: skip
def test_numbered_sentences(text, sentences):
    assert parse_sentences(text) == sentences


_LINE = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12)
_SENTENCE = st.lists(_LINE.filter(lambda line: not line[:1].isdigit()), min_size=1, max_size=3).map("\n".join)


@given(st.lists(_SENTENCE, min_size=1, max_size=14))
def test_numbered_sentences_come_back_as_they_were(sentences):
    numbered = "\n".join(f"{number} {sentence}" for number, sentence in enumerate(sentences))
    assert parse_sentences(numbered) == tuple(sentences)


# -- what survives ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("terminator", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends_survive(tmp_path, caplog, encoding, terminator):
    note = f"Fièvre, â‰¥ 38.3 C{terminator}“Sehr müde”, nº 5"
    content = csv_text(["id", "note"], ["é1", note], lineterminator=terminator).encode(encoding)
    (read,) = read_notes(write(tmp_path, "notes.csv", content)).notes
    assert (read.note_id, read.correct_note) == ("é1", note)
    assert any("Windows-1252" in line for line in caplog.messages) == (encoding == "cp1252")


def test_utf16_without_this_machines_byte_order(tmp_path):
    content = b"\xfe\xff" + jsonl({"note": "Fever ≥ 38"}).encode("utf-16-be")
    (note,) = read_notes(write(tmp_path, "a.jsonl", content)).notes
    assert note.correct_note == "Fever ≥ 38"


def test_a_field_beyond_the_csv_modules_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("medserl.game.text.MAX_CHARACTERS", 200_000)
    long = "word " * 40_000
    (note,) = read_notes(write(tmp_path, "a.csv", csv_text(["note"], [long]))).notes
    assert note.correct_note == long


_ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=60)


@given(st.lists(_ANY_TEXT, min_size=1, max_size=5))
def test_any_text_survives_csv_and_json_alike(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("any")
    usable = [f"x {text}" for text in texts]
    quoted = ('"' + text.replace('"', '""') + '"' for text in usable)
    as_csv = write(folder, "a.csv", "\n".join(["note", *quoted]))
    raw = (json.dumps({"note": text}, ensure_ascii=False) for text in usable)
    as_json = write(folder, "a.jsonl", "\n".join(raw))
    assert [note.correct_note for note in read_notes(as_csv).notes] == usable
    assert [note.correct_note for note in read_notes(as_json).notes] == usable


@given(st.binary(max_size=40))
def test_any_bytes_are_text_or_refused(tmp_path_factory, content):
    path = write(tmp_path_factory.mktemp("any"), "a.csv", content)
    text, refused = "", ""
    try:
        with examine(path).lines() as lines:
            text = lines.read()
    except DataError as error:
        refused = str(error)
    assert not refused or ("\n" not in refused and "a.csv" in refused)
    assert "\ufffd" not in text or "\ufffd".encode() in content  # no byte is replaced in silence


# -- what is skipped, by name ----------------------------------------------------------------------------


def test_unusable_csv_rows_are_named_by_line(tmp_path, caplog):
    rows = [
        MEDEC_HEADER,
        CLEAN,  # lines 2 to 4: two fields with a line break in them
        ("",) * 9,  # 6
        ("ms-3", *[""] * 8),
        ("ms-4", "NA", *[""] * 7),
        ("ms-5", "A text.", "", "", *[""] * 5),
        ("ms-6", "A text.", "", "2", *[""] * 5),
        ("ms-7", "A  text. ", "", "1", *[""] * 4, "A text."),
        ("ms-8", "A text.", "", "1", "diagnosis", "third", "", "", "Another text."),
        ("ms-9", "A text.", "", "0", *[""] * 5, "overhang"),
    ]
    path = write(tmp_path, "a.csv", csv_text(*rows) + "\n\nms-10,Short row.,,0\n")
    with caplog.at_level(logging.WARNING, logger="medserl"):
        loaded = read_notes(path)
    assert [note.note_id for note in loaded.notes] == ["ms-2", "ms-10"]
    assert [(row.line, row.why) for row in loaded.skipped] == [
        (5, "blank row"),
        (6, "no text"),
        (7, "no text"),
        (8, "no label"),
        (9, "'Error Flag' is '2', neither correct nor an error"),
        (10, "the correct and the incorrect text are the same"),
        (11, "error sentence id 'third' is no whole number"),
        (12, "10 fields where the header has 9 (a comma outside quotes?)"),
        (13, "blank row"),
        (14, "blank row"),
    ]
    assert str(loaded.skipped[0]) == f"{path}, line 5: blank row"
    assert loaded.skipped_summary().startswith("10 rows skipped: 3 x blank row (first at line 5); 2 x no text (")
    assert caplog.messages == [f"{path}: {loaded.skipped_summary()}"]


def test_unusable_json_rows_are_named_by_line(tmp_path):
    rows = [
        '{"correct_note": "Is well."}',
        "",
        '{"correct_note": null, "note_id": 3}',
        '{"correct_note": 5}',
        '{"correct_note": "half \\ud83d"}',
        '{"correct_note": "Is well.", "sentences": [1]}',
        '{"note_id": 7, "correct_note": "Is well."}\r',
    ]
    loaded = read_notes(write(tmp_path, "a.jsonl", "\n".join(rows)))
    assert [note.note_id for note in loaded.notes] == ["a-1", "7"]
    assert [(row.line, row.why) for row in loaded.skipped] == [
        (2, "blank row"),
        (3, "no text"),
        (4, "'correct_note' holds int, not text"),
        (5, "'correct_note' holds half a character (an unpaired surrogate)"),
        (6, "the sentences are neither text nor a list of texts"),
    ]


def test_repeated_ids_are_made_unique_and_said(tmp_path, caplog):
    rows = [{"id": id_, "note": f"Note {i}."} for i, id_ in enumerate(["a", "b", "a", "a#2", "a", "b"])]
    loaded = read_notes(write(tmp_path, "a.jsonl", jsonl(*rows)))
    assert [note.note_id for note in loaded.notes] == ["a", "b", "a#3", "a#2", "a#4", "b#2"]
    assert [note.correct_note for note in loaded.notes] == [row["note"] for row in rows]
    assert caplog.messages == [f"{tmp_path / 'a.jsonl'}: 3 repeated note ids were renamed (first: a -> a#3)"]


@given(st.lists(st.sampled_from(["a", "a#2", "a#2#2", "b", "a#3"]), max_size=12))
def test_unique_ids_are_unique_and_leave_first_ones_alone(ids):
    notes = unique_ids((Note(id_, "text") for id_ in ids), "test")
    new = [note.note_id for note in notes]
    assert len(set(new)) == len(ids)
    assert all(new[ids.index(id_)] == id_ for id_ in ids)


# -- what is refused -------------------------------------------------------------------------------------


def test_files_that_cannot_be_used(tmp_path):
    assert "no such file" in refusal(tmp_path / "missing.jsonl")
    (tmp_path / "folder.csv").mkdir()
    assert "Is a directory without .txt files in it" in refusal(tmp_path / "folder.csv")
    assert "use a .csv or .jsonl file" in refusal(write(tmp_path, "notes.docx", "note\nPain.\n"))
    for name in ("a.csv", "a.jsonl"):
        for content in ("", "\n \n", "\ufeff"):
            assert "the file is empty" in refusal(write(tmp_path, name, content))
    assert "nothing follows the header" in refusal(write(tmp_path, "a.csv", "note\n"))


def test_files_without_a_usable_row(tmp_path):
    path = write(tmp_path, "a.csv", "id,note\n1,\n2,NA\n\n")
    assert refusal(path) == (
        f"{path}: no usable note; 3 rows skipped: 2 x no text (first at line 2); 1 x blank row (first at line 4)"
    )


def test_broken_json_names_the_line(tmp_path):
    path = write(tmp_path, "a.jsonl", '{"note": "Pain."}\n\n{"note": "Pain.\n')
    assert f"{path}, line 3: broken JSON (" in refusal(path)
    assert "item 1: not a JSON object" in refusal(write(tmp_path, "b.jsonl", "[5]\n"))
    assert "line 2: not a JSON object" in refusal(write(tmp_path, "b.jsonl", '{"note": "Pain."}\n[5]\n'))
    assert "unreadable JSON" in refusal(write(tmp_path, "c.jsonl", "[" * 100_000))


def test_broken_csv_names_the_line(tmp_path):
    path = write(tmp_path, "a.csv", 'id,note\n1,"Pain."\n2,"never closed\nmore\n')
    assert f"{path}, line 4: broken CSV (unexpected end of data)" in refusal(path)
    assert "line 2: broken CSV" in refusal(write(tmp_path, "b.csv", 'id,note\n1,"Pain" is bad\n'))


def test_wrong_columns_name_what_is_there_and_what_is_wanted(tmp_path):
    path = write(tmp_path, "a.csv", csv_text(["nr", "x" * 99], ["1", "Pain."]))
    message = refusal(path)
    assert f"it has 'nr', '{'x' * 57}...'" in message
    assert "correct_note, note, text" in message
    assert "no column 'body'; it has 'nr'" in refusal(path, ColumnNames(note="body"))
    assert "two columns are called 'note'" in refusal(write(tmp_path, "b.csv", "note,note\nPain.,Ache.\n"))
    assert "it has none" in refusal(write(tmp_path, "c.jsonl", "{}\n"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"note\nPain \x81\xff\n", "line 2: byte 0x81 is neither UTF-8 nor Windows-1252"),
        (b"\xff\xfen\x00o", "broken UTF-16"),
        ("note\nPain.\n".encode("utf-16-le"), "holds zero bytes"),
    ],
)
def test_bytes_that_are_no_text(tmp_path, content, reason):
    assert reason in refusal(write(tmp_path, "a.csv", content))
