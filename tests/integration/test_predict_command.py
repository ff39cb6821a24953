"""`medserl predict` from flags to files, with a scripted reader in the model's place."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import medserl.engines
from medserl.assessor import Assessor
from medserl.cli import main
from medserl.config import Settings
from medserl.data.readers import load_notes
from medserl.errors import MedSeRLError
from medserl.evaluation.thresholds import THRESHOLD
from medserl.runs.runlog import RunFolder
from tests.conftest import ROOT
from tests.finder import Finder
from tests.poisonings import write_notes

COUNT = 70
"""Notes: more than a batch."""


@pytest.fixture(autouse=True)
def finder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[Finder]:
    monkeypatch.setenv("MEDSERL_ENGINE", "scripted")
    monkeypatch.setenv("MEDSERL_ADAPTER", "none")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(medserl.engines, "create_inference_engine", Finder)
    monkeypatch.setattr(Finder, "asked", [])
    monkeypatch.setattr(Finder, "patience", None)
    monkeypatch.setattr(Finder, "context_words", None)
    return Finder


def text(number: int) -> str:
    """Every tenth note is poisoned, in its second sentence."""
    return f"Note of {number}. She is given {'poison' if number % 10 == 3 else 'aspirin'}. She improves."


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return write_texts(tmp_path / "notes.csv", [text(number) for number in range(COUNT)])


def write_texts(path: Path, texts: Sequence[str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "text"])
        rows.writerows([f"n{number}", each] for number, each in enumerate(texts))
    return path


def predict(*arguments: object) -> list[dict[str, Any]]:
    """The rows that were written to `out.jsonl`."""
    main(["predict", *map(str, arguments), "--output", "out.jsonl"])
    return rows(Path("out.jsonl"))


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def error_line(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as stopped:
        main([*map(str, arguments)])
    assert stopped.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


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
def test_standard_input_in_each_form(content: bytes, ids: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    columns = ["--note-column", "Befund", "--id-column", "Nr"] if b"Befund" in content else []
    found = predict("-", *columns)
    assert [row["note_id"] for row in found] == ids
    assert found[0]["flagged"]


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


# -- the threshold -----------------------------------------------------------------------------------------


def test_without_a_threshold_half_is_taken_and_said_to_be_chosen_on_nothing(
    notes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {row["threshold"] for row in predict(notes)} == {0.5}
    assert "threshold: 0.5, chosen on no notes" in capsys.readouterr().out


def test_a_given_threshold_holds(notes: Path) -> None:
    found = predict(notes, "--threshold", 0.88)
    assert [row["note_id"] for row in found if row["flagged"]] == ["n3", "n13"]
    assert {row["threshold"] for row in found} == {0.88}
    assert found[2]["verdict"] == "INCORRECT" and found[2]["should_say"] == "aspirin"  # said so, and not flagged


def test_what_is_flagged_against_the_models_word_still_has_a_place(tmp_path: Path) -> None:
    (row,) = predict(write_texts(tmp_path / "few.csv", ["Patient has fever. She is well."]), "--html", "page.html")
    assert (row["verdict"], row["flagged"], row["sentence"], row["says"]) == ("CORRECT", True, 0, "fever")
    assert (row["should_say"], row["correction"]) == (None, None)  # it would only repeat what is there
    page = Path("page.html").read_text(encoding="utf-8")
    assert "<mark>Patient has <b>fever</b>.</mark> She is well." in page
    assert "The model suggested no other words." in page


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose 28 validation texts the Finder judges with 0.9 and 0.6: calibrated, half is between them."""
    write_notes(tmp_path / "train.jsonl", 100)
    write_notes(tmp_path / "validation.jsonl", 200)
    settings = Settings(
        engine="scripted", output_dir="run", prompt_data="train.jsonl", validation_data="validation.jsonl",
        adapter="none", tensorboard=False,
    )  # fmt: skip
    folder = RunFolder.create(settings)
    folder.save_checkpoint({"round": 1}, lambda to: write_adapter(to, b"first"), 3)
    folder.close()
    return folder.path


