"""Playing a round ahead changes which weights play, and neither the batches nor what a checkpoint says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medserl.commands import train
from medserl.config import Settings
from medserl.engines import create_engine
from medserl.engines.scripted import ScriptedEngine
from medserl.errors import ConfigError, RunError

QUICK: dict[str, Any] = {
    "engine": "scripted", "rollout_batch_size": 4, "validation_data": "none", "tensorboard": False, "frozen_games": 0,
}  # fmt: skip


def games(run: Path) -> list[tuple[int, str, str]]:
    lines = (run / "episodes.jsonl").read_text(encoding="utf-8").splitlines()
    return [(row["round"], row["note_id"], row["mode"]) for row in map(json.loads, lines)]


def test_the_same_batches_in_the_same_rounds(tmp_path: Path) -> None:
    runs = [
        train(Settings(**QUICK, max_rounds=4, async_rollout=ahead, output_dir=str(tmp_path / str(ahead))))
        for ahead in (False, True)
    ]
    assert games(runs[0]) == games(runs[1])


def test_a_resumed_run_plays_what_would_have_come(tmp_path: Path) -> None:
    settings = Settings(**QUICK, max_rounds=4, save_every=1, async_rollout=True)
    whole = train(settings.with_overrides(output_dir=str(tmp_path / "whole")))
    part = train(settings.with_overrides(output_dir=str(tmp_path / "part"), max_rounds=2))
    config = (part / "config.toml").read_text(encoding="utf-8").replace("max_rounds = 2", "max_rounds = 4")
    (part / "config.toml").write_text(config, encoding="utf-8")
    assert games(train(Settings(resume=str(part)))) == games(whole)


def test_weights_are_sent_only_between_games(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And each round after the first is played with one update fewer than it comes after."""
    playing, updates_seen = [0], []
    generate, sync = ScriptedEngine.generate, ScriptedEngine.sync

    def watched_generate(self: ScriptedEngine, *args: Any) -> Any:
        playing[0] += 1
        updates_seen.append(synced[0])
        completions = generate(self, *args)
        playing[0] -= 1
        return completions

    synced = [0]

    def watched_sync(self: ScriptedEngine) -> None:
        assert playing[0] == 0
        synced[0] += 1
        sync(self)

    monkeypatch.setattr(ScriptedEngine, "generate", watched_generate)
    monkeypatch.setattr(ScriptedEngine, "sync", watched_sync)
    train(Settings(**QUICK, max_rounds=4, async_rollout=True, output_dir=str(tmp_path / "run")))
    assert updates_seen == sorted(updates_seen)
    assert set(updates_seen) == {0, 1, 2}
    assert synced == [4]


def test_an_error_while_playing_ahead_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(100))
    generate = ScriptedEngine.generate

    def failing(self: ScriptedEngine, *args: Any) -> Any:
        if next(calls) > 8:
            raise RunError("generating: the engine died")
        return generate(self, *args)

    monkeypatch.setattr(ScriptedEngine, "generate", failing)
    with pytest.raises(RunError, match="the engine died"):
        train(Settings(**QUICK, max_rounds=9, async_rollout=True, output_dir=str(tmp_path / "run")))


def test_the_local_engine_refuses() -> None:
    with pytest.raises(ConfigError, match="async_rollout needs engine openrlhf"):
        create_engine(Settings(engine="local", async_rollout=True, adapter="none"))
