"""A trainer with the scripted engine, whose every call is written down."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medserl.config import Settings
from medserl.data.readers import read_notes
from medserl.data.sample_paths import sample_path
from medserl.engines.base import Sampling, UpdateStats, WeightedTurn
from medserl.engines.scripted import ScriptedEngine
from medserl.evaluation.validation import Validation
from medserl.game.episode import Completion, Turn
from medserl.game.prompts import Messages
from medserl.runs.runlog import RunFolder
from medserl.trainer import MedSeRLTrainer

BASE = Settings(
    engine="scripted",
    prompts="term",
    rollout_batch_size=16,
    max_epochs=2,  # of 40 notes: rounds of 16, 16 and 8 games, twice
    tensorboard=False,
    save_every=2,
    frozen_games=4,
    learning_rate=0.05,
)


class Recording(ScriptedEngine):
    """Writes down every call of the trainer's."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.samplings: list[Sampling] = []
        self.trained: list[WeightedTurn] = []
        self.rates: list[float] = []

    def generate(self, prompts: Sequence[Messages], sampling: Sampling) -> list[Completion]:
        self.calls.append(f"generate {sampling.role} {len(prompts)}")
        self.samplings.append(sampling)
        return super().generate(prompts, sampling)

    def target_turns(self, *arguments: Any) -> list[Turn]:
        self.calls.append("target_turns")
        return super().target_turns(*arguments)

    def logprobs(self, turns: Sequence[Turn], *, reference: bool = False) -> list[tuple[float, ...]]:
        self.calls.append(f"logprobs {'reference' if reference else 'policy'} {len(turns)}")
        return super().logprobs(turns, reference=reference)

    def update(self, turns: Sequence[WeightedTurn], *, learning_rate: float) -> UpdateStats:
        self.calls.append(f"update {len(turns)}")
        self.trained = list(turns)
        self.rates.append(learning_rate)
        return super().update(turns, learning_rate=learning_rate)


def build(
    run: RunFolder | None = None, engine: ScriptedEngine | None = None, rounds: int | None = None, **changes: Any
) -> MedSeRLTrainer:
    notes = read_notes(sample_path("train")).notes[:40]
    held_out = read_notes(sample_path("validation")).notes
    limit = {"max_rounds": rounds} if rounds else {}
    return MedSeRLTrainer(BASE, engine, notes, Validation(held_out, 4) if run else None, run, **changes, **limit)


def one_round(engine: ScriptedEngine | None = None, **changes: Any) -> dict[str, Any]:
    trainer = build(engine=engine, **changes)
    return trainer.training_step(trainer.sampler.next_batch())


def adding(words: Sequence[str], answer: str = "final_answer: CORRECT") -> Recording:
    """The Injector adds these words in turn, each to a note's first sentence; the Assessor says always the same."""
    engine, turn = Recording(), iter(range(1000))

    def player(messages: Messages, _: Any) -> str:
        content = messages[-1]["content"]
        if "final_answer" in content:
            return answer
        first = next(line for line in content.split("\n") if line.startswith("0 "))
        return f"{first[:-1]} {words[next(turn) % len(words)]}."

    engine.player = player
    return engine


def folder(path: Path, **changes: Any) -> RunFolder:
    return RunFolder.create(BASE.with_overrides(output_dir=str(path), **changes))
