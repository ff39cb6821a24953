"""What a review begins with: notes, predictions as `medserl predict` writes them, and files that are neither."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import openpyxl
import pytest

from medserl.config import Settings
from medserl.errors import ConfigError, DataError
from medserl.game.note import Note
from medserl.prediction.assessor import Finding
from medserl.prediction.findings import JudgedNote, write_findings
from medserl.serve.inputs import items_of
from medserl.serve.options import DEFAULT_DECISIONS, ServeOptions
from tests.reviewing import finding_of, text_of, write_ten

SETTINGS = Settings(engine="scripted")


def changed(path: Path, **values: object) -> Path:
    """The file with some values of its first row changed; None takes one out."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows[0] = {name: value for name, value in (rows[0] | values).items() if value != "absent"}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["p.jsonl", "p.csv"])
def test_predictions_are_read_as_they_were_written(tmp_path: Path, name: str) -> None:
    items, unjudged = items_of(ServeOptions(predictions=write_ten(tmp_path / name)), SETTINGS)
    assert unjudged == []
    assert {item.note_id: (item.text, item.finding, item.threshold) for item in items} == {
        f"note {n}": (text_of(n), finding_of(n), 0.5) for n in range(10)
    }


def test_predictions_that_went_through_a_spreadsheet_are_read(tmp_path: Path) -> None:
    """A workbook, and a CSV file with another separator, capital words for yes and no, and blank rows."""
    write_ten(tmp_path / "p.csv")
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(tmp_path / "p.xlsx")
    with (tmp_path / "semi.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=";").writerows(
            [*([cell.upper() if cell == "True" else cell for cell in row] for row in rows), []]
        )
        file.write(";;;\r\n")
    for name in ("p.xlsx", "semi.csv"):
        items, _ = items_of(ServeOptions(predictions=tmp_path / name), SETTINGS)
        assert {item.note_id: item.finding for item in items} == {f"note {n}": finding_of(n) for n in range(10)}


@pytest.mark.parametrize("name", ["p.jsonl", "p.csv"])
def test_what_the_model_did_not_say_is_read_as_nothing(tmp_path: Path, name: str) -> None:
    findings = [
        Finding("passed", "CORRECT", 0.0, False),
        Finding("flagged alone", "INCORRECT", 1.0, True),
        Finding("too long", None, None, None, reason="sentence 3 does not fit", windows=0),
        Finding("in windows", None, 0.25, False, windows=3),
    ]
    notes = [Note(finding.note_id, f'A {finding.note_id}\nnote, "quoted".', labelled=False) for finding in findings]
    write_findings(tmp_path / name, [JudgedNote(note, each, 0.5) for note, each in zip(notes, findings, strict=True)])
    items, _ = items_of(ServeOptions(predictions=tmp_path / name), SETTINGS)
    assert [item.finding for item in items] == findings
    assert [item.text for item in items] == [note.correct_note for note in notes]


def test_another_threshold_flags_others(tmp_path: Path) -> None:
    options = ServeOptions(predictions=write_ten(tmp_path / "p.jsonl"), threshold=0.9)
    items, _ = items_of(options, SETTINGS)
    assert [item.note_id for item in items if item.finding and item.finding.flagged] == ["note 0"]
    assert {item.threshold for item in items} == {0.9}


def test_notes_alone_are_all_to_be_judged(tmp_path: Path) -> None:
    path = tmp_path / "notes.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["id", "note"], ["a", "He is\nwell."], ["b", "He is ill."]])
    items, unjudged = items_of(ServeOptions(notes=str(path)), SETTINGS)
    assert [(item.note_id, item.text, item.finding) for item in items] == [
        ("a", "He is\nwell.", None), ("b", "He is ill.", None),
    ]  # fmt: skip
    assert unjudged == items


