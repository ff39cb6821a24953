"""The loop with the scripted engine: a whole run in a second."""

from __future__ import annotations

import math
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medserl.config import Settings
from medserl.data.readers import read_notes
from medserl.data.sample_paths import sample_path
from medserl.engines.base import UpdateStats, WeightedTurn
from medserl.engines.scripted import ScriptedEngine
from medserl.errors import ConfigError, RunError
from medserl.evaluation.validation import Validation
from medserl.game.prompts import load_prompts
from medserl.rollout import VCFRolloutGenerator
from medserl.rounds.sampler import sample_games
from medserl.runs.runlog import RunFolder, read_rows
from medserl.trainer import MedSeRLTrainer

SETTINGS = Settings(engine="scripted", rollout_batch_size=16, max_rounds=4, tensorboard=False, save_every=2)


def build(run: RunFolder | None = None, engine: ScriptedEngine | None = None, **changes: Any) -> MedSeRLTrainer:
    notes = read_notes(sample_path("train")).notes[:80]
    held_out = read_notes(sample_path("validation")).notes
    return MedSeRLTrainer(SETTINGS, engine, notes, Validation(held_out, 8), run, **changes)


def folder(path: Path, **changes: Any) -> RunFolder:
    return RunFolder.create(SETTINGS.with_overrides(output_dir=str(path), **changes))


def test_a_run_leaves_every_file(tmp_path: Path) -> None:
    run = folder(tmp_path / "run")
    build(run).train()
    rows = read_rows(run.path / "metrics.jsonl")
    assert [row["round"] for row in rows] == [0, 1, 2, 3, 4]
    assert "eval_accuracy" in rows[0] and "eval_pairwise_accuracy" in rows[-1]
    episodes = read_rows(run.path / "episodes.jsonl")
    assert len(episodes) == 4 * 16 and {row["mode"] for row in episodes} == {"error", "benign"}
    assert "vcf_acceptance_rate=" in (run.path / "logs/train.log").read_text(encoding="utf-8")
    assert [path.name for path in run.checkpoints()] == ["round_2", "round_4"]
    assert (run.path / "config.toml").read_text(encoding="utf-8").startswith("# medserl")


def test_the_frozen_opponent_is_met_before_round_1_and_at_every_validation(tmp_path: Path) -> None:
    run = folder(tmp_path / "run")
    trainer = build(run, frozen_games=12, eval_every=2)
    trainer.train()
    games = read_rows(run.path / "frozen_opponent.jsonl")
    assert games and {game["mode"] for game in games} == {"error", "benign"}
    judged = [row["round"] for row in read_rows(run.path / "metrics.jsonl") if "frozen_accuracy" in row]
    assert judged == [0, 2, 4]
    assert trainer.validation is not None and trainer.validation.opponent is not None
    assert [game.modified for game in trainer.validation.opponent.games] == [game["modified"] for game in games]


def test_every_accepted_game_is_accounted_for() -> None:
    trained: list[WeightedTurn] = []

    class Recording(ScriptedEngine):
        def update(self, turns: Sequence[WeightedTurn], *, learning_rate: float) -> UpdateStats:
            trained.extend(turns)
            return super().update(turns, learning_rate=learning_rate)

    metrics = build(engine=Recording()).training_step(sample_games(size=16))
    assert len(trained) == metrics["samples"] == 2 * metrics["accepted_games"]
    assert {turn.turn.role for turn in trained} == {"injector", "assessor"}


@pytest.mark.parametrize("role", ["injector", "assessor"])
def test_only_the_chosen_role_is_trained(role: str) -> None:
    metrics = build(roles_trained=role).training_step(sample_games(size=16))
    other = {"injector": "assessor", "assessor": "injector"}[role]
    assert metrics[f"advantage_{role}"] is not None and metrics[f"advantage_{other}"] is None


def test_modes_and_notes_are_fresh_each_round() -> None:
    trainer = build()
    first, second = trainer.sampler.next_batch(), trainer.sampler.next_batch()
    assert not {game.note.note_id for game in first} & {game.note.note_id for game in second}
    assert sum(game.mode == "error" for game in first) == 8


def test_rounds_without_an_accepted_note_go_on_twice_and_stop_at_the_third(caplog: pytest.LogCaptureFixture) -> None:
    mute = ScriptedEngine(lambda messages, rng: "no.")
    trainer = build(engine=mute)
    trainer.validation = None
    with pytest.raises(RunError, match="3 rounds in a row"):
        trainer.train()
    assert trainer.round == 3 and mute.updates == 0
    assert caplog.text.count("accepted no note") == 3


def test_a_game_without_a_verdict_trains_the_assessor_alone() -> None:
    def player(messages: Any, rng: Any) -> str:
        content = messages[-1]["content"]
        return "appears correct" if "final_answer" in content else "0 Something else entirely is written."

    engine = ScriptedEngine()
    default = engine.player
    engine.player = lambda messages, rng: (
        "appears correct" if "final_answer" in messages[-1]["content"] else default(messages, rng)
    )
    metrics = build(engine=engine).training_step(sample_games(size=16))
    assert metrics["no_verdict_rate"] == 1.0
    assert metrics["reward_assessor"] == -1.0 and metrics["reward_injector"] is None
    assert metrics["samples"] == metrics["accepted_games"]


