"""Evaluations that must not mislead or be lost: other data in one run, notes trained on, one class, odd ids."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medserl.cli import main
from medserl.errors import ModelError
from medserl.evaluation import systems
from medserl.evaluation.places import give_up
from medserl.evaluation.submission import read_submission
from medserl.game.episode import Completion
from tests.poisonings import PAIRS, Reader, record, write_notes


def evaluate(data: Path, train: Path, *flags: object) -> None:
    main(["evaluate", "--data", str(data), "--prompt-data", str(train), "--compare", "base", *map(str, flags)])


def refused(capsys: pytest.CaptureFixture[str], data: Path, train: Path, *flags: object) -> str:
    with pytest.raises(SystemExit) as stopped:
        evaluate(data, train, *flags)
    assert stopped.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.fixture
def train(tmp_path: Path) -> Path:
    return write_notes(tmp_path / "train.jsonl", 300)


def test_no_evaluation_of_a_run_overwrites_another(tmp_path: Path, train: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.toml").write_text(f'prompt_data = "{train}"\n', encoding="utf-8")
    first = write_notes(tmp_path / "first.jsonl", 0)
    other = write_notes(tmp_path / "other notes.jsonl", 100)
    evaluate(first, train, "--run", run)
    kept = (run / "eval" / "table.json").read_bytes()
    evaluate(other, train, "--run", run)
    evaluate(other, train, "--run", run, "--published-only")
    evaluate(first, train, "--run", run)
    assert (run / "eval" / "table.json").read_bytes() == kept
    folders = [path for path in (run / "eval").iterdir() if path.is_dir()]
    assert len(folders) == 2
    assert all(path.name.startswith("other_notes-") for path in folders)
    counts = {json.loads((path / "evaluation.json").read_text())["texts"]["n"] for path in folders}
    assert counts == {2 * PAIRS + 4, PAIRS + 4}


def test_a_folder_named_by_hand_is_never_overwritten(
    tmp_path: Path, train: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write_notes(tmp_path / "first.jsonl", 0)
    evaluate(first, train, "--output", tmp_path / "out")
    kept = (tmp_path / "out" / "table.json").read_bytes()
    other = write_notes(tmp_path / "other.jsonl", 100)
    assert "holds an evaluation of other texts, systems or options" in refused(
        capsys, other, train, "--output", tmp_path / "out"
    )
    assert (tmp_path / "out" / "table.json").read_bytes() == kept


def test_a_model_that_is_refused_keeps_no_folder(
    tmp_path: Path, train: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    notes, output = write_notes(tmp_path / "first.jsonl", 0), ("--output", tmp_path / "out")

    def refuse(_: Any) -> Any:
        raise ModelError("no such model")

    with monkeypatch.context() as patch:
        patch.setattr(systems, "create_inference_engine", refuse)
        assert "no such model" in refused(capsys, notes, train, *output)
    assert not (tmp_path / "out").exists()
    evaluate(notes, train, *output, "--seed", "7")
    finished = sorted(path.name for path in (tmp_path / "out").iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(systems, "create_inference_engine", refuse)
        assert "no such model" in refused(capsys, notes, train, *output, "--seed", "7")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == finished


def test_files_of_an_evaluation_are_private(tmp_path: Path, train: Path) -> None:
    evaluate(write_notes(tmp_path / "first.jsonl", 0), train, "--output", tmp_path / "out")
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")} == {
        0
    }


def test_judged_notes_that_were_trained_on_are_counted_and_tfidf_is_left_out(tmp_path: Path, train: Path) -> None:
    notes = train.read_text().splitlines()[:3]
    notes += write_notes(tmp_path / "new.jsonl", 0).read_text().splitlines()[:5]
    shouted = json.loads(notes[0])  # the same note to the game: case, space and punctuation aside
    shouted |= {key: f"  {shouted[key].upper()} !" for key in ("correct_note", "incorrect_note")}
    (tmp_path / "mixed.jsonl").write_text("\n".join([json.dumps(shouted), *notes[1:]]) + "\n")
    evaluate(tmp_path / "mixed.jsonl", train, "--output", tmp_path / "out")
    text = (tmp_path / "out" / "table.md").read_text()
    assert "- not held-out: 3 of the 8 judged notes are among the 16 of train.jsonl (ms-300, ms-301, ms-302)." in text
    assert (
        "- tf-idf is left out: it would be fitted on the texts of train.jsonl, and judged notes are among them." in text
    )
    assert "| tf-idf" not in text
    evaluate(tmp_path / "new.jsonl", train, "--output", tmp_path / "new")
    text = (tmp_path / "new" / "table.md").read_text()
    assert "- held-out: none of the 16 judged notes is among the 16 of train.jsonl." in text
    assert "| tf-idf" in text


def test_gold_pairs_of_a_run_are_no_held_out_notes(tmp_path: Path, train: Path) -> None:
    run, gold = tmp_path / "run", write_notes(tmp_path / "gold.jsonl", 0)
    run.mkdir()
    named = f'prompt_data = "{train}"\ngold_data = "{gold}"\nsft_verdict_pairs = 1\n'
    (run / "config.toml").write_text(named, encoding="utf-8")
    evaluate(gold, train, "--run", run)
    text = (run / "eval" / "table.md").read_text()
    assert "- not held-out: 16 of the 16 judged notes are among the 32 of train.jsonl and gold.jsonl" in text


def test_pairs_alone_are_scored_officially_on_both_twins(tmp_path: Path, train: Path) -> None:
    notes = [json.dumps(record(i, True, "ms")) for i in range(30, 42)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(notes))
    evaluate(tmp_path / "pairs.jsonl", train, "--output", tmp_path / "out")
    text = (tmp_path / "out" / "table.md").read_text()
    assert "## Official scores (MEDIQA-CORR 2024), 24 texts, both twins of each pair" in text
    rows = json.loads((tmp_path / "out" / "table.json").read_text())
    flags = {row["system"]: row["value"] for row in rows if row["figure"] == "flag accuracy"}
    assert flags["always-incorrect"] == flags["always-correct"] == flags["coin"] == 0.5
    assert flags["base"] == 1.0
    assert len((tmp_path / "out" / "base.submission.txt").read_text().splitlines()) == 24


def test_texts_of_one_class_have_no_accuracy_and_no_flag_accuracy(tmp_path: Path, train: Path) -> None:
    notes = [json.dumps(record(i, True, "ms")) for i in range(30, 42)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(notes))
    evaluate(tmp_path / "pairs.jsonl", train, "--published-only", "--output", tmp_path / "out")
    figures = {row["figure"] for row in json.loads((tmp_path / "out" / "table.json").read_text())}
    assert not figures & {"accuracy", "f1", "flag accuracy"}
    assert "recall" in figures
    text = (tmp_path / "out" / "table.md").read_text()
    assert "all 12 texts have an error: accuracy and F1 are left out, because always INCORRECT gets 100 %." in text
    assert "left out: flag accuracy (all 12 texts have an error" in text
    assert "better" not in text


@pytest.mark.parametrize("name", ["notes.jsonl", "my notes.jsonl"])
def test_ids_with_white_space_are_judged_and_can_be_scored_again(
    tmp_path: Path, train: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = [record(i, i % 2 == 0, "ms") for i in range(30, 38)]
    for i, note in enumerate(notes):
        del note["note_id"]
        if name == "notes.jsonl":
            note["note_id"] = f"patient {i}\u00a0100%"
    (tmp_path / name).write_text("\n".join(json.dumps(note) for note in notes))
    evaluate(tmp_path / name, train, "--output", tmp_path / "out", "--published-only")
    if name == "notes.jsonl":  # ids out of a file's name have no white space
        assert "hold white space or a percent sign" in " ".join(capsys.readouterr().err.split())
    submission = tmp_path / "out" / "base.submission.txt"
    assert len(read_submission(submission)) == len(notes)
    flags = ["--data", tmp_path / name, "--prompt-data", train, "--predictions", submission]
    main(["evaluate", *map(str, flags), "--output", str(tmp_path / "again")])
    made, again = (
        {
            row["figure"]: row["value"]
            for row in json.loads((tmp_path / folder / "table.json").read_text())
            if row["system"] == "base" and row["group"] == "all" and row["figure"] in ("accuracy", "recall")
        }
        for folder in ("out", "again")
    )
    assert made == again
    assert made["accuracy"] == 1.0


def test_notes_without_labels_are_not_scored(tmp_path: Path, train: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"note": record(i, False, "x")["correct_note"]} for i in range(6)]
    (tmp_path / "plain.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert "without a label" in refused(capsys, tmp_path / "plain.jsonl", train, "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_why_there_is_no_verdict_is_told(tmp_path: Path, train: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Reader):
        def generate(self, prompts: Any, sampling: Any) -> list[Completion]:
            said = super().generate(prompts, sampling)
            cut = [replace(one, finish="length") for one in said[:3]]
            return [*cut, *(replace(one, text="I cannot say.") for one in said[3:5]), *said[5:]]

    monkeypatch.setattr(systems, "create_inference_engine", Silent)
    evaluate(write_notes(tmp_path / "first.jsonl", 0), train, "--output", tmp_path / "out")
    text = (tmp_path / "out" / "table.md").read_text()
    why = "3 because the answer was cut off, 2 because no verdict could be read."
    assert f"- base: no verdict on 5 of 28 texts, which counts as wrong: {why}" in text
    counts = json.loads((tmp_path / "out" / "evaluation.json").read_text())["no_verdict"]["base"]
    assert counts == {"truncated": 3, "unreadable": 2}


def test_giving_up_a_folder_that_somebody_removed_hides_no_error(tmp_path: Path) -> None:
    give_up(tmp_path / "gone")
    assert not (tmp_path / "gone").exists()