def test_notes_beside_predictions_give_their_texts_and_what_lacks_is_judged(tmp_path: Path) -> None:
    predictions = write_ten(tmp_path / "p.jsonl", count=2)
    changed(predictions, text="absent")
    notes = tmp_path / "notes.jsonl"
    rows = [{"note_id": f"note {n}", "note": text_of(n)} for n in range(3)]
    notes.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    items, unjudged = items_of(ServeOptions(notes=str(notes), predictions=predictions), SETTINGS)
    assert sorted((item.note_id, item.text) for item in items) == [(f"note {n}", text_of(n)) for n in range(3)]
    assert [item.note_id for item in unjudged] == ["note 2"]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"text": "absent"}, "the text of note 'note 1' is not in it; give the notes it was made of with --notes FILE"),
        ({"text": "x" * 100_001}, "100,000 at most"),
        ({"text": "\ud800"}, "half a character"),
        ({"p_error": 1.5}, "line 1: not what `medserl predict` writes: p_error"),
        ({"p_error": "high"}, "line 1: not what `medserl predict` writes: p_error"),
        ({"verdict": "GUILTY"}, "line 1: not what `medserl predict` writes: verdict"),
        ({"sentence": -1}, "line 1: not what `medserl predict` writes: sentence"),
        ({"note_id": None}, "line 1: not what `medserl predict` writes: note_id"),
        ({"note_id": "note 0"}, "note 'note 0' stands twice"),
        ({"note_id": ""}, "line 1: not what `medserl predict` writes: note_id"),
    ],
)
def test_a_file_that_is_no_prediction_is_refused_by_its_line(tmp_path: Path, values: dict, why: str) -> None:
    path = changed(write_ten(tmp_path / "p.jsonl", count=2), **values)
    with pytest.raises(DataError, match=why) as refused:
        items_of(ServeOptions(predictions=path), SETTINGS)
    assert "\n" not in str(refused.value)


def test_predictions_of_other_notes_are_refused(tmp_path: Path) -> None:
    notes = tmp_path / "notes.jsonl"
    notes.write_text(json.dumps({"note_id": "note 0", "note": "Quite another note."}) + "\n", encoding="utf-8")
    options = ServeOptions(notes=str(notes), predictions=write_ten(tmp_path / "p.jsonl"))
    with pytest.raises(DataError, match="has another text in"):
        items_of(options, SETTINGS)


def test_a_torn_file_is_not_read_in_part(tmp_path: Path) -> None:
    path = write_ten(tmp_path / "p.jsonl")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"p\.jsonl"):
        items_of(ServeOptions(predictions=path), SETTINGS)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"predictions": Path("out/x.predictions.jsonl"), "notes": "n.csv"}, "out/x.predictions.decisions.jsonl"),
        ({"predictions": Path("p.csv")}, "p.decisions.jsonl"),
        ({"predictions": Path("p.csv"), "decisions": Path("d/mine.jsonl")}, "d/mine.jsonl"),
        ({"notes": "hf:owner/name?split=test"}, str(DEFAULT_DECISIONS)),
        ({"notes": "-"}, str(DEFAULT_DECISIONS)),
        ({"notes": "sample"}, str(DEFAULT_DECISIONS)),
        ({}, str(DEFAULT_DECISIONS)),
    ],
)
def test_decisions_lie_beside_what_is_reviewed(given: dict, expected: str) -> None:
    assert ServeOptions(**given).decisions_file == Path(expected)


def test_decisions_lie_beside_notes_that_are_a_file(tmp_path: Path) -> None:
    notes = tmp_path / "ward.xlsx"
    notes.touch()
    assert ServeOptions(notes=str(notes)).decisions_file == tmp_path / "ward.decisions.jsonl"


@pytest.mark.parametrize(("name", "value"), [("port", -1), ("port", 65536), ("threshold", 1.1), ("threshold", -0.1)])
def test_options_that_cannot_be_followed_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"--{name} "):
        ServeOptions(**{name: value})  # type: ignore[arg-type]
