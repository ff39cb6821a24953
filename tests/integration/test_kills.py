"""A kill at every change of the disk of a whole small run: what is left resumes to the same games and weights."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from medserl.config import Settings
from medserl.data.readers import read_notes
from medserl.data.sample_paths import sample_path
from medserl.engines.scripted import ScriptedEngine
from medserl.errors import RunError
from medserl.evaluation.validation import Validation
from medserl.runs.checkpoints import find_damage
from medserl.runs.runlog import CONFIG, EPISODES, FROZEN_GAMES, METRICS, RunFolder
from medserl.trainer import MedSeRLTrainer
from tests.killed import killed_at

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="open files are truncated through /proc")

SETTINGS = Settings(
    engine="scripted", rollout_batch_size=2, max_rounds=2, save_every=1, keep_checkpoints=1, eval_notes=1,
    frozen_games=1, tensorboard=False,
)  # fmt: skip
NOTES = read_notes(sample_path("train")).notes[:4]
HELD_OUT = read_notes(sample_path("validation")).notes[:1]


def play(path: Path) -> None:
    """Start the run in this folder, or go on with it, as the commands do."""
    if (path / CONFIG).exists():
        run, settings = RunFolder.reopen(path)
    else:
        settings = SETTINGS.with_overrides(output_dir=str(path))
        run = RunFolder.create(settings)
    try:
        trainer = MedSeRLTrainer(settings, ScriptedEngine(), NOTES, Validation(HELD_OUT, 1), run)
        trainer.load_checkpoint()
        if not trainer.finished:
            trainer.train()
    finally:
        run._lock.release()  # the system does that, whatever else a dead process leaves


def outcome(path: Path) -> dict[str, Any]:
    timings = ("seconds_", "tokens_per_second_")
    rows = [json.loads(line) for line in (path / METRICS).read_text(encoding="utf-8").splitlines()]
    names = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
    return {
        "files": {name for name in names if not name.startswith("checkpoints/round_1/")},  # dropped with the next save
        "metrics": [{k: v for k, v in row.items() if not k.startswith(timings)} for row in rows],
        "games": (path / EPISODES).read_bytes(),
        "frozen": (path / FROZEN_GAMES).read_bytes(),
        "weights": (path / "checkpoints" / "round_2" / "scripted.json").read_bytes(),
    }


def assert_nothing_half_counts(path: Path) -> None:
    for checkpoint in RunFolder(path).checkpoints():
        assert find_damage(checkpoint) is None


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], int]:
    """What the run comes to, and the number of changes of the disk that it makes."""
    path = tmp_path_factory.mktemp("runs") / "uninterrupted"
    with killed_at(path) as disk:
        play(path)
    return outcome(path), disk.changes


def test_a_kill_at_every_change_of_the_disk(uninterrupted: tuple[dict[str, Any], int], tmp_path: Path) -> None:
    expected, changes = uninterrupted
    assert changes > 60
    for change in range(1, changes + 1):
        path = tmp_path / str(change)
        with killed_at(path, change) as disk:
            play(path)
        assert disk.changes >= change, "it was not killed"
        assert_nothing_half_counts(path)
        play(path)
        assert outcome(path) == expected, f"killed at change {change}"


def test_a_kill_at_every_change_while_resuming(uninterrupted: tuple[dict[str, Any], int], tmp_path: Path) -> None:
    """The first kill comes while round 2 is written, the second wherever it may until that is written again."""
    expected, changes = uninterrupted
    play_until_round_2(tmp_path / "0", changes)
    with killed_at(tmp_path / "0") as disk:
        play(tmp_path / "0")
    assert disk.changes > 15
    for change in range(1, disk.changes + 1, 2):
        path = tmp_path / str(change)
        play_until_round_2(path, changes)
        with killed_at(path, change):
            play(path)
        assert_nothing_half_counts(path)
        play(path)
        assert outcome(path) == expected, f"killed at change {change}"


def play_until_round_2(path: Path, changes: int) -> None:
    with killed_at(path, changes - 15):
        play(path)


def test_a_run_killed_before_its_settings_are_there_is_no_run(tmp_path: Path) -> None:
    with killed_at(tmp_path / "run", 2):
        play(tmp_path / "run")
    with pytest.raises(RunError, match=r"no config\.toml there, so this is no run folder"):
        RunFolder.reopen(tmp_path / "run")
    play(tmp_path / "run")
