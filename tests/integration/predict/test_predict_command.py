"""`medserl predict` from flags to files, with a scripted reader in the model's place."""

from __future__ import annotations

import csv
import io
import json
import re
import stat
import sys
from pathlib import Path

import pytest

from medserl.cli import main
from medserl.config import Settings
from medserl.data.readers import read_notes
from medserl.errors import MedSeRLError
from medserl.prediction.assessor import Assessor
from tests.finder import Finder
from tests.poisonings import write_notes
from tests.predicting import COUNT, error_line, predict, rows, text, write_texts

# -- rows --------------------------------------------------------------------------------------------------


def test_a_row_a_note_with_all_that_was_found(notes: Path) -> None:
    found = predict(notes, "--sort", "input")
    assert [row["note_id"] for row in found] == [f"n{i}" for i in range(COUNT)]
    assert found[13] == {
        "note_id": "n13",
        "verdict": "INCORRECT",
        "p_error": 0.887,
        "flagged": True,
        "sentence": 1,
        "sentence_text": "She is given poison.",
        "says": "poison",
        "should_say": "aspirin",
        "correction": "She is given aspirin.",
        "reason": None,
        "windows": 1,
        "threshold": 0.5,
        "text": text(13),
        "sentences": None,
    }
    unsuspicious = found[0]
    assert (unsuspicious["verdict"], unsuspicious["p_error"], unsuspicious["flagged"]) == ("CORRECT", 0.2, False)
    assert {unsuspicious[name] for name in ("sentence", "sentence_text", "says", "should_say", "correction")} == {None}


def test_the_most_suspicious_come_first_and_those_not_judged_last(tmp_path: Path) -> None:
    texts = ["mumble.", text(13), "Well.", text(3), "Also well."]
    assert [row["note_id"] for row in predict(write_texts(tmp_path / "few.csv", texts))] == [
        "n3",
        "n1",
        "n2",
        "n4",
        "n0",
    ]


def test_csv_holds_the_same_as_jsonl(notes: Path, tmp_path: Path) -> None:
    odd = write_texts(tmp_path / "odd.csv", [text(3), 'Says "=1+1", \r\n poison;\nand so on.', "-mumble\rmumble"])
    as_json = predict(odd)
    main(["predict", str(odd), "--output", "out.csv"])
    with open("out.csv", newline="", encoding="utf-8") as file:
        as_csv = list(csv.DictReader(file))
    assert [{key: "" if value is None else str(value) for key, value in row.items()} for row in as_json] == as_csv


def test_files_are_private_and_the_default_is_named_after_the_notes(notes: Path) -> None:
    main(["predict", str(notes), "--html", "page.html"])
    target = Path("outputs/notes.predictions.jsonl")
    assert len(rows(target)) == COUNT
    for path in [target, Path("page.html"), *Path(f"{target}.answers").glob("*.json*")]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_predictions_are_notes_that_can_be_judged_again(notes: Path) -> None:
    predict(notes)
    main(["predict", "out.jsonl", "--output", "again.jsonl"])
    assert rows(Path("again.jsonl")) == rows(Path("out.jsonl"))


def test_a_note_whose_answer_cannot_be_read_has_a_reason(tmp_path: Path) -> None:
    (row,) = predict(write_texts(tmp_path / "few.csv", ["mumble."]))
    assert (row["verdict"], row["p_error"], row["flagged"]) == (None, None, None)
    assert row["reason"] == "the model's answer states no one verdict"


def test_rows_without_a_note_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(predict(write_texts(tmp_path / "few.csv", ["She is well.", "", "She is given poison."]))) == 2
    said = capsys.readouterr()
    assert "few.csv, line 3: no text" in said.err
    assert "left out: 1 rows" in said.out


# -- any input, no labels ----------------------------------------------------------------------------------


def test_labels_are_not_looked_at_and_it_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "labelled.csv"
    path.write_text("text,label\nShe is given poison.,1\nShe is given aspirin.,0\n", encoding="utf-8")
    assert [row["flagged"] for row in predict(path)] == [True, False]
    assert "labels are not looked at ('label'); `medserl evaluate` scores labelled notes" in capsys.readouterr().err


def test_of_a_pair_the_text_with_the_error_is_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = write_notes(tmp_path / "pairs.jsonl", 0)
    found = predict(pairs, "--sort", "input")
    assert [row["verdict"] for row in found] == ["INCORRECT"] * 12 + ["CORRECT"] * 4
    assert found[0]["sentences"].startswith("0 Patient 0 has fever.\n1 She is given poison.")
    assert "12 notes come with a text that holds an error: that one is judged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "ids"),
    [
        (b"She is given poison.\nAnd rest.", ["standard_input"]),
        (b"id;note\na;She is given poison.\nb;She is well.\n", ["a", "b"]),
        (b"\xef\xbb\xbfBefund,Nr\nShe is given poison.,7\n", ["7"]),
        (b'{"id": 1, "text": "She is given poison."}\n{"id": 2, "text": "She is well."}\n', ["1", "2"]),
        (b'[\n{"id": 1, "text": "She is given poison."},\n{"id": 2, "text": "She is well."}]', ["1", "2"]),
        ("id\ttext\r\nä\tShe is given poison.\r\n".encode("utf-16"), ["ä"]),
    ],
)
def test_standard_input_in_each_form(
    content: bytes, ids: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    columns = ["--note-column", "Befund", "--id-column", "Nr"] if b"Befund" in content else []
    found = predict("-", *columns)
    assert [row["note_id"] for row in found] == ids
    assert found[0]["flagged"]
    assert f"standard input: {len(ids)} note" in caplog.text and "/" not in caplog.text.replace("and/or", "")


def test_a_workbook_on_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from openpyxl import Workbook

    book = Workbook()
    book.active.append(["id", "text"])
    book.active.append(["a", "She is given poison."])
    book.save(tmp_path / "book.xlsx")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((tmp_path / "book.xlsx").read_bytes())))
    assert [row["note_id"] for row in predict("-")] == ["a"]


