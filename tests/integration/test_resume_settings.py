"""What `--resume` may change, what it refuses by name, and that the data are still those that the run began on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from medserl.cli import main
from medserl.commands import train
from medserl.config import Settings
from medserl.data.sample_paths import sample_path
from medserl.errors import ConfigError, MedSeRLError
from medserl.runs.resume import check_fixed, fixed_settings, resumed_settings
from medserl.runs.runlog import METRICS, PROVENANCE, read_rows, read_settings

FLAGS: dict[str, Any] = {
    "engine": "scripted", "rollout_batch_size": 4, "max_rounds": 2, "save_every": 1, "eval_notes": 4,
    "frozen_games": 0, "tensorboard": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Sixteen notes to train on and four to validate on: four rounds an epoch."""
    folder = tmp_path_factory.mktemp("notes")
    for name, split, count in (("train.jsonl", "train", 16), ("validation.jsonl", "validation", 4)):
        lines = sample_path(split).read_text(encoding="utf-8").splitlines(keepends=True)[:count]
        (folder / name).write_text("".join(lines), encoding="utf-8")
    return folder / "train.jsonl", folder / "validation.jsonl"


@pytest.fixture(scope="module")
def finished(notes: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return start(notes, tmp_path_factory.mktemp("runs") / "finished")


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A run of two rounds that is finished, to do with as one likes."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def start(notes: tuple[Path, Path], path: Path, **changes: Any) -> Path:
    given = {**FLAGS, "prompt_data": str(notes[0]), "validation_data": str(notes[1]), "output_dir": str(path)}
    return train(Settings(**{**given, **changes}))


def resume(run: Path, **given: Any) -> Path:
    return train(Settings(resume=str(run), **given))


def played(run: Path) -> list[dict[str, Any]]:
    timings = ("seconds_", "tokens_per_second_", "peak_memory", "eval_")
    return [{k: v for k, v in row.items() if not k.startswith(timings)} for row in read_rows(run / METRICS)]


def test_an_extended_run_is_the_run_that_was_longer_from_the_start(
    run: Path, notes: tuple[Path, Path], tmp_path: Path
) -> None:
    resume(run, max_rounds=4, save_every=3)
    longer = start(notes, tmp_path / "longer", max_rounds=4)
    assert played(run) == played(longer) and len(played(run)) == 5
    ends = [path / "checkpoints" / "round_4" / "scripted.json" for path in (run, longer)]
    assert ends[0].read_bytes() == ends[1].read_bytes()
    assert [row["note_id"] for row in read_rows(run / "episodes.jsonl")] == [
        row["note_id"] for row in read_rows(longer / "episodes.jsonl")
    ]


def test_what_was_changed_is_written_down_with_what_it_was(run: Path) -> None:
    resume(run, max_rounds=3, save_every=2)
    assert read_settings(run).max_rounds == 3 and read_settings(run).save_every == 2
    comments = [line for line in (run / "config.toml").read_text(encoding="utf-8").splitlines() if line[:1] == "#"]
    assert comments[0].startswith("# medserl ")
    assert comments[1].endswith("after round 2: max_rounds was 2, now 3")
    assert comments[2].endswith("after round 2: save_every was 1, now 2")
    resume(run, max_rounds=4)
    assert (run / "config.toml").read_text(encoding="utf-8").splitlines()[-1].endswith("max_rounds was 3, now 4")


@pytest.mark.parametrize(
    ("name", "value"),
    [("kl_coef", 0.5), ("seed", 1), ("rollout_batch_size", 8), ("lr_schedule", "linear"), ("model", "other"),
     ("dtype", "float32"), ("validation_data", "none"), ("output_dir", "elsewhere"), ("engine", "local"),
     ("gold_data", "sample")],
)  # fmt: skip
def test_any_other_change_is_refused_by_name(run: Path, name: str, value: Any) -> None:
    before = (run / "config.toml").read_bytes()
    with pytest.raises(ConfigError) as caught:
        resume(run, max_rounds=4, **{name: value})
    message = str(caught.value)
    assert f"cannot change {name} from {getattr(read_settings(run), name)!r} to {value!r}" in message
    assert "start a new run" in message and "\n" not in message
    assert (run / "config.toml").read_bytes() == before and len(played(run)) == 3
    resume(run, max_rounds=3)  # and the folder is free again


def test_what_is_as_it_was_may_be_given_again(run: Path, notes: tuple[Path, Path]) -> None:
    same = {**FLAGS, "prompt_data": str(notes[0]), "engine": "auto", "output_dir": str(run)}
    resume(run, **{**same, "max_rounds": 3})
    assert len(played(run)) == 4


def test_a_device_may_change_and_that_is_said(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    resume(run, max_rounds=3, device="cpu", training_token_budget=512)
    assert "device, training_token_budget changed: the rounds to come may differ in rounding" in caplog.text


@pytest.mark.parametrize(("old", "new"), [("vllm", "local"), ("local", "vllm"), ("auto", "local"), ("auto", "vllm")])
def test_the_engines_of_one_gpu_go_on_from_each_other(
    old: Any, new: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    started = Settings(engine=old)
    settings, changes = resumed_settings(started, Settings(engine=new), tmp_path)
    assert settings.engine == new and changes == {"engine": (old, new)}
    assert "engine changed: the rounds to come may differ in rounding" in caplog.text
    check_fixed(fixed_settings(started), settings, tmp_path)
    with pytest.raises(ConfigError, match="cannot change engine from 'openrlhf'"):
        resumed_settings(Settings(engine="openrlhf"), Settings(engine=new), tmp_path)
    with pytest.raises(ConfigError, match="was made with engine 'openrlhf'"):
        check_fixed(fixed_settings(Settings(engine="openrlhf")), settings, tmp_path)


def test_a_finished_run_says_so_and_how_to_go_on(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    resume(run)
    said = capsys.readouterr().out
    assert "the run has all its 2 rounds; give --max-rounds or --max-epochs to go on" in said and "done" not in said


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_rounds": 2, "max_epochs": 3}, "max_rounds 2 ends it with round 2; give --max-rounds above 2 too"),
        ({"max_rounds": 1}, "the run has 2 rounds already, and max_rounds 1 ends it with round 1; give a greater one"),
    ],
)
def test_an_extension_that_extends_nothing_is_refused(run: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resume(run, **given)
    assert message in str(caught.value)


def test_rounds_beyond_the_epochs_name_the_epochs(notes: tuple[Path, Path], tmp_path: Path) -> None:
    run = start(notes, tmp_path / "run", max_rounds=4)
    with pytest.raises(ConfigError, match="max_epochs 1 ends it with round 4; give --max-epochs above 1 too"):
        resume(run, max_rounds=6)
    resume(run, max_rounds=6, max_epochs=2)
    assert [row["round"] for row in played(run)] == [0, 1, 2, 3, 4, 5, 6]


def test_a_falling_learning_rate_that_falls_otherwise_is_said(
    notes: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = start(notes, tmp_path / "run", lr_schedule="linear")
    resume(run, max_rounds=4)
    assert "the learning rate now falls to 0 with round 4; from round 3 on it is not what" in caplog.text


def test_environment_and_config_file_count_as_flags_do(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "given.toml").write_text("kl_coef = 0.5\n", encoding="utf-8")
    for arguments, environment in ((["--config", str(tmp_path / "given.toml")], {}), ([], {"MEDSERL_KL_COEF": "0.5"})):
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as caught:
                main(["train", "--resume", str(run), *arguments])
        assert caught.value.code == 2
        assert "cannot change kl_coef from 0.01 to 0.5" in capsys.readouterr().err
    monkeypatch.setenv("MEDSERL_MAX_ROUNDS", "3")
    main(["train", "--resume", str(run)])
    assert len(played(run)) == 4


def test_settings_that_were_edited_or_lost_are_refused_by_name(run: Path) -> None:
    config = run / "config.toml"
    before = config.read_text(encoding="utf-8")
    for edited, message in (
        (before.replace("kl_coef = 0.01", "kl_coef = 0.5"), "made with kl_coef 0.01, but config.toml says 0.5"),
        (before.replace("rollout_batch_size = 4\n", ""), "made with rollout_batch_size 4, but config.toml says 32"),
        ("", "no model in it, so this is not what a run wrote"),
    ):
        config.write_text(edited, encoding="utf-8")
        with pytest.raises(MedSeRLError, match=message) as caught:
            resume(run, max_rounds=3)
        assert "\n" not in str(caught.value)


# -- the data ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use", ["prompt_data", "validation_data"])
@pytest.mark.parametrize("field", ["incorrect_note", "correct_note"])
def test_a_file_that_has_changed_is_refused_by_name(
    notes: tuple[Path, Path], tmp_path: Path, use: str, field: str
) -> None:
    own = [Path(shutil.copy(path, tmp_path)) for path in notes]
    run = start((own[0], own[1]), tmp_path / "run")
    changed = own[0] if use == "prompt_data" else own[1]
    before = changed.read_text(encoding="utf-8")
    first, rest = before.split("\n", 1)
    changed.write_text(json.dumps({**json.loads(first), field: "Another note."}) + "\n" + rest, encoding="utf-8")
    with pytest.raises(MedSeRLError) as caught:
        resume(run, max_rounds=3)
    assert f"{use} {changed} has changed since the run began" in str(caught.value)
    changed.write_text(before, encoding="utf-8")
    resume(run, max_rounds=3)


def test_a_file_may_have_moved(run: Path, notes: tuple[Path, Path], tmp_path: Path) -> None:
    moved = shutil.copy(notes[0], tmp_path / "moved.jsonl")
    resume(run, max_rounds=3, prompt_data=str(moved))
    assert read_settings(run).prompt_data == str(moved)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"sha256": 3}', '{"versions": {}}', "\x00\xff"])
def test_a_provenance_that_cannot_be_read_is_one_line(run: Path, content: str) -> None:
    (run / PROVENANCE).write_text(content, encoding="latin-1")
    with pytest.raises(MedSeRLError) as caught:
        resume(run, max_rounds=3)
    assert str(caught.value).startswith(f"{run / PROVENANCE}: cannot be read") and "\n" not in str(caught.value)


def test_a_missing_provenance_is_said(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    (run / PROVENANCE).unlink()
    resume(run, max_rounds=3)
    assert f"{PROVENANCE} is missing, so nothing tells whether the data are still those of this run" in caplog.text


def test_other_versions_are_named(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    record = json.loads((run / PROVENANCE).read_text(encoding="utf-8"))
    record["versions"]["torch"] = "1.0"
    (run / PROVENANCE).write_text(json.dumps(record), encoding="utf-8")
    resume(run, max_rounds=3)
    assert "the run began with torch 1.0 and goes on with " in caplog.text


def test_frozen_games_that_have_changed_are_refused_and_without_them_the_run_goes_on(
    notes: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = start(notes, tmp_path / "run", frozen_games=8)
    games = run / "frozen_opponent.jsonl"
    *kept, _ = games.read_bytes().splitlines(keepends=True)
    assert kept
    games.write_bytes(b"".join(kept))
    with pytest.raises(MedSeRLError, match=r"frozen_opponent\.jsonl: is not as it was written; delete it to go on"):
        resume(run, max_rounds=3)
    games.unlink()
    resume(run, max_rounds=3)
    assert "so there are no frozen_* figures" in caplog.text
