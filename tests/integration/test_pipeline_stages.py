"""`medserl pipeline` with a scripted player: which stages run, with which settings, and what stops them."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import weakref
from pathlib import Path
from typing import Any

import pytest

from medserl import commands
from medserl.cli import main
from medserl.config import DataSettings, ModelSettings, Settings, validate
from medserl.errors import ConfigError
from medserl.evaluation import systems
from medserl.pipeline import Pipeline, PipelineOptions
from tests.places import ROOT

SCRIPT = ROOT / "scripts/run_medserl_pipeline.sh"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    rows = (ROOT / "data/medec_test_sample.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    file = tmp_path / "small.jsonl"
    file.write_text("".join(rows[:8]), encoding="utf-8")
    return file


@pytest.fixture
def own_notes(tmp_path: Path) -> Path:
    """Correct notes alone, in a column of another name."""
    file = tmp_path / "own.jsonl"
    rows = [{"key": str(i), "report": f"He has fever. He takes drug {i} daily. He is well."} for i in range(12)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


class Stages:
    """The commands behind the stages, which note what they were called with and do nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, interrupted: bool = False) -> None:
        self.called: dict[str, Settings] = {}
        self.warm_up: tuple[Any, ...] = ()
        self.options: Any = None
        self.interrupted = interrupted
        monkeypatch.setattr(commands, "warm_up", self._warm_up)
        monkeypatch.setattr(commands, "train", self._train)
        monkeypatch.setattr(commands, "evaluate", self._evaluate)
        monkeypatch.setattr("medserl.reports.html.write_report", lambda run: self.called.update(report=run) or run)

    def _warm_up(self, settings: Settings, *rest: Any, **named: Any) -> None:
        self.called["warmup"], self.warm_up = settings, (*rest, named)

    def _train(self, settings: Settings) -> None:
        self.called["train"] = settings
        if self.interrupted:
            raise KeyboardInterrupt
        folder = Path(settings.resume or settings.output_dir or "")
        folder.mkdir(parents=True, exist_ok=True)
        lines = [f"{key} = {value!r}\n" for key, value in settings.model_dump(exclude_unset=True).items()]
        (folder / "config.toml").write_text("".join(lines).replace("True", "true").replace("False", "false"))

    def _evaluate(self, settings: Settings, options: Any) -> None:
        self.called["evaluate"], self.options = settings, options


