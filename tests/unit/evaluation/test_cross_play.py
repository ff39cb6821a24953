"""Cross-play: who beats whom, counted on the same notes by players whose strength is known."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from medserl.cli import main
from medserl.config import Settings
from medserl.data.readers import read_notes
from medserl.data.sample_paths import sample_path
from medserl.engines.scripted import ScriptedEngine
from medserl.errors import ConfigError, RunError
from medserl.evaluation.cross_play import Policy, cross_play, policies_of
from medserl.evaluation.cross_table import CROSS_PLAY, cross_markdown, grid, is_record
from medserl.game.prompts import Messages, load_prompts
from medserl.reports.html import write_report
from medserl.rollout import VCFRolloutGenerator
from medserl.trainer import MedSeRLTrainer

NOTES = read_notes(sample_path("validation")).notes[:4]
SETTINGS = Settings(engine="scripted", prompts="term")


def player(word: str, sees: tuple[str, ...]) -> Any:
    """Puts `word` at the end of a note's first sentence; calls INCORRECT what holds a word that it sees."""

    def say(messages: Messages, _: random.Random) -> str:
        content = messages[-1]["content"]
        if "final_answer" in content:
            flagged = any(known in content for known in sees)
            return f"final_answer: {'INCORRECT' if flagged else 'CORRECT'}"
        first = next(line for line in content.split("\n") if line.startswith("0 "))
        return f"{first[:-1]} {word}."

    return say


PLAYERS = {"start": player("zebra", ()), "end": player("yak", ("zebra",))}


@contextmanager
def scripted(policy: Policy) -> Iterator[VCFRolloutGenerator]:
    engine = ScriptedEngine(PLAYERS[policy.name])
    yield VCFRolloutGenerator(engine, load_prompts("term", "edit"), SETTINGS)


def test_every_injector_meets_every_assessor_on_the_same_notes() -> None:
    """Who never flags a note loses the error games and wins the benign ones; who sees the word, the other way."""
    record = cross_play([Policy(name, SETTINGS) for name in PLAYERS], NOTES, 0, scripted)
    won = {
        (cell["assessor"], cell["injector"]): (cell["by_mode"]["error"]["won"], cell["by_mode"]["benign"]["won"])
        for cell in record["cells"]
    }
    assert won == {
        ("start", "start"): (4, 0),
        ("start", "end"): (4, 0),
        ("end", "start"): (0, 4),
        ("end", "end"): (4, 0),
    }
    assert all(cell["games"] == 8 and cell["won"] == 4 for cell in record["cells"])
    accepted = [(each["accepted_error"], each["accepted_benign"], each["played"]) for each in record["injectors"]]
    assert accepted == [(4, 4, 8)] * 2
    assert not any(note.correct_note[:40] in json.dumps(record) for note in NOTES)


def test_the_table_has_an_assessor_a_row_and_an_injector_a_column() -> None:
    cells = [("start", "start", 4, 2), ("start", "run 60", 4, 1), ("run 60", "start", 4, 4), ("run 60", "run 60", 0, 0)]
    known = {"accepted_error": 2, "accepted_benign": 2, "played": 8, "labels_decided": 3, "labels_wrong": 1}
    record = {
        "policies": ["start", "run 60"],
        "notes": 4,
        "file": {"name": "notes.jsonl"},
        "cells": [{"injector": i, "assessor": a, "games": games, "won": won} for i, a, games, won in cells],
        "injectors": [{"name": "start", **known}, {"name": "run 60", **known, "labels_decided": 0}],
    }
    assert is_record(record)
    lines = cross_markdown(record).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert rows[0] == ["Assessor \\ Injector", "start", "run 60"]
    assert rows[2] == ["start", "50.0 (15.0 to 85.0)", "100.0 (51.0 to 100.0)"]
    assert rows[3] == ["run 60", "25.0 (4.6 to 69.9)", "no game"]
    assert "- start: 2 error and 2 benign edits of 8 accepted; 1 of 3 labels wrong that the fact table decides" in lines
    assert "- run 60: 2 error and 2 benign edits of 8 accepted" in lines
    for broken in ({}, {**record, "cells": record["cells"][:3]}, {**record, "policies": None}, {**record, "file": "x"}):
        assert not is_record(broken)


