"""`medserl predict`: which threshold a note is flagged by, and where it is from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medserl.cli import main
from medserl.config import Settings
from medserl.evaluation.thresholds import THRESHOLD
from medserl.prediction.assessor import Assessor
from medserl.runs.runlog import RunFolder
from tests.finder import Finder
from tests.predicting import COUNT, error_line, predict, rows, write_adapter, write_texts

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
