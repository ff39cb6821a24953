"""`medserl predict`: interrupted and gone on with, and notes longer than the model's context."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from medserl.config import Settings
from medserl.prediction.assessor import Assessor
from tests.finder import Finder
from tests.places import ROOT
from tests.predicting import COUNT, error_line, predict, rows, text, write_texts

# -- going on ----------------------------------------------------------------------------------------------


def test_an_interruption_loses_a_batch_at_most(
    notes: Path, finder: type[Finder], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(finder, "patience", 1)
    with pytest.raises(SystemExit) as stopped:
        predict(notes)
    assert stopped.value.code == 130
    assert "stopped after 64 of 70 notes: the same command goes on there" in capsys.readouterr().err
    assert not Path("out.jsonl").exists()
    monkeypatch.setattr(finder, "patience", None)
    found = predict(notes)
    assert finder.asked == [64, 6]
    assert len(found) == COUNT


def test_a_kill_loses_a_batch_at_most(notes: Path, finder: type[Finder]) -> None:
    code = (
        "import os, signal, sys, medserl.engines\nfrom tests.finder import Finder\nfrom medserl.cli import main\n"
        "class Killed(Finder):\n"
        "    def generate(self, *given):\n"
        "        if self.asked: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return super().generate(*given)\n"
        "medserl.engines.create_inference_engine = Killed\nmain(sys.argv[1:])\n"
    )
    command = [sys.executable, "-c", code, "predict", str(notes), "--output", "out.jsonl"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(predict(notes)) == COUNT
    assert finder.asked == [COUNT - 64]


def test_done_once_is_not_asked_again_whatever_the_threshold(notes: Path, finder: type[Finder]) -> None:
    predict(notes)
    assert not all(row["flagged"] for row in predict(notes, "--threshold", "0.9"))
    assert sum(finder.asked) == COUNT


def test_notes_that_were_added_are_judged_besides(
    tmp_path: Path, notes: Path, finder: type[Finder], capsys: pytest.CaptureFixture[str]
) -> None:
    predict(notes)
    write_texts(tmp_path / "notes.csv", [text(number) for number in range(COUNT + 2)])
    assert len(predict(notes)) == COUNT + 2
    assert sum(finder.asked) == COUNT + 2
    assert "2 notes are new" in capsys.readouterr().err


def test_other_notes_do_not_overwrite_predictions(
    tmp_path: Path, notes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = predict(notes)
    other = write_texts(tmp_path / "other.csv", ["She is given poison."])
    line = error_line(capsys, "predict", other, "--output", "out.jsonl")
    assert f"holds predictions of other notes ({notes})" in line
    assert rows(Path("out.jsonl")) == before


def test_another_model_does_not_overwrite_predictions(
    tmp_path: Path, notes: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = predict(notes)
    assert "by another model" in error_line(capsys, "predict", notes, "--run", run, "--output", "out.jsonl")
    assert rows(Path("out.jsonl")) == before


def test_another_model_in_unfinished_predictions_is_told(
    notes: Path, run: Path, finder: type[Finder], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(finder, "patience", 0)
    with pytest.raises(SystemExit):
        predict(notes)
    monkeypatch.setattr(finder, "patience", None)
    assert len(predict(notes, "--run", run, "--threshold", "0.5")) == COUNT
    assert "begun with predictions by another model, or to another prompt; judging anew" in capsys.readouterr().err


def test_a_file_that_is_not_ours_is_not_overwritten(notes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = notes.read_bytes()
    assert "these are the notes themselves" in error_line(capsys, "predict", notes, "--output", notes)
    Path("thesis.csv").write_text("years of work")
    assert "did not write" in error_line(capsys, "predict", notes, "--output", "thesis.csv")
    assert Path("thesis.csv").read_text() == "years of work"
    assert notes.read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (["--output", "out.txt"], "ends in .jsonl or .csv"),
        (["--output", "folder"], "ends in .jsonl or .csv"),
        (["--html", "page.pdf"], "ends in .html"),
        (["--threshold", "1.5"], "between 0 and 1"),
        (["--threshold", "nan"], "between 0 and 1"),
        (["--run", "nowhere"], "no run folder"),
        (["--sort", "name"], "--sort"),
    ],
)
def test_what_cannot_be_followed_is_one_line(
    flags: list[str], what: str, notes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("folder").mkdir()
    assert what in error_line(capsys, "predict", notes, *flags)
    assert not Path("outputs").exists()


# -- long notes --------------------------------------------------------------------------------------------


def test_a_long_note_is_read_in_windows_and_flagged_by_the_worst(
    tmp_path: Path, finder: type[Finder], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    filler = [f"Line of {number}." for number in range(1, 200)]
    poisoned = [*filler[:120], "She is given poison.", *filler[120:]]
    short = ["She is well."]
    path = write_texts(tmp_path / "long.csv", [" ".join(each) for each in (filler, poisoned, short)])
    monkeypatch.setattr(finder, "context_words", 250)
    well, ill, brief = predict(path, "--sort", "input")
    assert (well["flagged"], ill["flagged"], brief["flagged"]) == (False, True, False)
    assert ill["windows"] > 2 and well["windows"] > 2 and brief["windows"] == 1
    assert (ill["sentence"], ill["sentence_text"]) == (120, "She is given poison.")
    assert ill["correction"] == "She is given aspirin."
    said = f"2 longer than the model's context: read in {ill['windows'] + well['windows']} windows of whole sentences"
    assert said in capsys.readouterr().out


def test_a_sentence_longer_than_the_context_is_a_reason(
    tmp_path: Path, finder: type[Finder], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_texts(tmp_path / "long.csv", [f"She is well. She is {'very ' * 500}ill.", "She is given poison."])
    monkeypatch.setattr(finder, "context_words", 250)
    judged, not_judged = predict(path)
    assert judged["flagged"]
    assert not_judged["reason"] == "sentence 1 alone is longer than the model's context of 250 tokens"
    assert f"not judged: 1 x {not_judged['reason']}" in capsys.readouterr().out


def test_a_window_without_an_answer_counts_unless_another_is_flagged(
    tmp_path: Path, finder: type[Finder], monkeypatch: pytest.MonkeyPatch
) -> None:
    filler = [f"Line of {number}." for number in range(1, 200)]
    unread = ["He may mumble.", *filler]
    path = write_texts(tmp_path / "long.csv", [" ".join(each) for each in (unread, [*unread, "He takes poison."])])
    monkeypatch.setattr(finder, "context_words", 250)
    not_judged, judged = predict(path, "--sort", "input")
    assert (not_judged["flagged"], not_judged["p_error"]) == (None, None)
    assert (
        not_judged["reason"] == f"the model's answer about 1 of {not_judged['windows']} windows states no one verdict"
    )
    assert (judged["flagged"], judged["sentence_text"]) == (True, "He takes poison.")


def test_windows_of_a_real_model(tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    notes = [f"{'She has had a fever and a cough. ' * 40}She is treated with amoxicillin.", "She has fever."]
    settings = Settings(model=str(tiny_llama), adapter="none", engine="local", device="cpu", max_new_tokens_assessor=12)
    with Assessor(settings) as assessor:
        long, short = assessor.judge(notes)
    assert long.windows > 1 and short.windows == 1
    assert all(one.p_error is not None and 0 <= one.p_error <= 1 for one in (long, short))