def test_resume_gives_the_same_metrics(tmp_path: Path) -> None:
    straight = build(folder(tmp_path / "a")).train()
    run = folder(tmp_path / "b")
    build(run, max_rounds=2).train()
    run.close()
    run, _ = RunFolder.reopen(tmp_path / "b")
    second = build(run)
    second.load_checkpoint()
    resumed = second.train()
    timings = ("seconds_", "tokens_per_second_")
    plain = [{k: v for k, v in row.items() if not k.startswith(timings)} for row in straight + resumed]
    assert plain[4:] == plain[2:4]
    assert "frozen_accuracy" in plain[-1]
    stored = [(tmp_path / name / "frozen_opponent.jsonl").read_bytes() for name in ("a", "b")]
    assert stored[0] == stored[1] != b""


def test_a_signal_between_a_checkpoint_and_the_end_of_its_round_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes when the trainer has looked for one already and asks whether a checkpoint is due."""
    run = folder(tmp_path / "run")
    trainer = build(run, save_every=100)

    def due(self: MedSeRLTrainer, every: int) -> bool:
        if every == 100 and self.round == 2:
            signal.raise_signal(signal.SIGTERM)
        return False

    monkeypatch.setattr(MedSeRLTrainer, "_due", due)
    trainer.train()
    saved = run.latest_checkpoint()
    assert trainer.round == 3 and saved is not None and saved[1]["round"] == 3


def test_a_non_finite_reward_or_loss_stops_the_run() -> None:
    class Broken(ScriptedEngine):
        def _complete(self, text: str, messages: Any) -> Any:
            completion = super()._complete(text, messages)
            return replace(completion, logprobs=(math.nan,) * len(completion.logprobs))

    with pytest.raises(RunError, match=r"round 1.*note .*not finite"):
        build(engine=Broken()).training_step(sample_games(size=16))


# -- what cannot be learnt from ----------------------------------------------------------------------------


def test_a_nucleus_is_refused_in_training_and_allowed_in_play() -> None:
    with pytest.raises(ConfigError, match=r"top_p is 0\.9, but training needs 1") as caught:
        build(top_p=0.9)
    assert "\n" not in str(caught.value)
    nucleus = SETTINGS.with_overrides(top_p=0.9)
    rollout = VCFRolloutGenerator(ScriptedEngine(), load_prompts("term", "edit"), nucleus)
    assert rollout.play(sample_games(size=4), 0)


def test_an_edit_cut_at_the_limit_is_none() -> None:
    """The first words of a sentence are a numbered sentence too, and may well pass the VCF."""
    trainer = build(max_new_tokens_injector=12)
    metrics = trainer.training_step(sample_games(size=16))
    attempts = sum(value for key, value in metrics.items() if key.startswith("vcf_reject_")) + metrics["accepted_games"]
    assert 0 < metrics["truncated_injector"] == metrics["vcf_reject_truncated"] < attempts
    assert metrics["truncated_assessor"] == 0


def test_a_verdict_cut_at_the_limit_is_none() -> None:
    """`final_answer: CORRECT` and no room for the end of the turn: what would have followed nobody knows."""
    metrics = build(max_new_tokens_assessor=2, gold_fraction=0.5).training_step(sample_games(size=16))
    assert metrics["accepted_games"] > 0 and metrics["no_verdict_rate"] == 1.0 and metrics["gold_accuracy"] == 0.0
    gold = 16  # turns on gold texts, half of all where one sample is taken of each game
    assert metrics["truncated_assessor"] == metrics["accepted_games"] + gold
    assert metrics["no_variance_assessor"] == 1.0
    with_room = build(max_new_tokens_assessor=3).training_step(sample_games(size=16))
    assert with_room["no_verdict_rate"] == with_room["truncated_assessor"] == 0


def test_rounds_tell_where_rewards_did_not_vary() -> None:
    engine = ScriptedEngine()
    default = engine.player
    engine.player = lambda messages, rng: (
        "final_answer: CORRECT" if "final_answer" in messages[-1]["content"] else default(messages, rng)
    )
    metrics = build(engine=engine).training_step(sample_games(size=16))
    # one verdict for all: each mode ended alike, and the roles did not
    assert metrics["no_variance_share"] == 1.0
    assert metrics["no_variance_assessor"] == metrics["no_variance_injector"] == 0.0


def test_turns_without_log_probabilities_stop_the_run() -> None:
    class Silent(ScriptedEngine):
        def _complete(self, text: str, messages: Any) -> Any:
            return replace(super()._complete(text, messages), logprobs=())

    with pytest.raises(RunError, match=r"round 1, note .*0 log-probabilities"):
        build(engine=Silent()).training_step(sample_games(size=16))


def test_a_falling_learning_rate_never_turns_negative() -> None:
    trainer = build(lr_schedule="linear", max_rounds=2)
    rates = []
    for trainer.round in (1, 2, 3, 4):
        rates.append(trainer.learning_rate() / trainer.settings.learning_rate)
    assert rates == [1.0, 0.5, 0.0, 0.0]