# -- runs --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two scripted runs of 6 rounds, of which one keeps all its checkpoints and one the last."""
    folder = tmp_path_factory.mktemp("runs")
    made = []
    for name, keep in (("one", 9), ("two", 1)):
        settings: dict[str, Any] = {"engine": "scripted", "prompts": "term", "rollout_batch_size": 8, "max_rounds": 6}
        settings |= {"save_every": 2, "keep_checkpoints": keep, "tensorboard": False, "learning_rate": 5.0}
        notes = read_notes(sample_path("train")).notes[:48]
        MedSeRLTrainer(output_dir=folder / name, notes=notes, validation=None, **settings).train()
        made.append(folder / name)
    return made


def test_start_middle_and_end_of_each_run_as_far_as_they_are_there(
    runs: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert [policy.name for policy in policies_of(runs, Settings())] == ["start", "one 2", "one 6", "two 6"]
    assert "checkpoints of rounds 2, 4, 6 are there" in caplog.text and "rounds 6 are there" in caplog.text


def test_other_starts_have_a_name_each(runs: list[Path]) -> None:
    found = policies_of(runs[:1], Settings(thinking=True))
    assert found[0].name == "start" and found[0].settings.thinking
    config = runs[1] / "config.toml"
    before = config.read_text()
    config.write_text(before.replace("thinking = false", "thinking = true"))
    try:
        named = [policy.name for policy in policies_of(runs, Settings())]
    finally:
        config.write_text(before)
    assert named == ["one start", "one 2", "one 6", "two start", "two 6"]


def test_the_command_writes_the_table_where_each_report_shows_it(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["evaluate", "--cross-play", *map(str, runs), "--limit", "5"])
    said = " ".join(capsys.readouterr().out.split())
    assert "one 6" in said and "two 6" in said and "a column that falls" in said
    records = [json.loads((run / CROSS_PLAY).read_text()) for run in runs]
    assert records[0] == records[1] and records[0]["policies"] == ["start", "one 2", "one 6", "two 6"]
    assert len(records[0]["cells"]) == 16 and records[0]["notes"] == 5
    assert [name for name, _ in grid(records[0])] == records[0]["policies"]
    page = write_report(runs[0], tmp_path / "report.html").read_text()
    assert "Cross-play: who beats whom" in page and '<th scope="row">two 6</th>' in page
    without = write_report(runs[0], tmp_path / "without.html", with_notes=False).read_text()
    assert "Cross-play: who beats whom" in without and str(runs[0].parent) not in without
    main(["evaluate", "--cross-play", str(runs[0]), "--limit", "5", "--output", str(tmp_path / "there")])
    assert json.loads((tmp_path / "there" / CROSS_PLAY).read_text())["policies"] == ["start", "one 2", "one 6"]
    assert json.loads((runs[0] / CROSS_PLAY).read_text()) == records[0]


def test_a_later_assessor_is_the_later_one(runs: list[Path], tmp_path: Path) -> None:
    """The scripted Assessor's bias is its weights, and that of the last checkpoint makes it say the same always."""
    bias = json.loads((runs[0] / "checkpoints" / "round_6" / "scripted.json").read_text())["bias"]
    assert abs(bias) > 3
    main(["evaluate", "--cross-play", str(runs[0]), "--limit", "12", "--output", str(tmp_path)])
    lost = "error" if bias < 0 else "benign"  # the mode in which that verdict is wrong
    mine = [cell for cell in json.loads((tmp_path / CROSS_PLAY).read_text())["cells"] if cell["assessor"] == "one 6"]
    assert len(mine) == 3
    assert all(cell["by_mode"][lost]["won"] >= 0.8 * cell["by_mode"][lost]["games"] for cell in mine)


def test_what_cannot_be_played_is_told_in_one_line(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RunError, match=r"no config\.toml"):
        policies_of([tmp_path], Settings())
    with pytest.raises(ConfigError, match="called alike"):
        policies_of([runs[0], runs[0]], Settings())
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "config.toml").write_text((runs[0] / "config.toml").read_text())
    with pytest.raises(RunError, match="no checkpoint in this run yet"):
        policies_of([empty], Settings())
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", "--cross-play", str(runs[0]), "--run", str(runs[1])])
    assert stopped.value.code == 2 and "evaluation of its own" in " ".join(capsys.readouterr().err.split())
    (empty / CROSS_PLAY).write_text('{"policies": [1]}')
    with pytest.raises(RunError, match="no record of cross-play"):
        write_report(empty)
