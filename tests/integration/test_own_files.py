"""A newcomer's files: an Excel export, a folder of EHR texts and labelled JSON Lines train and are judged, each with
one flag at most; what cannot be scored is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from medserl.cli import main

SENTENCES = [f"A {50 + i}-year-old man has fever and cough. He takes drug {i}, 5 mg daily." for i in range(24)]


def excel_export(folder: Path) -> str:
    """As Excel in German, French and others saves CSV: semicolons, Windows-1252 or UTF-8 with a mark, CRLF."""
    path = folder / "Export.CSV"
    rows = [f'{i};"Patient’s note; {text}";' for i, text in enumerate(SENTENCES)]
    path.write_bytes("\r\n".join(["ID;Text;", *rows, ""]).encode("cp1252"))
    return str(path)


def workbook(folder: Path) -> str:
    from openpyxl import Workbook

    book = Workbook()
    for row in (["ID", "Text"], *enumerate(SENTENCES)):
        book.active.append(list(row))
    book.save(folder / "Export.xlsx")
    return str(folder / "Export.xlsx")


def ehr_folder(folder: Path) -> str:
    (folder / "ehr").mkdir()
    for i, text in enumerate(SENTENCES):
        (folder / f"ehr/{i}.txt").write_text(text.replace(". ", ".\n"), encoding="utf-8")
    (folder / "ehr/._0.txt").write_bytes(b"\0")
    return str(folder / "ehr")


def labelled_jsonl(folder: Path) -> str:
    path = folder / "labelled.jsonl"
    rows = [{"text": text, "label": int(i % 3 == 0)} for i, text in enumerate(SENTENCES * 2)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


TRAIN = ["train", "--engine", "scripted", "--no-tensorboard", "--rollout-batch-size", "4", "--max-rounds", "1"]


@pytest.mark.parametrize(
    ("make", "flags"),
    [(excel_export, []), (workbook, []), (ehr_folder, []), (labelled_jsonl, ["--label-column", "label"])],
    ids=["excel", "xlsx", "ehr", "labelled"],
)
def test_own_files_train_with_one_flag_at_most(tmp_path: Path, make: Callable[[Path], str], flags: list[str]) -> None:
    run = tmp_path / "run"
    main([*TRAIN, "--prompt-data", make(tmp_path), *flags, "--output-dir", str(run)])
    notes = json.loads((run / "provenance.json").read_text(encoding="utf-8"))["notes"]
    assert notes["validation"].startswith("split of ") and len(notes["held_out"]) >= 5
    played = [json.loads(line) for line in (run / "episodes.jsonl").read_text(encoding="utf-8").splitlines()]
    assert played and not {game["note_id"] for game in played} & set(notes["held_out"])
    (first, *_) = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (first.get("eval_accuracy") is not None) == (make is labelled_jsonl)  # nothing is scored without labels


def test_a_run_goes_on_with_the_notes_it_held_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, source = tmp_path / "run", excel_export(tmp_path)
    main([*TRAIN, "--prompt-data", source, "--output-dir", str(run)])
    main(["train", "--resume", str(run), "--max-rounds", "2"])
    assert len((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()) == 3  # rounds 0 to 2
    record = run / "provenance.json"
    record.write_text(record.read_text(encoding="utf-8").replace('"held_out": [', '"held_out": ["another",'), "utf-8")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["train", "--resume", str(run), "--max-rounds", "3"])
    assert "held_out of the notes is not what the run began with" in " ".join(capsys.readouterr().err.split())


def test_labelled_notes_are_judged_with_one_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside a run on other notes: the flag that names the labels is not about the run's own file."""
    run, judged = tmp_path / "run", labelled_jsonl(tmp_path)
    main([*TRAIN, "--prompt-data", excel_export(tmp_path), "--output-dir", str(run)])
    capsys.readouterr()
    main(["evaluate", "--run", str(run), "--compare", "warmup", "--data", judged, "--label-column", "label"])
    said = capsys.readouterr()
    assert "48 texts of labelled.jsonl (16 with an error)" in " ".join(said.out.split())
    assert "labels in 'label': 1 is an error" in " ".join(said.err.split())


@pytest.mark.parametrize("make", [excel_export, ehr_folder])
def test_notes_without_labels_are_not_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], str]
) -> None:
    out = tmp_path / "eval"
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", "--engine", "scripted", "--data", make(tmp_path), "--output", str(out)])
    assert stopped.value.code == 2
    line = " ".join(capsys.readouterr().err.split())
    assert "24 notes without a label, and without labels there is nothing to score" in line
    assert "--label-column" in line
    assert not out.exists()


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import os

    os.mkfifo(tmp_path / "notes.csv")
    with pytest.raises(SystemExit):
        main([*TRAIN, "--prompt-data", str(tmp_path / "notes.csv"), "--output-dir", str(tmp_path / "run")])
    assert "a pipe, not a file" in " ".join(capsys.readouterr().err.split())