@pytest.mark.parametrize(("content", "what"), [(b" \n", "is empty"), (b'{"a": 1}\n{"b": 2}\n', "standard input")])
def test_bad_standard_input_is_one_line(
    content: bytes, what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    line = error_line(capsys, "predict", "-")
    assert what in line
    assert "/" not in line.replace("and/or", "")


def test_unlabelled_notes_given_to_evaluate_point_here(notes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"`medserl predict {notes}`" in error_line(capsys, "evaluate", "--data", notes)


# -- what is shown -----------------------------------------------------------------------------------------


def test_the_terminal_shows_counts_and_the_ten_most_suspicious(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict(write_texts(tmp_path / "notes.csv", [text(number) for number in range(130)] + ["mumble."]))
    shown = capsys.readouterr().out
    assert "131 notes: 13 flagged, 117 not flagged, 1 not judged" in shown
    assert "the 10 most suspicious:" in shown
    assert re.findall(r"^ ?0\.\d+ .*? (n\d+) ", shown, re.MULTILINE) == [f"n{i}3" if i else "n3" for i in range(10)]
    assert "She is given poison." in shown and "aspirin" in shown
    assert "predictions: out.jsonl" in shown
    assert "Not a medical device" in shown


def test_nothing_in_a_note_commands_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "odd.jsonl"
    note = {"id": "a\x1b[2J\nb", "text": "She is \x1b[31m\u202egiven poison."}
    path.write_text(json.dumps(note) + "\n", encoding="utf-8")
    predict(path)
    shown = "".join(capsys.readouterr())
    assert "\x1b" not in shown and "\u202e" not in shown
    assert "\\x1b[2J\\nb" in re.sub(r"\s+", "", shown)


def test_the_page_shows_flagged_notes_and_is_safe(tmp_path: Path) -> None:
    texts = [text(3), text(0), "<script>alert(1)</script> & so on.\nShe is given poison & <b>rest</b>."]
    predict(write_texts(tmp_path / "notes.csv", texts), "--html", "page.html")
    page = Path("page.html").read_text(encoding="utf-8")
    assert "<mark>She is given <b>poison</b>.</mark> She improves." in page
    assert page.count("<article") == 2
    assert "<ins>aspirin</ins>" in page
    assert "P(error) 0.897, threshold 0.5" in page
    assert "Not a medical device" in page
    assert "<script" not in page and "&lt;script&gt;alert(1)&lt;/script&gt; &amp; so on.\n<mark>" in page
    assert not re.search(r"(src|href)\s*=|url\(|@import|https?:", page)
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page


def test_the_page_marks_the_sentence_that_the_source_numbers(tmp_path: Path) -> None:
    sentences = ["Seen by Dr. A. She has fever.", "She is given poison. She improves."]
    note = {"id": "a", "text": " ".join(sentences), "sentences": sentences}
    (tmp_path / "numbered.jsonl").write_text(json.dumps(note) + "\n", encoding="utf-8")
    (row,) = predict(tmp_path / "numbered.jsonl", "--html", "page.html")
    assert (row["sentence"], row["sentence_text"]) == (1, sentences[1])
    marked = f"{sentences[0]}\n<mark>She is given <b>poison</b>. She improves.</mark></div>"
    assert marked in Path("page.html").read_text(encoding="utf-8")


def test_help_shows_the_settings_that_concern_it(capsys: pytest.CaptureFixture[str]) -> None:
    main(["predict", "--help"])
    shown = capsys.readouterr().out
    for flag in ("--run", "--threshold", "--output", "--sort", "--html", "--model", "--note-column", "--prompts"):
        assert flag in shown
    for flag in ("--lora-rank", "--kl-coef", "--label-column", "--rollout-batch-size", "--temperature", "--resume"):
        assert flag not in shown


# -- from Python -------------------------------------------------------------------------------------------


def test_an_assessor_judges_texts_and_plays(finder: type[Finder]) -> None:
    with Assessor(Settings(engine="scripted", adapter="none")) as assessor:
        ill, well, nothing = assessor.judge(["She is given poison.", "She is well.", " "])
        episode = assessor.play("She is well and walks a mile.", "benign")
    assert [ill.note_id, well.note_id, nothing.note_id] == ["note-1", "note-2", "note-3"]
    assert (ill.flagged, well.flagged, nothing.reason) == (True, False, "no text")
    assert episode.mode == "benign" and episode.attempts


def test_what_no_game_can_be_played_on_is_refused() -> None:
    assessor = Assessor(Settings(engine="scripted", adapter="none"))
    for note, mode, what in (("She is well.", "easy", "mode"), (" ", "error", "no correct text")):
        with pytest.raises(MedSeRLError, match=what):
            assessor.play(note, mode)  # type: ignore[arg-type]


def test_notes_of_a_file_and_texts_are_judged_alike(notes: Path) -> None:
    with Assessor(Settings(engine="scripted", adapter="none")) as assessor:
        by_file = assessor.judge(read_notes(notes).notes)
        by_text = assessor.judge([text(number) for number in range(COUNT)])
    assert [one.p_error for one in by_file] == [one.p_error for one in by_text]