def write_adapter(folder: Path, weights: bytes) -> None:
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}', encoding="utf-8")
    (folder / "adapter_model.safetensors").write_bytes(weights)


def test_a_runs_threshold_is_chosen_on_its_validation_notes_and_kept(
    notes: Path, run: Path, finder: type[Finder], capsys: pytest.CaptureFixture[str]
) -> None:
    found = predict(notes, "--run", run)
    line = "threshold: 0.5, chosen on 28 texts of validation.jsonl: there it flags 100 % of those with an error and"
    assert line in capsys.readouterr().out
    assert {row["threshold"] for row in found} == {0.5}
    kept = json.loads((run / THRESHOLD).read_text())
    assert kept["recall"] == 1.0 and kept["brier"] < kept["brier_before"]
    assert all(row["flagged"] == (row["p_error"] >= 0.5) for row in found)
    asked = sum(finder.asked)
    assert asked == COUNT + 28
    main(["predict", str(notes), "--run", str(run), "--output", "other.jsonl"])
    assert sum(finder.asked) == asked + COUNT  # not chosen again
    assert line in capsys.readouterr().out


def test_a_threshold_of_an_older_checkpoint_is_not_used(
    notes: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict(notes, "--run", run)
    before = json.loads((run / THRESHOLD).read_text())
    folder, _ = RunFolder.reopen(run)
    folder.save_checkpoint({"round": 2}, lambda to: write_adapter(to, b"second"), 3)
    folder.close()
    (run / THRESHOLD).write_text(json.dumps(before | {"value": 0.999}))
    main(["predict", str(notes), "--run", str(run), "--output", "other.jsonl"])
    assert {row["threshold"] for row in rows(Path("other.jsonl"))} == {0.5}
    assert f"{THRESHOLD} is of other weights or another prompt, so it is not used" in capsys.readouterr().err
    assert json.loads((run / THRESHOLD).read_text())["weights"] != before["weights"]


def test_a_given_threshold_spares_the_validation_notes(notes: Path, run: Path, finder: type[Finder]) -> None:
    predict(notes, "--run", run, "--threshold", "0.4")
    assert sum(finder.asked) == COUNT
    assert not (run / THRESHOLD).exists()


def test_a_run_without_validation_notes_says_so(notes: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = (run / "config.toml").read_text().replace('"validation.jsonl"', '"none"')
    (run / "config.toml").write_text(config)
    assert {row["threshold"] for row in predict(notes, "--run", run)} == {0.5}
    assert "no threshold can be chosen: run has no validation notes" in capsys.readouterr().err


def test_a_run_whose_notes_are_gone_asks_for_a_threshold(
    tmp_path: Path, notes: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "validation.jsonl").unlink()
    line = error_line(capsys, "predict", notes, "--run", run)
    assert "validation.jsonl" in line and "give one with --threshold" in line
    assert len(predict(notes, "--run", run, "--threshold", "0.5")) == COUNT
    said = capsys.readouterr()
    assert "nothing tells whether the run learnt from the notes that it judges" in said.err
    assert "threshold: 0.5, as given" in said.out


def test_notes_that_the_run_learnt_from_are_told(
    tmp_path: Path, notes: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict(notes, "--run", run)
    assert "learnt from" not in capsys.readouterr().err
    main(["predict", "train.jsonl", "--run", str(run)])
    assert "16 of the 16 notes are among those that the run learnt from ('ms-100'" in capsys.readouterr().err


def test_an_adapter_brings_its_own_threshold(tmp_path: Path, notes: Path, run: Path) -> None:
    predict(notes, "--run", run)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    write_adapter(adapter, b"first")
    (adapter / THRESHOLD).write_bytes((run / THRESHOLD).read_bytes())
    with Assessor(Settings(engine="scripted", adapter=str(adapter))) as assessor:
        assert (assessor.threshold.value, assessor.threshold.n) == (0.5, 28)
    with Assessor(Settings(engine="scripted", adapter=str(adapter)), 0.3) as assessor:
        assert assessor.threshold.value == 0.3
        assert assessor.threshold.calibrated(0.9) > 0.9, "the calibration is the weights'"


def test_a_checkpoint_brings_the_threshold_of_its_rounds_validation(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is read again to choose it."""
    for name in ("MEDSERL_ENGINE", "MEDSERL_ADAPTER"):
        monkeypatch.delenv(name)
    rows = [
        {"id": f"p{i}", "correct_note": f"She has fever {i}.", "incorrect_note": f"She has cough {i}."}
        for i in range(2)
    ]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    model = ["--model", str(tiny_llama), "--device", "cpu", "--adapter", "none", "--lora-rank", "2"]
    rooms = ["--max-new-tokens-injector", "4", "--max-new-tokens-assessor", "4", "--vcf-max-attempts", "1"]
    files = ["--prompt-data", "pairs.jsonl", "--validation-data", "pairs.jsonl", "--output-dir", "learnt"]
    rounds = ["--max-rounds", "2", "--max-epochs", "2", "--rollout-batch-size", "2", "--save-every", "1"]
    main(
        [
            "train",
            *model,
            *rooms,
            *files,
            *rounds,
            "--sft-verdict-pairs",
            "1",
            "--frozen-games",
            "0",
            "--no-tensorboard",
        ]
    )
    assert not Path("learnt/checkpoints/round_1", THRESHOLD).exists(), "nothing was validated then"
    kept = json.loads(Path("learnt/checkpoints/round_2", THRESHOLD).read_text())
    assert (kept["n"], kept["source"]) == (4, "the run's validation notes")
    with Assessor.from_run("learnt") as assessor:
        assert (assessor.threshold.value, assessor.threshold.slope) == (kept["value"], kept["slope"])
        assert "_players" not in vars(assessor), "no model was asked"


def test_a_warm_up_keeps_a_threshold_beside_its_adapter(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("MEDSERL_ENGINE", "MEDSERL_ADAPTER"):
        monkeypatch.delenv(name)
    pairs = [("She has fever.", "She has cough."), ("She is treated with rest.", "She is treated with amoxicillin.")]
    rows = [{"id": f"p{i}", "correct_note": right, "incorrect_note": wrong} for i, (right, wrong) in enumerate(pairs)]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    model = ["--model", str(tiny_llama), "--device", "cpu", "--lora-rank", "2"]
    rooms = ["--max-new-tokens-injector", "4", "--max-new-tokens-assessor", "4", "--vcf-max-attempts", "1"]
    files = ["--prompt-data", "pairs.jsonl", "--validation-data", "pairs.jsonl"]
    main(["sft", *model, *rooms, *files, "--steps", "1", "--batch-size", "2", "--output", "warm"])
    kept = json.loads(Path("warm", THRESHOLD).read_text())
    assert (kept["n"], kept["source"]) == (4, "pairs.jsonl")
    settings = Settings(model=str(tiny_llama), adapter="warm")
    assert Assessor(settings).threshold.value == kept["value"]
    assert "threshold: " in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "[]", '{"value": 2, "weights": "x"}', '{"value": 0.5}', '{"what": 1}'])
def test_a_broken_threshold_is_named_and_not_used(
    content: str, notes: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / THRESHOLD).write_text(content)
    assert {row["threshold"] for row in predict(notes, "--run", run)} == {0.5}
    said = capsys.readouterr()
    assert "cannot be read" in said.err and "chosen on 28 texts" in said.out


def test_validation_notes_of_one_class_choose_nothing(
    tmp_path: Path, notes: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "validation.jsonl").write_text('{"correct_note": "She is well."}\n' * 3, encoding="utf-8")
    assert {row["threshold"] for row in predict(notes, "--run", run)} == {0.5}
    said = capsys.readouterr()
    assert (
        "no threshold can be chosen: validation.jsonl holds no notes of both classes that the model judges" in said.err
    )
    assert "threshold: 0.5, chosen on no notes" in said.out
    assert not (run / THRESHOLD).exists()


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
        by_file = assessor.judge(load_notes(notes).notes)
        by_text = assessor.judge([text(number) for number in range(COUNT)])
    assert [one.p_error for one in by_file] == [one.p_error for one in by_text]
