"""The trainer with what keeps the game teaching: each shows in the metrics, costs nothing when off, and resumes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from medserl.config.removed import REMOVED
from medserl.engines.base import WeightedTurn
from medserl.engines.scripted import ScriptedEngine
from medserl.errors import ConfigError
from medserl.game.episode import Turn
from medserl.rollout import derive_seed
from medserl.rounds.clock import PhaseClock
from medserl.runs.runlog import RunFolder, read_rows
from tests.ingredients import BASE, Recording, adding, build, folder, one_round

ALL: dict[str, Any] = {
    "gold_fraction": 0.25,
    "sft_verdict_pairs": 3,
    "sft_edit_pairs": 2,
    "sft_games": 4,
    "judge_originals": True,
    "assessor_samples": 2,
    "assessor_reward": "correction",
    "advantage_normalization": "per_text",
    "kl_target": 0.02,
    "adapters": "per_role",
    "prompts": "term",
    "eval_every": 2,
}
TIMINGS = ("seconds_", "tokens_per_second_", "peak_memory_gb")


def term_file() -> Path:
    return Path(str(files("medserl.game.prompts"))) / "term.toml"


# -- off -----------------------------------------------------------------------------------------------------


def test_off_costs_no_call() -> None:
    """The engine is asked for what the plan as written needs: the attempts, the verdicts, the reference, the update."""
    twin, engine = build(), Recording()
    episodes = twin.play(twin.sampler.next_batch(), 1, PhaseClock()).episodes
    trainer = build(engine=engine)
    metrics = trainer.training_step(trainer.sampler.next_batch())
    tries = [len(episode.attempts) for episode in episodes]
    accepted = sum(episode.accepted is not None for episode in episodes)
    assert engine.calls == [
        *(f"generate injector {sum(made > number for made in tries)}" for number in range(max(tries))),
        f"generate assessor {accepted}",
        f"logprobs reference {2 * accepted}",
        f"update {2 * accepted}",
    ]
    assert max(tries) > 1
    seed = derive_seed(BASE.seed, "round", 1)
    parts = [*(("inject", number) for number in range(max(tries))), ("assess",)]
    assert [each.seed for each in engine.samplings] == [derive_seed(seed, *part) for part in parts]
    assert not [name for name in metrics if name.startswith("gold_")]
    assert metrics["kl_coef"] == BASE.kl_coef  # shown in any case


def test_off_keeps_nothing() -> None:
    engine = Recording()
    build(engine=engine).train()
    assert "target_turns" not in engine.calls


# -- the learning rate ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({}, [1, 1, 1, 1]),
        ({"lr_warmup_rounds": 3}, [0.25, 0.5, 0.75, 1]),
        ({"lr_schedule": "linear"}, [1, 0.75, 0.5, 0.25]),
        ({"lr_warmup_rounds": 1, "lr_schedule": "linear"}, [0.5, 0.75, 0.5, 0.25]),
    ],
)
def test_the_learning_rate_rises_and_falls(tmp_path: Path, changes: dict[str, Any], parts: list[float]) -> None:
    engine = Recording()
    rows = build(folder(tmp_path / "run"), engine, rounds=4, learning_rate=1e-3, **changes).train()
    assert engine.rates == [row["lr"] for row in rows] == pytest.approx([1e-3 * part for part in parts])


# -- rewards and advantages ----------------------------------------------------------------------------------


def test_several_samples_of_the_assessor(tmp_path: Path) -> None:
    run, engine = folder(tmp_path / "run"), Recording()
    trainer = build(run, engine, rounds=1, assessor_samples=2)
    (metrics,) = trainer.train()
    games = [row for row in read_rows(run.path / "episodes.jsonl") if row["modified"]]
    assert metrics["samples"] == 3 * len(games) == 3 * metrics["accepted_games"]
    worth = {"INCORRECT": {"error": -1.0, "benign": 1.0}, "CORRECT": {"error": 1.0, "benign": -1.0}}
    for row in games:
        verdicts = [row["verdict"], *row["more_verdicts"]]
        assert row["reward_injector"] == sum(worth[verdict][row["mode"]] for verdict in verdicts) / 2
    assert {row["reward_injector"] for row in games} == {-1.0, 0.0, 1.0}


def test_originals_are_read_as_often_as_their_edits() -> None:
    trainer = build(engine=Recording(), judge_originals=True, assessor_samples=3, advantage_normalization="per_text")
    played = trainer.play(trainer.sampler.next_batch(), 1, PhaseClock())
    errors = [episode.note_id for episode in played.episodes if episode.accepted and episode.mode == "error"]
    assert [each.gold.note_id for each in played.originals] == [name for name in errors for _ in range(3)]
    trainer.update(played, PhaseClock())
    by_text: dict[str, list[WeightedTurn]] = {}
    for turn in trainer.engine.trained:
        if turn.turn.role == "assessor":
            by_text.setdefault(turn.turn.messages[-1]["content"], []).append(turn)
    alike = [mine for mine in by_text.values() if len({turn.reward for turn in mine}) == 1]
    assert {len(mine) for mine in by_text.values()} == {3} and 0 < len(alike) < len(by_text)
    for mine in alike:  # what all answers to a text earn teaches nothing: the KL of the scripted engine is 0
        assert all(advantage == pytest.approx(0.0, abs=1e-6) for turn in mine for advantage in turn.advantages)


def test_the_words_are_paid_for_in_games_originals_and_gold_turns() -> None:
    engine = adding(["daily"], "should_say: daily\nfinal_answer: INCORRECT")
    trainer = build(engine=engine, judge_originals=True, gold_fraction=0.25, assessor_reward="correction", kl_coef=0.0)
    trainer.training_step(trainer.sampler.next_batch())
    rewards = {turn.reward for turn in engine.trained if turn.turn.role == "assessor"}
    assert rewards == {0.0, -1.0}  # the note says daily because the Injector put it in; no original or gold note does


def test_a_prompt_set_that_asks_for_no_words_cannot_pay_for_them(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    plain = re.sub(r"^(sentence|should_say|it_says): .*\n", "", term_file().read_text(), flags=re.MULTILINE)
    own.write_text(plain.replace("Write sentence, should_say, it_says, final_answer.", "Write final_answer."))
    with pytest.raises(ConfigError, match="assessor_reward correction"):
        build(engine=Recording(), prompts=str(own), assessor_reward="correction")


@pytest.mark.parametrize(("gap", "factor"), [(0.0, 0.98), (0.02, 1.0), (5.0, 1.02)])
def test_kl_target_steers_the_coefficient(gap: float, factor: float) -> None:
    class Drifted(ScriptedEngine):
        def logprobs(self, turns: Sequence[Turn], *, reference: bool = False) -> list[tuple[float, ...]]:
            return [tuple(p - gap * reference for p in row) for row in super().logprobs(turns)]

    trainer = build(engine=Drifted(), kl_target=0.02)
    steps = [trainer.training_step(trainer.sampler.next_batch())["kl_coef"] for _ in range(2)]
    assert steps == pytest.approx([0.01 * factor, 0.01 * factor**2], rel=1e-4)


def test_per_mode_a_game_that_the_mode_alone_decides_teaches_nothing() -> None:
    """The Assessor answers alike whatever it reads: by role one mode is pushed up and the other down, by mode none."""
    engines = {name: adding(["daily"]) for name in ("per_role", "per_mode")}
    metrics = {name: one_round(engines[name], advantage_normalization=name, kl_coef=0.0) for name in engines}
    assert 0 < metrics["per_mode"]["accepted_error_share"] < 1
    moved = {name: {value for turn in engine.trained for value in turn.advantages} for name, engine in engines.items()}
    assert moved["per_mode"] == {0.0} and min(moved["per_role"]) < 0 < max(moved["per_role"])


# -- all at once ---------------------------------------------------------------------------------------------


def outcome(run: Path) -> tuple[list[dict[str, Any]], str, list[str]]:
    """Metrics without timings, the episodes, and everything in the last checkpoint."""
    rows = [{k: v for k, v in row.items() if not k.startswith(TIMINGS)} for row in read_rows(run / "metrics.jsonl")]
    saved = sorted((run / "checkpoints" / "round_6").iterdir())
    return rows, (run / "episodes.jsonl").read_text(encoding="utf-8"), [path.read_text("utf-8") for path in saved]


def test_a_run_with_everything_on_resumes_bit_identically(tmp_path: Path) -> None:
    build(folder(tmp_path / "straight", **ALL), **ALL).train()
    run = folder(tmp_path / "stopped", **ALL)
    build(run, rounds=4, **ALL).train()
    run.close()
    run, _ = RunFolder.reopen(tmp_path / "stopped")
    second = build(run, **ALL)
    second.load_checkpoint()
    assert second.round == 4
    second.train()
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "straight")
    rows, _, _ = outcome(tmp_path / "straight")
    shown = {"gold_accuracy", "sft_loss", "kl_coef"}
    assert all(shown <= row.keys() for row in rows[1:])
    assert rows[-1]["kl_coef"] == pytest.approx(0.01 * 0.98**6)  # the scripted policy never leaves its reference


class Older(ScriptedEngine):
    """Saves what an older version saved: a list beside, empty by default, of an ingredient that is gone."""

    def save(self, folder: Path) -> None:
        super().save(folder)
        state = json.loads((folder / "scripted.json").read_text(encoding="utf-8"))
        (folder / "scripted.json").write_text(json.dumps(state | {"past": {}}), encoding="utf-8")


def test_a_run_that_an_older_version_began_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(folder(tmp_path / "straight", eval_every=2), eval_every=2).train()
    gone = {name: default for name, (default, _) in REMOVED.items()}
    run = folder(tmp_path / "stopped", eval_every=2)
    with (run.path / "config.toml").open("a", encoding="utf-8") as config:
        config.writelines(f"{name} = {json.dumps(default)}\n" for name, default in gone.items())

    def save(state: dict[str, Any], *rest: Any) -> Path:
        return RunFolder.save_checkpoint(run, {**state, "settings": state["settings"] | gone, "past": []}, *rest)

    monkeypatch.setattr(run, "save_checkpoint", save)
    build(run, Older(), rounds=4, eval_every=2).train()
    run.close()
    again, settings = RunFolder.reopen(tmp_path / "stopped")
    assert settings == BASE.with_overrides(eval_every=2, output_dir=str(run.path))
    resumed = build(again, eval_every=2)
    resumed.load_checkpoint()
    assert resumed.round == 4
    resumed.train()
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "straight")
