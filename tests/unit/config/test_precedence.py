"""Where settings come from: flags, environment, file; whatever is wrong in one of them is one line that names it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from medserl import commands
from medserl.cli import app, main
from medserl.config import SECTIONS, Settings, read_config, validate
from medserl.config.precedence import concerns
from medserl.config.removed import RENAMED
from medserl.errors import ConfigError
from medserl.runs.resume import check_fixed
from tests.places import ROOT

COMMANDS = ("train", "sft", "evaluate", "play", "pipeline")


def line(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    assert stopped.value.code == 2
    (told,) = [each for each in capsys.readouterr().err.splitlines() if each.startswith("error: ")]
    return told


def settings(monkeypatch: pytest.MonkeyPatch, *flags: str) -> Settings:
    """What the command line makes of flags, environment and file."""
    taken: list[Settings] = []
    monkeypatch.setattr(commands, "train", taken.append)
    main(["train", *flags])
    return taken[0]


# -- which source wins -----------------------------------------------------------------------------------------


def test_flags_win_over_the_environment_that_over_the_file_the_file_over_defaults(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "run.toml"
    file.write_text("kl_coef = 0.1\nseed = 1\nmax_rounds = 1\nwandb = true\n", encoding="utf-8")
    monkeypatch.setenv("MEDSERL_KL_COEF", "0.2")
    monkeypatch.setenv("MEDSERL_SEED", "2")
    made = settings(monkeypatch, "--config", str(file), "--kl-coef", "0.3", "--no-tensorboard")
    assert made.model_dump(exclude_unset=True) == {
        "kl_coef": 0.3,
        "seed": 2,
        "max_rounds": 1,
        "wandb": True,
        "tensorboard": False,
    }
    assert settings(monkeypatch, "--config", str(file)).kl_coef == 0.2
    monkeypatch.delenv("MEDSERL_KL_COEF")
    assert settings(monkeypatch, "--config", str(file)).kl_coef == 0.1
    assert settings(monkeypatch).kl_coef == Settings().kl_coef


def test_no_setting_is_called_as_a_command_is() -> None:
    """Cyclopts takes the commands' names in a file for something else."""
    assert not set(app) & set(Settings.model_fields)


# -- flags -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "arguments", [["--prompt-data", "a.jsonl", "b.jsonl"], ["b.jsonl"], ["b.jsonl", "--seed", "1"], ["--", "b.jsonl"]]
)
def test_a_stray_argument_is_refused_by_name(
    capsys: pytest.CaptureFixture[str], command: str, arguments: list[str]
) -> None:
    assert "'b.jsonl'" in line(capsys, command, *arguments)


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--seed", "99999999999999999999"),
        ("--seed", "9" * 5000),
        ("--seed", "-1"),
        ("--seed", "1.5"),
        ("--learning-rate", "nan"),
        ("--learning-rate", "inf"),
        ("--learning-rate", "1e999"),
        ("--temperature", "-inf"),
        ("--kl-coef", "-1"),
        ("--kl-coef", "nan"),
        ("--device", ""),
        ("--device", "gpu"),
        ("--device", "cuda:x"),
        ("--model", ""),
        ("--output-dir", ""),
        ("--adapter", ""),
        ("--max-rounds", "0"),
        ("--max-rounds", "three"),
        ("--dtype", "int8"),
        ("--tensorboard", "maybe"),
        ("--prompt-data", ""),
    ],
)
def test_a_value_that_cannot_be_is_one_line(capsys: pytest.CaptureFixture[str], flag: str, value: str) -> None:
    told = line(capsys, "train", "--engine", "scripted", flag, value)
    assert flag.strip("-") in told.replace("_", "-") or "unexpected argument" in told
    assert len(told) < 300


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--steps", "0"),
        ("--epochs", "-1"),
        ("--batch-size", "0"),
        ("--sft-learning-rate", "nan"),
        ("--sft-learning-rate", "inf"),
        ("--measure", "-1"),
    ],
)
def test_a_warm_up_that_cannot_be_is_one_line(capsys: pytest.CaptureFixture[str], flag: str, value: str) -> None:
    assert flag in line(capsys, "sft", flag, value)


def test_output_of_a_warm_up_is_a_folder_of_its_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "notes.jsonl").write_text("{}\n", encoding="utf-8")
    for output in (tmp_path, tmp_path / "notes.jsonl", tmp_path / "notes.jsonl/adapter"):
        assert str(output) in line(capsys, "sft", "--output", str(output))


# -- environment -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_a_variable_that_is_no_setting_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("MEDSERL_LEARNIN_RATE", "1e-4")
    told = line(capsys, command)
    assert "MEDSERL_LEARNIN_RATE" in told and "did you mean 'MEDSERL_LEARNING_RATE'" in told


def test_variables_that_are_ours_are_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDSERL_CACHE", "/elsewhere")
    monkeypatch.setenv("MEDSERL_TEST_STARTED_BY", "a test")
    monkeypatch.setenv("MEDSERL_SEED", "7")
    assert settings(monkeypatch).seed == 7