def test_the_stages_from_notes_to_report(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands themselves, with the scripted player in the place of every model and checkpoint."""
    monkeypatch.setenv("MEDSERL_ENGINE", "scripted")
    monkeypatch.setattr(systems, "_resolve", lambda name, settings, run: settings)
    run = tmp_path / "run"
    flags = ["--run", str(run), "--test-data", str(small), "--no-tensorboard"]
    main(
        [
            "pipeline",
            *flags,
            "--rollout-batch-size=4",
            "--eval-notes",
            "4",
            "--max-rounds=2",
            "--frozen-games",
            "0",
            "--base-notes=3",
        ]
    )
    said = capsys.readouterr().out
    assert "warm-up: both roles" not in said, "one is shipped"
    assert [line for line in said.splitlines() if line.startswith("== ")] == [
        "== online self-play: 2 rounds, 4 notes a round",
        f"== evaluation: base, warm-up, trained, on {small}",
        "== report",
    ]
    assert len((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()) == 3
    table = json.loads((run / "eval/table.json").read_text(encoding="utf-8"))
    judged = {row["system"]: row["n"] for row in table if (row["group"], row["figure"]) == ("all", "accuracy")}
    assert (judged["base"], judged["warmup"], judged["trained"]) == (6, 16, 16), "of 3 notes and of 8, both twins"
    assert "base model (n = 6)" in (run / "report.html").read_text(encoding="utf-8")
    assert (run / "report.html").is_file()

    main(["pipeline", "--stage=report", "--run", str(run)])
    said = capsys.readouterr().out
    assert "== report" in said and "== online self-play" not in said


# -- how long ---------------------------------------------------------------------------------------------------


def rounds_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *flags: str) -> tuple[int | None, int]:
    stages = Stages(monkeypatch)
    main(["pipeline", "--run", str(tmp_path / "run"), *flags])
    return stages.called["train"].max_rounds, stages.called["train"].max_epochs


def test_five_rounds_unless_something_says_how_many(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert rounds_of(monkeypatch, tmp_path) == (5, 1)
    assert rounds_of(monkeypatch, tmp_path, "--max-rounds=3") == (3, 1)
    assert rounds_of(monkeypatch, tmp_path, "--max-rounds", "3") == (3, 1)
    assert rounds_of(monkeypatch, tmp_path, "--max-epochs=5") == (None, 5)
    config = tmp_path / "run.toml"
    config.write_text("max_epochs = 2\n", encoding="utf-8")
    assert rounds_of(monkeypatch, tmp_path, "--config", str(config)) == (None, 2)
    monkeypatch.setenv("MEDSERL_MAX_EPOCHS", "4")
    assert rounds_of(monkeypatch, tmp_path) == (None, 4)
    assert rounds_of(monkeypatch, tmp_path, "--resume", str(tmp_path / "run")) == (None, 4)


# -- which settings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("section", [ModelSettings, DataSettings])
def test_every_setting_that_reading_and_loading_need_reaches_every_stage(
    section: type[Settings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever settings these sections hold, now or later: none is on a list that could be forgotten."""
    given: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        for value in ("other", 7, True, "float32", "local", "cpu"):
            try:
                changed = validate({name: value})
            except ConfigError:  # not a value of this setting
                continue
            if getattr(changed, name) != field.default:
                given[name] = value
                break
    assert set(given) == set(section.model_fields)
    stages = Stages(monkeypatch)
    Pipeline(validate(given), PipelineOptions(run=tmp_path / "run", rebuild_warmup=True, test_data="sample")).play()
    for stage in ("warmup", "train", "evaluate"):
        reached = stages.called[stage].model_dump(include=stages.called[stage].model_fields_set)
        own = {"adapter"} if stage != "warmup" else set()
        assert {k: v for k, v in given.items() if k not in own}.items() <= reached.items(), stage


def test_a_model_of_ones_own_is_warmed_up_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for flags in (
        ["--model=some/model"],
        ["--model", "some/model"],
        ["--injector-format", "note"],
        ["--rebuild-warmup"],
    ):
        stages = Stages(monkeypatch)
        main(["pipeline", "--run", str(tmp_path / "run"), "--warmup-steps", "3", *flags])
        assert list(stages.called) == ["warmup", "train", "evaluate", "report"], flags
        plan, adapter, _ = stages.warm_up
        assert plan.steps == 3
        assert str(adapter) == f"{tmp_path / 'run'}-warmup" == stages.called["train"].adapter
        assert "adapter" not in stages.called["evaluate"].model_fields_set, "the run knows it"
        assert stages.options.compare == ("base", "warmup", "trained")
    stages = Stages(monkeypatch)
    main(["pipeline", "--run", str(tmp_path / "run"), "--model", "some/model", "--adapter", "none"])
    assert "warmup" not in stages.called
    assert stages.options.compare == ("base", "trained")


def test_correct_notes_alone_say_what_to_do(
    own_notes: Path, tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [
        "--model",
        str(tiny_llama),
        "--prompt-data",
        str(own_notes),
        "--note-column",
        "report",
        "--id-column",
        "key",
    ]
    run = tmp_path / "run"
    with pytest.raises(SystemExit) as stopped:
        main(["pipeline", "--run", str(run), *flags])
    assert stopped.value.code == 2
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(told) == 1 and "no pairs" in told[0] and "--warmup-data sample" in told[0]
    assert not run.exists() and not Path(f"{run}-warmup").exists()


def test_a_warm_up_on_the_samples_pairs_leaves_the_notes_to_train_on(
    own_notes: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stages = Stages(monkeypatch)
    flags = ["--model", "some/model", "--prompt-data", str(own_notes), "--warmup-data", "sample"]
    flags += ["--test-data", "sample"]
    main(["pipeline", "--run", str(tmp_path / "run"), *flags])
    assert stages.called["warmup"].prompt_data == "sample"
    assert stages.called["train"].prompt_data == str(own_notes)


# -- stages -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ("env", ["warmup", "train", "evaluate", "report"]),
        ("warmup", ["warmup", "train", "evaluate", "report"]),
        ("train", ["train", "evaluate", "report"]),
        ("evaluate", ["evaluate", "report"]),
        ("report", ["report"]),
    ],
)
def test_a_stage_and_those_after_it(
    stage: str, expected: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.toml").write_text("seed = 1\n", encoding="utf-8")
    stages = Stages(monkeypatch)
    main(["pipeline", "--stage", stage, "--run", str(run), "--model", "some/model"])
    assert list(stages.called) == expected
    if stage == "train":
        assert stages.called["train"].adapter == f"{run}-warmup", "of the stage before"


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--stage", "nonsense"], "env warmup train evaluate report"),
        (["--stage", "evaluate"], "--run"),
        (["--stage", "report", "--run", "/nowhere/run"], "/nowhere/run"),
        (["--stage", "evaluate", "--run", "/nowhere/run"], "config.toml"),
        (["--run", "a", "--output-dir", "b"], "one run folder"),
        (["--model", "some/model", "--lora-rank", "0"], "--adapter none"),
        (["--warmup-steps", "0", "--rebuild-warmup"], "--steps 0"),
    ],
)
def test_what_cannot_be_is_one_line(flags: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["pipeline", *flags])
    assert stopped.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert told in line


