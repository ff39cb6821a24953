"""MEDEC's files: converted split by split, duplicates told, and fetched from a server with checksums."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from medserl.data import medec
from medserl.data.medec import CHECKSUMS, PublishedFile, convert_medec, download_medec, fetch_medec
from medserl.data.readers import read_notes
from medserl.data.writing import note_row
from medserl.errors import DataError, OutputError
from medserl.game.note import Note

HEADER = (
    *("Text ID", "Text", "Sentences", "Error Flag", "Error Type", "Error Sentence ID"),
    *("Error Sentence", "Corrected Sentence", "Corrected Text"),
)
VALIDATION_CSV = "MEDEC-MS-ValidationSet-with-GroundTruth-and-ErrorType.csv"


def pair(note_id: str, topic: str) -> tuple[str, ...]:
    wrong, right = f"{topic}: is ill.", f"{topic}: is well."
    return (note_id, wrong, f"0 {wrong}", "1", "Diagnosis", "0", wrong, right, right)


def clean(note_id: str, text: str) -> tuple[str, ...]:
    return (note_id, text, f"0 {text}", "0", "NA", "-1", "NA", "NA", "NA")


def write_csv(path: Path, *rows: tuple[str, ...], header: tuple[str, ...] = HEADER) -> Path:
    out = io.StringIO(newline="")
    csv.writer(out).writerows([header, *rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(out.getvalue().encode("utf-8"))
    return path


# -- conversion ------------------------------------------------------------------------------------------


def test_every_split_is_written_and_read_back_alike(tmp_path):
    source, out = tmp_path / "MEDEC", tmp_path / "data"
    train = write_csv(source / "MEDEC-MS/MEDEC-Full-TrainingSet-with-ErrorType.csv", pair("t1", "Ann"))
    write_csv(source / "MEDEC-MS" / VALIDATION_CSV, clean("v1", "Ben: is ≥ 40, \u2028 â‰¥."), pair("v2", "Bo"))
    write_csv(source / "MEDEC-UW-ValidationSet.csv", pair("u1", "Cy"))
    write_csv(
        source / "MEDEC-MS/MEDEC-MS-TestSet-with-GroundTruth-and-ErrorType.csv",
        *(clean("x1", "Di: is in."), ("x2",) + ("",) * 8, ("",) * 9),
    )
    report = convert_medec(source, out)

    assert [part.split for part in report.splits] == ["train", "validation", "test"]
    assert [(part.pairs, part.correct, len(part.skipped)) for part in report.splits] == [
        (1, 0, 0),
        (2, 1, 0),
        (0, 1, 2),
    ]
    assert report.left_out == report.shared == ()
    assert sorted(path.name for path in out.iterdir()) == [
        *("medec_test.jsonl", "medec_train.jsonl", "medec_validation.jsonl")
    ]
    (note,) = read_notes(out / "medec_train.jsonl").notes
    (published,) = read_notes(train).notes
    assert note == Note(**{**vars(published), "split": "train"})
    validation = read_notes(out / "medec_validation.jsonl").notes
    assert [note.note_id for note in validation] == ["v1", "v2", "u1"]
    assert validation[0] == Note(
        *("v1", "Ben: is ≥ 40, \u2028 â‰¥."), sentences=("Ben: is ≥ 40, \u2028 â‰¥.",), split="validation"
    )


def test_a_correct_note_is_written_without_the_fields_it_lacks():
    assert note_row(Note("v1", "Well.", sentences=("Well.",), split="train")) == {
        **{"note_id": "v1", "correct_note": "Well.", "sentences": ["Well."], "split": "train"}
    }


def test_the_report_names_skipped_rows_and_missing_splits(tmp_path):
    path = write_csv(tmp_path / "MS-TrainingSet.csv", pair("t1", "Ann"), ("t2",) + ("",) * 8)
    write_csv(tmp_path / "notes.csv", clean("n1", "Ben."))
    out = tmp_path / "out"
    assert convert_medec(tmp_path, out).lines() == [
        f"{out / 'medec_train.jsonl'}: 1 pairs, 0 correct notes, 1 rows skipped (from MS-TrainingSet.csv)",
        f"  skipped: {path}, line 3: no text",
        "validation: no file for it in the source",
        "test: no file for it in the source",
        f"left out: {tmp_path / 'notes.csv'} (its name does not say train, validation or test)",
        "texts that stand in more than one split: 0",
    ]


def test_texts_in_two_splits_are_told_with_their_ids(tmp_path):
    write_csv(
        tmp_path / "train.csv",
        pair("t1", "Ann"),
        clean("t2", "Ben: no fever."),
        clean("t3", "Ben: no fever."),
    )
    write_csv(tmp_path / "valid.csv", clean("v1", "ANN, is  well"), pair("v2", "Cy"))
    write_csv(tmp_path / "test.csv", clean("x1", "ben: No fever!"), pair("x2", "Ann"))
    report = convert_medec(tmp_path, tmp_path)
    assert {text.holders for text in report.shared} == {
        (("train", "t1"), ("validation", "v1"), ("test", "x2")),  # Ann is well
        (("train", "t1"), ("test", "x2")),  # Ann is ill
        (("train", "t2"), ("train", "t3"), ("test", "x1")),
    }
    assert "  same text: t2 (train), t3 (train), x1 (test)" in report.lines()


def test_the_pairs_stand_in_for_the_training_csv(tmp_path):
    row = {"note_id": "t1", "correct_note": "Is well.", "incorrect_note": "Is ill.", "split": None}
    pairs = tmp_path / "medec_ms_train_pairs.jsonl"
    pairs.write_text(json.dumps(row) + "\n", encoding="utf-8")
    convert_medec(tmp_path, tmp_path / "a")
    assert read_notes(tmp_path / "a/medec_train.jsonl").notes == (Note("t1", "Is well.", "Is ill.", split="train"),)
    write_csv(tmp_path / "train.csv", pair("t1", "Ann"))
    report = convert_medec(tmp_path, tmp_path / "b")
    assert report.left_out == (f"{pairs} (the training CSV holds its pairs)",)
    assert read_notes(tmp_path / "b/medec_train.jsonl").notes[0].correct_note == "Ann: is well."


def test_the_same_file_twice_counts_once_and_equal_ids_are_told_apart(tmp_path):
    first = write_csv(tmp_path / "train.csv", pair("1", "Ann"))
    copy = write_csv(tmp_path / "zz-copy/train.csv", pair("1", "Ann"))
    write_csv(tmp_path / "train-uw.csv", pair("1", "Ben"))
    report = convert_medec(tmp_path, tmp_path)
    kept, left = sorted([first, copy])
    assert report.left_out == (f"{left} (the same file as {kept})",)
    assert [note.note_id for note in read_notes(tmp_path / "medec_train.jsonl").notes] == ["1", "1#2"]


def test_converting_again_replaces_and_a_broken_source_changes_nothing(tmp_path):
    write_csv(tmp_path / "train.csv", pair("t1", "Ann"))
    convert_medec(tmp_path, tmp_path)
    before = (tmp_path / "medec_train.jsonl").read_bytes()
    assert (tmp_path / "medec_train.jsonl").stat().st_mode & 0o777 == 0o600  # notes are their owner's alone
    convert_medec(tmp_path, tmp_path)
    assert (tmp_path / "medec_train.jsonl").read_bytes() == before
    write_csv(tmp_path / "train.csv", pair("t2", "Ben"))
    (tmp_path / "valid.csv").write_text('Text ID,Text\n1,"never closed\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"valid\.csv, line 2: broken CSV"):
        convert_medec(tmp_path, tmp_path)
    assert (tmp_path / "medec_train.jsonl").read_bytes() == before


def test_what_systems_keep_beside_the_files_is_left_out_and_said(tmp_path):
    write_csv(tmp_path / "MEDEC/TRAIN.CSV", pair("t1", "Ann"))
    (tmp_path / "MEDEC/._TRAIN.CSV").write_bytes(b"\x00\x05\x16\x07")
    report = convert_medec(tmp_path, tmp_path / "out")
    assert [part.pairs for part in report.splits] == [1]
    assert report.left_out == (f"{tmp_path / 'MEDEC/._TRAIN.CSV'} (what a system keeps beside the real file)",)


def test_sources_that_cannot_be_used(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        convert_medec(tmp_path / "nowhere", tmp_path)
    with pytest.raises(DataError, match="no MEDEC file there"):
        convert_medec(tmp_path, tmp_path)
    write_csv(tmp_path / "train.csv", ("1", "Pain."), header=("id", "Text"))
    with pytest.raises(DataError, match="no column 'Text ID'; it has 'id', 'Text'"):
        convert_medec(tmp_path, tmp_path)


def test_an_output_that_cannot_be_written(tmp_path):
    write_csv(tmp_path / "train.csv", pair("t1", "Ann"))
    (tmp_path / "out/medec_train.jsonl").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"cannot be written: "):
        convert_medec(tmp_path, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["medec_train.jsonl"]  # no temporary file stays


def test_the_published_files_as_far_as_they_are_here(medec_dir, tmp_path):
    train, validation = convert_medec(medec_dir, tmp_path).splits[:2]
    assert (train.pairs, train.correct, train.uncorrected, train.skipped) == (1219, 0, 0, ())
    assert (validation.pairs, validation.correct, validation.uncorrected, validation.skipped) == (
        319,
        255,
        0,
        (),
    )
    published = read_notes(medec_dir / VALIDATION_CSV).notes
    converted = read_notes(validation.path).notes
    assert converted == tuple(Note(**{**vars(note), "split": "validation"}) for note in published)


# -- fetching --------------------------------------------------------------------------------------------


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def published(tmp_path, monkeypatch) -> Path:
    """A folder as published: the validation file's checksum is known, the training file's is not."""
    monkeypatch.setenv("no_proxy", "*")
    folder = tmp_path / "published"
    write_csv(folder / "train.csv", pair("t1", "Ann"), clean("t2", "Ben."), ("t3",) + ("",) * 8)
    valid = write_csv(folder / "valid.csv", clean("v1", "Cy."))
    known = hashlib.sha256(valid.read_bytes()).hexdigest()
    monkeypatch.setattr(medec, "PUBLISHED", (PublishedFile("train.csv", 2), PublishedFile("valid.csv", 1, known)))
    return folder


@pytest.fixture
def base_url(published) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_QuietHandler, directory=str(published))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_fetching_downloads_and_converts(base_url, tmp_path):
    report = fetch_medec(tmp_path / "data", base_url)
    assert [(part.split, part.pairs, part.correct) for part in report.splits] == [("train", 1, 1), ("validation", 0, 1)]
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [
        *("medec_ms", "medec_train.jsonl", "medec_validation.jsonl")
    ]


def test_downloaded_files_are_the_published_ones(published, base_url, tmp_path):
    folder = tmp_path / "fetched"
    paths = download_medec(folder, base_url)
    assert [path.read_bytes() for path in paths] == [
        *((published / "train.csv").read_bytes(), (published / "valid.csv").read_bytes())
    ]
    sums = dict(line.split("  ")[::-1] for line in (folder / CHECKSUMS).read_text().splitlines())
    assert sums == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def test_files_that_are_there_are_checked_without_the_network(published, base_url, tmp_path):
    download_medec(tmp_path / "fetched", base_url)
    assert len(download_medec(tmp_path / "fetched", "http://127.0.0.1:9/nobody")) == 2


@pytest.mark.parametrize(("name", "known"), [("train.csv", "recorded in"), ("valid.csv", "published")])
def test_a_file_that_changed_is_refused(published, base_url, tmp_path, name, known):
    download_medec(tmp_path / "fetched", base_url)
    with (tmp_path / "fetched" / name).open("a", encoding="utf-8") as file:
        file.write("\n")
    with pytest.raises(DataError, match=f"{name}: its SHA-256 .* is not the one {known}.*delete it to fetch it again"):
        download_medec(tmp_path / "fetched", base_url)


def test_a_file_of_unknown_checksum_must_have_the_texts_and_columns(published, base_url, tmp_path):
    write_csv(published / "train.csv", pair("t1", "Ann"))
    with pytest.raises(DataError, match=r"train.csv: not as published: 1 texts instead of 2"):
        download_medec(tmp_path / "fetched", base_url)
    write_csv(published / "train.csv", ("t1", "Ann."), header=HEADER[:2])
    with pytest.raises(DataError, match=r"train.csv: not as published: no column 'Error Flag'"):
        download_medec(tmp_path / "fetched", base_url)
    assert not (tmp_path / "fetched" / "train.csv").exists()


def test_offline_says_what_to_do(published, tmp_path):
    with pytest.raises(DataError, match=r"cannot download http://127.0.0.1:9/train.csv \(.*refused.*by hand.*--source"):
        download_medec(tmp_path / "fetched", "http://127.0.0.1:9")


def test_a_file_that_is_gone_says_so(published, base_url, tmp_path):
    (published / "train.csv").unlink()
    with pytest.raises(DataError, match=r"cannot download .*/train.csv \(.*404.*File not found\); download by hand"):
        download_medec(tmp_path / "fetched", base_url)


def test_a_broken_list_of_checksums_is_refused(published, base_url, tmp_path):
    (tmp_path / CHECKSUMS).write_text("hello\n", encoding="utf-8")
    with pytest.raises(DataError, match="SHA256SUMS, line 1: no checksum and file name"):
        download_medec(tmp_path, base_url)


def test_the_validation_sets_checksum_is_the_one_we_ship(medec_dir):
    (known,) = (file for file in medec.PUBLISHED if file.name == VALIDATION_CSV)
    assert hashlib.sha256((medec_dir / VALIDATION_CSV).read_bytes()).hexdigest() == known.sha256
