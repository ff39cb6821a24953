"""Bad input is met with one clear line and exit code 2, and leaves nothing half-written."""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock

from medserl import commands
from medserl.cli import main

GOOD = '{"note_id": "a", "correct_note": "He has fever. He takes aspirin."}\n'


def error_line(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    assert stopped.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def train(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    return error_line(capsys, "train", "--engine", "scripted", "--no-tensorboard", *arguments)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("empty.jsonl", "", "empty.jsonl"),
        ("broken.jsonl", GOOD + '{"note_id": "b", ', "2"),
        ("columns.csv", "alpha,beta\n1,2\n", "alpha"),
    ],
)
def test_unusable_files(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, text: str, expected: str
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    line = train(capsys, "--prompt-data", str(tmp_path / name), "--output-dir", str(tmp_path / "run"))
    assert name in line and expected in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["train", "sft", "evaluate", "predict"])
def test_a_gpu_that_is_too_small_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    import torch

    def full(*arguments: object, **options: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nand more lines")

    for name in ("train", "warm_up", "evaluate"):
        monkeypatch.setattr(commands, name, full)
    monkeypatch.setattr("medserl.prediction.assessor.Assessor.__init__", full)
    notes = tmp_path / "notes.jsonl"
    notes.write_text(GOOD, encoding="utf-8")
    given = {
        "train": ["--prompt-data", str(notes)],
        "sft": ["--prompt-data", str(notes), "--output", str(tmp_path / "out")],
        "evaluate": ["--data", str(notes)],
        "predict": [str(notes)],
    }[command]
    assert "the GPU's memory does not suffice: lower" in error_line(capsys, command, *given)


def test_missing_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "nowhere.jsonl" in train(capsys, "--prompt-data", str(tmp_path / "nowhere.jsonl"))


def test_unknown_flag_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--vcf-min-jaccard" in train(capsys, "--vcf-min-jacard", "0.8")


def test_value_out_of_range(capsys: pytest.CaptureFixture[str]) -> None:
    assert "kl_coef" in train(capsys, "--kl-coef", "-1")


def test_unknown_key_in_a_config_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text("kl_coeff = 0.1\n", encoding="utf-8")
    line = train(capsys, "--config", str(config))
    assert "kl_coeff" in line and "did you mean 'kl_coef'" in line


@pytest.mark.parametrize("model", ["./no/such/folder", "nobody/no-such-model"])
def test_unknown_model(capsys: pytest.CaptureFixture[str], tmp_path: Path, model: str) -> None:
    line = error_line(capsys, "train", "--model", model, "--output-dir", str(tmp_path / "run"))
    assert model in line
    assert not (tmp_path / "run").exists()


def test_a_note_longer_than_the_context(capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_llama: Path) -> None:
    notes = tmp_path / "long.jsonl"
    notes.write_text(GOOD.replace("He has fever.", "He has fever. " * 3000), encoding="utf-8")
    line = error_line(
        capsys, "train", "--model", str(tiny_llama), "--prompt-data", str(notes), "--validation-data", "none",
        "--output-dir", str(tmp_path / "run"), "--no-tensorboard",
    )  # fmt: skip
    assert "context" in line and "tokens" in line


def test_a_folder_in_use(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with FileLock(tmp_path / ".lock"):
        assert "another run is using this folder" in train(capsys, "--output-dir", str(tmp_path))


def test_a_folder_that_holds_a_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    flags = ["train", "--engine", "scripted", "--no-tensorboard", "--max-rounds", "1", "--output-dir", run]
    main(flags)
    assert "--resume" in error_line(capsys, *flags)


def test_nothing_to_resume(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "no config.toml" in train(capsys, "--resume", str(tmp_path))


def test_trained_without_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--run" in error_line(capsys, "evaluate", "--compare", "trained", "--engine", "scripted")


def test_columns_of_a_users_own_file_can_be_named(tmp_path: Path) -> None:
    notes = tmp_path / "own.csv"
    notes.write_text("key,report\n" + "".join(f"{i},He has fever. He takes drug {i}.\n" for i in range(4)), "utf-8")
    run = tmp_path / "run"
    main([
        "train", "--engine", "scripted", "--no-tensorboard", "--prompt-data", str(notes), "--note-column", "report",
        "--id-column", "key", "--validation-data", "none", "--rollout-batch-size", "4", "--output-dir", str(run),
    ])  # fmt: skip
    assert "He takes drug 3." in (run / "episodes.jsonl").read_text(encoding="utf-8")
