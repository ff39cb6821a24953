"""Where output goes, and what comes in by a pipe: one line where it cannot be, and nothing is overwritten."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from medserl import commands, sft
from medserl.cli import main
from medserl.runs.runlog import RunFolder
from tests.synthetic_run import write_run

NOTE = "He has fever for three days. He takes aspirin daily."


def error_line(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(list(map(str, arguments)))
    assert stopped.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


# -- outputs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ["data", "sample", "--output"],
        ["evaluate", "--engine", "scripted", "--output"],
        ["sft", "--output"],
        ["train", "--engine", "scripted", "--output-dir"],
        ["pipeline", "--engine", "scripted", "--run"],
    ],
    ids=lambda command: command[0] + command[1],
)
def test_a_file_in_the_place_of_a_folder(
    command: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "notes.jsonl"
    file.write_text("precious", encoding="utf-8")
    assert str(file) in error_line(capsys, *command, file)
    assert file.read_text(encoding="utf-8") == "precious"


def test_a_report_does_not_take_the_place_of_other_files(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    before = (run / "metrics.jsonl").read_bytes()
    assert "metrics.jsonl" in error_line(capsys, "report", run, "--output", run / "metrics.jsonl")
    assert "folder" in error_line(capsys, "report", run, "--output", run)
    assert (run / "metrics.jsonl").read_bytes() == before
    for _ in range(2):
        main(["report", str(run), "--output", str(tmp_path / "own.html")])


def test_seeds_do_not_take_the_place_of_an_evaluation(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in ("a/eval", "b"):
        (tmp_path / name).mkdir(parents=True)
    for output in (tmp_path / "a/eval", tmp_path / "b", tmp_path / "b/../b"):
        assert "one of the evaluations" in error_line(
            capsys, "seeds", tmp_path / "a", tmp_path / "b", "--output", output
        )


def test_a_warm_up_without_validation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No notes to measure on are read, and nothing is measured."""
    called = []
    monkeypatch.setattr(commands, "run_warm_up", lambda *given: called.append(given))
    main(["sft", "--validation-data", "none", "--output", str(tmp_path / "adapter")])
    ((_, pairs, plan, _, judge),) = called
    assert len(pairs) > 100 and judge is None and plan == sft.WarmUp()


def test_a_line_of_the_log_cannot_be_forged(tmp_path: Path) -> None:
    values = {"round": 1, "a b": "x y=9\nround=99 mean_reward=1", "\x1b[31m": "\u2028"}
    with_settings = commands.Settings(output_dir=str(tmp_path / "run"), tensorboard=False)
    run = RunFolder.create(with_settings)
    run.log_round(values, [])
    run.close()
    (line,) = (tmp_path / "run/logs/train.log").read_text(encoding="utf-8").splitlines()
    assert [word.partition("=")[0] for word in line.split(" ")[1:]] == ["round", "a_b", r"\x1b[31m"]


# -- standard input ---------------------------------------------------------------------------------------------


def with_input(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="ascii"))


def test_a_note_out_of_a_pipe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with_input(monkeypatch, f"{NOTE} Température 38 °C.\n".encode())
    main(["play", "--engine", "scripted", "--note", "-"])
    assert "Température 38 °C." in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe\xff"])
def test_a_pipe_without_a_note(
    content: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_input(monkeypatch, content)
    assert "note -" in error_line(capsys, "play", "--engine", "scripted", "--note", "-")
    monkeypatch.setattr(sys, "stdin", None)
    assert "closed" in error_line(capsys, "play", "--engine", "scripted", "--note", "-")


def test_a_hostile_note_is_shown_as_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with_input(monkeypatch, f"\x1b]0;owned\x07[red]{NOTE}[/red] \x1b]8;;http://x\x1b\\link \u202e \x9b2J".encode())
    main(["play", "--engine", "scripted", "--note", "-"])
    shown = "".join(capsys.readouterr())
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(shown)
    assert "[red]" in shown and r"\x1b]0;owned" in shown
