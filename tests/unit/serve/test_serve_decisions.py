"""The file of decisions: one row a note, at once on the disk, taken by --prompt-data as it is."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from medserl.config import Settings
from medserl.data.readers import read_notes
from medserl.data.sources import run_data
from medserl.errors import DataError, OutputError
from medserl.serve.decisions import Decision, DecisionFile
from tests.killed import killed_at


def reject(note_id: str, text: str = "He is well.", **more: str) -> Decision:
    return Decision(note_id=note_id, decision="reject", correct_note=text, **more)


def accept(note_id: str) -> Decision:
    return Decision(
        note_id=note_id,
        decision="accept",
        correct_note=f"{note_id}: he takes aspirin.",
        incorrect_note=f"{note_id}: he takes lithium.",
        error_type="pharmacotherapy",
        error_sentence_id=0,
        corrected_sentence=f"{note_id}: he takes aspirin.",
    )


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_decision_is_a_private_line_at_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "d.jsonl"
    file = DecisionFile.open(path)
    assert not path.exists()
    for note_id in ("a", "b"):
        file.record(reject(note_id, comment="why not"))
        assert rows(path)[-1]["note_id"] == note_id
    assert [row["comment"] for row in rows(path)] == ["why not"] * 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    file.close()


def test_a_later_decision_on_a_note_takes_the_place_of_the_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    file = DecisionFile.open(path)
    for decision in (reject("a"), reject("b"), accept("a")):
        file.record(decision)
    assert [(row["note_id"], row["decision"]) for row in rows(path)] == [("a", "accept"), ("b", "reject")]
    file.withdraw("a")
    file.withdraw("never there")
    assert [row["note_id"] for row in rows(path)] == ["b"]
    assert len(file) == 1
    file.close()


def test_decisions_are_there_again_when_the_file_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    file = DecisionFile.open(path)
    file.record(accept("a"))
    file.close()
    again = DecisionFile.open(path)
    assert again.of("a") == accept("a")
    again.close()


def test_the_decisions_are_training_notes_without_a_flag_more(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    file = DecisionFile.open(path)
    file.record(accept("pair"))
    file.record(reject("right"))
    file.record(Decision(note_id="wrong", decision="accept", incorrect_note="He takes lithium for it."))
    file.record(Decision(note_id="asked", decision=None, comment="?", commented_note="He may be well."))
    file.close()
    loaded = read_notes(path)
    assert [(note.note_id, note.is_pair, note.labelled) for note in loaded.notes] == [
        ("pair", True, True),
        ("right", False, True),
        ("wrong", False, True),
    ]
    pair, right, wrong = loaded.notes
    assert pair.error_type == "pharmacotherapy"
    assert right.correct_note == "He is well."
    assert (wrong.correct_note, wrong.incorrect_note) == (None, "He takes lithium for it.")
    assert "1 x no text" in loaded.skipped_summary()
    data = run_data(Settings(prompt_data=str(path), engine="scripted", validation_data="none"))
    assert len(data.train.notes) == 3


def test_a_second_writer_is_refused_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    first = DecisionFile.open(path)
    with pytest.raises(OutputError, match=r"another `medserl serve` writes to this file"):
        DecisionFile.open(path)
    (tmp_path / "link.jsonl").symlink_to(path)
    with pytest.raises(OutputError, match=r"another `medserl serve`"):
        DecisionFile.open(tmp_path / "link.jsonl")
    first.close()
    DecisionFile.open(path).close()


@pytest.mark.parametrize(
    "content",
    [
        '{"note_id": "a", "correct_note": "He is well."}\n',
        '{"note_id": "a", "decision": "accept", "more": 1}\n',
        '{"note_id": "a", "decision": "perhaps"}\n',
        '{"note_id": 7, "decision": "accept"}\n',
        "note_id,note\na,He is well.\n",
        "[" * 10_000 + "\n",
    ],
)
def test_a_file_of_another_kind_is_refused_and_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"d\.jsonl, line 1: not a decision of a review"):
        DecisionFile.open(path)
    assert path.read_text(encoding="utf-8") == content
    path.unlink()
    DecisionFile.open(path).close()  # nobody holds it after a refusal


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="it is a folder"):
        DecisionFile.open(tmp_path)


def test_half_a_line_of_a_killed_writer_is_dropped_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "d.jsonl"
    whole = reject("a").model_dump_json() + "\n"
    path.write_text(whole + whole[:40], encoding="utf-8")
    file = DecisionFile.open(path)
    assert len(file) == 1
    assert "the last line is incomplete" in caplog.text
    file.record(reject("b"))
    assert [row["note_id"] for row in rows(path)] == ["a", "b"]
    file.close()


def test_of_two_rows_on_a_note_the_later_one_counts_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text("".join(f"{each.model_dump_json()}\n" for each in (reject("a"), accept("a"))), encoding="utf-8")
    file = DecisionFile.open(path)
    assert [row["decision"] for row in rows(path)] == ["accept"]
    file.close()


def test_a_file_that_was_deleted_meanwhile_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    file = DecisionFile.open(path)
    file.record(reject("a"))
    path.unlink()
    file.record(reject("b"))
    assert [row["note_id"] for row in rows(path)] == ["a", "b"]
    file.close()


def test_a_kill_at_any_change_of_the_disk_loses_no_decision_that_was_answered(tmp_path: Path) -> None:
    """Three decisions, one of them anew; killed at each change in turn. What was recorded before is there."""

    def review(folder: Path, answered: list[str]) -> None:
        file = DecisionFile.open(folder / "d.jsonl")
        for decision in (reject("a"), reject("b"), accept("a")):
            file.record(decision)
            answered.append(f"{decision.note_id} {decision.decision}")

    (tmp_path / "counted").mkdir()
    with killed_at(tmp_path / "counted") as disk:
        review(tmp_path / "counted", [])
    assert disk.changes > 6
    for change in range(1, disk.changes + 1):
        folder, answered = tmp_path / str(change), []
        folder.mkdir()
        with killed_at(folder, change):
            review(folder, answered)
        again = DecisionFile.open(folder / "d.jsonl")
        kept = {row.note_id: f"{row.note_id} {row.decision}" for row in again.rows()}
        for said in answered:
            note_id = said.split()[0]
            assert kept.get(note_id) in ({said, "a accept"} if note_id == "a" else {said})  # the next may be there too
        again.close()