def test_an_interrupted_run_ends_the_pipeline(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = Stages(monkeypatch, interrupted=True)
    with pytest.raises(SystemExit) as stopped:
        main(["pipeline", "--run", str(tmp_path / "run")])
    assert stopped.value.code == 130
    assert list(stages.called) == ["train"]
    assert f"medserl pipeline --resume {tmp_path / 'run'}" in capsys.readouterr().err


def test_each_stage_drops_its_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Even one that refers to itself, as models with hooks do."""

    class Model:
        def __init__(self) -> None:
            self.itself = self

    alive: list[int] = []
    models: list[weakref.ref[Model]] = []
    stages = Stages(monkeypatch)

    def with_model(command: Any) -> Any:
        def run(*given: Any, **named: Any) -> None:
            alive.append(sum(ref() is not None for ref in models))
            models.append(weakref.ref(Model()))
            command(*given, **named)

        return run

    for name in ("warm_up", "train", "evaluate"):
        monkeypatch.setattr(commands, name, with_model(getattr(commands, name)))
    gc.disable()
    try:
        Pipeline(Settings(), PipelineOptions(run=tmp_path / "run", rebuild_warmup=True)).play()
    finally:
        gc.enable()
    assert alive == [0, 0, 0]
    assert list(stages.called) == ["warmup", "train", "evaluate", "report"]


# -- what is evaluated on -----------------------------------------------------------------------------------------


def evaluated_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, prompt_data: Path | str, *flags: str) -> str:
    stages = Stages(monkeypatch)
    main(["pipeline", "--run", str(tmp_path / "run"), "--adapter=none", "--prompt-data", str(prompt_data), *flags])
    return str(stages.options.data)


def pairs(file: Path, count: int = 24) -> Path:
    rows = (ROOT / "data/medec_train_sample.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(rows[:count]), encoding="utf-8")
    return file


def test_medecs_own_notes_judge_what_was_trained_on_medec(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    train = pairs(tmp_path / "medec_train.jsonl")
    validation = pairs(tmp_path / "medec_validation.jsonl")
    assert evaluated_on(monkeypatch, tmp_path, train) == str(validation)
    test = pairs(tmp_path / "medec_test.jsonl")
    assert evaluated_on(monkeypatch, tmp_path, train) == str(test)
    assert evaluated_on(monkeypatch, tmp_path, train, "--test-data", str(validation)) == str(validation)
    assert evaluated_on(monkeypatch, tmp_path, "sample") == "sample"


def test_other_notes_are_judged_by_those_that_were_held_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own_notes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged = Path(evaluated_on(monkeypatch, tmp_path, pairs(tmp_path / "pairs.jsonl", 120)))
    assert judged == tmp_path / "run" / "held_out.jsonl"
    held_out = {json.loads(line)["note_id"] for line in judged.read_text(encoding="utf-8").splitlines()}
    assert 0 < len(held_out) < 60
    given = pairs(tmp_path / "given.jsonl")
    found = evaluated_on(monkeypatch, tmp_path, tmp_path / "pairs.jsonl", "--validation-data", str(given))
    assert found == str(given)
    capsys.readouterr()
    columns = ("--note-column", "report", "--id-column", "key")
    assert evaluated_on(monkeypatch, tmp_path, own_notes, *columns) == "sample", "no wrong note among them"
    assert "the sample's invented notes are judged" in capsys.readouterr().err


# -- the script -------------------------------------------------------------------------------------------------


def script(*flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(SCRIPT), *flags],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **environment},
    )  # fmt: skip


@pytest.fixture
def fake_venv(tmp_path: Path) -> Path:
    """An environment whose programs only say how they were called."""
    (tmp_path / "venv/bin").mkdir(parents=True)
    for name in ("python", "medserl"):
        program = tmp_path / "venv/bin" / name
        program.write_text(f'#!/bin/sh\nfor each; do echo "{name} <$each>"; done\n', encoding="utf-8")
        program.chmod(0o755)
    return tmp_path / "venv"


def test_the_script_makes_the_environment_and_hands_every_flag_on(fake_venv: Path) -> None:
    done = script("--model=a b", "--max-rounds", "3", VENV=str(fake_venv))
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert "python <install>" in lines
    assert lines[-4:] == ["medserl <pipeline>", "medserl <--model=a b>", "medserl <--max-rounds>", "medserl <3>"]


@pytest.mark.parametrize("flags", [["--help"], ["-h"], ["--model", "x", "--help"]])
def test_help_helps_and_does_nothing_else(fake_venv: Path, tmp_path: Path, flags: list[str]) -> None:
    assert script(*flags, VENV=str(fake_venv)).stdout == "medserl <pipeline>\nmedserl <--help>\n"
    nowhere = tmp_path / "none"
    done = script(*flags, VENV=str(nowhere))
    assert done.returncode == 0 and "--rebuild-warmup" in done.stdout
    assert not nowhere.exists()


def test_a_later_stage_leaves_the_environment_alone(fake_venv: Path, tmp_path: Path) -> None:
    for flags in (["--stage", "report"], ["--stage=report"]):
        assert "python" not in script(*flags, "--run", "x", VENV=str(fake_venv)).stdout
    done = script("--stage", "report", VENV=str(tmp_path / "none"))
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "env warmup train evaluate report" in script("--stage=nonsense").stderr