def test_a_wrong_value_names_its_variable(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDSERL_KL_COEF", "much")
    assert re.search(r"MEDSERL_KL_COEF: kl_coef: .*'much'", line(capsys, "train"))
    assert settings(monkeypatch, "--kl-coef", "0.5").kl_coef == 0.5, "a flag wins"


def test_variables_are_no_flags_of_a_command_without_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seeds: list[int] = []
    monkeypatch.setattr("medserl.data.corpus.write_corpus", lambda output, seed: seeds.append(seed) or [])
    monkeypatch.setenv("MEDSERL_SEED", "5")
    main(["data", "sample", "--output", str(tmp_path)])
    assert seeds == [2026]


def test_every_variable_that_the_code_reads_is_a_setting_or_listed() -> None:
    from medserl.config import NOT_SETTINGS

    files = [*ROOT.glob("medserl/**/*.py"), *ROOT.glob("scripts/*.sh")]
    read = set(re.findall(r"\bMEDSERL_[A-Z_]+\b", "\n".join(file.read_text(encoding="utf-8") for file in files)))
    ours = {f"MEDSERL_{name.upper()}" for name in Settings.model_fields}
    assert read - ours - {"MEDSERL_TEST_"} == set(NOT_SETTINGS)


# -- settings that have been renamed ----------------------------------------------------------------------------


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_whoever_gives_the_old_name_is_told_the_new_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, old: str, new: str
) -> None:
    assert new in Settings.model_fields and old not in Settings.model_fields
    flag = f"--{old.replace('_', '-')}"
    assert f"{old} is now called {new}" in line(capsys, "train", flag, "3")
    file = tmp_path / "run.toml"
    file.write_text(f"{old} = 3\n", encoding="utf-8")
    assert f"run.toml: {old} is now called {new}" in line(capsys, "train", "--config", str(file))
    monkeypatch.setenv(f"MEDSERL_{old.upper()}", "3")
    assert f"{old} is now called {new}" in line(capsys, "train")
    with pytest.raises(ConfigError, match=f"{old} is now called {new}"):
        validate({old: 3})


def test_what_an_earlier_version_wrote_of_its_run_is_read(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("gold_lessons = 3\nseed = 1\n", encoding="utf-8")
    assert read_config(file, written=True) == {"sft_verdict_pairs": 3, "seed": 1}
    check_fixed({"gold_lessons": 3}, Settings(sft_verdict_pairs=3), tmp_path)
    with pytest.raises(ConfigError, match="sft_verdict_pairs 3"):
        check_fixed({"gold_lessons": 3}, Settings(), tmp_path)


# -- file ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("seed = 1\nseed = 2\n", "line 2"),
        ("seed = ", "Invalid value"),
        ("[model]\nname = 'x'\n", "model"),
        ("kl_coef = 'much'\n", "kl_coef"),
        ("kl_coef = [1]\n", "kl_coef"),
        ("seed = true_\n", "line 1"),
        ("seed = " + "9" * 5000, "digits"),
        ("seed = " + "[" * 9999, "nested"),
        ("unheard_of = 1\n", "unheard_of"),
        ("learnin_rate = 1\n", "did you mean 'learning_rate'"),
        ("seed = 1\n".encode("utf-16"), "UTF-8"),
        (b"model = '\xff'\n", "UTF-8"),
        (b"model = 'a\x00b'\n", "line 1"),
        ("learning_rate = nan\n", "learning_rate"),
        ("model = ''\n", "model"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str | bytes, told: str
) -> None:
    file = tmp_path / "run.toml"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    said = line(capsys, "train", "--engine", "scripted", "--config", str(file))
    assert told in said and "run.toml" in said


def test_no_file_and_a_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "no such file" in line(capsys, "train", "--config", str(tmp_path / "none.toml"))
    assert "directory" in line(capsys, "train", "--config", str(tmp_path))


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_bytes(b"\xef\xbb\xbfseed = 3\r\n")
    assert read_config(file) == {"seed": 3}


# -- help ------------------------------------------------------------------------------------------------------


def shown(capsys: pytest.CaptureFixture[str], command: str) -> str:
    main([command, "--help"])
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_the_settings_that_concern_the_command_in_their_groups(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    text = shown(capsys, command)
    for section in SECTIONS:
        names = list(section.model_fields)
        mine = [name for name in names if concerns(command, name)]
        assert (f"─ {section.__doc__} ─" in text) == bool(mine)
        for name in names:
            assert (re.search(rf"--{name.replace('_', '-')}\b(?!-)", text) is not None) == (name in mine), name


def test_sections_hold_every_setting_once() -> None:
    names = [name for section in SECTIONS for name in section.model_fields]
    assert names == list(Settings.model_fields)


def test_a_setting_that_is_not_shown_is_accepted_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert not concerns("play", "learning_rate")
    main(["play", "--engine", "scripted", "--learning-rate", "0.1", "--max-rounds", "3"])
    assert "VCF" in capsys.readouterr().out
