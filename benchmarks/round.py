"""What a round costs, and how much of it is the model's own work.

    python benchmarks/round.py [--notes 32] [--rounds 2]

Prints seconds and tokens/s by phase of rounds of the embedded model on the sample notes, and the ratio of a round's
time to the bare time of the same work: decoding the same prompts for as many tokens, and one forward-backward pass over
the same turns, each called directly with nothing of the game, the rewards, the reference or the records around it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from medserl.config import Settings
from medserl.data.sampler import sample_notes
from medserl.engines import create_engine
from medserl.engines.base import Sampling, WeightedTurn
from medserl.phases import PHASES
from medserl.trainer import MedSeRLTrainer


@dataclass
class Recorder:
    """Passes every call on to the engine and keeps its arguments, to make the same calls bare."""

    engine: Any
    generated: list[tuple[Any, Sampling]] = field(default_factory=list)
    updated: list[Sequence[WeightedTurn]] = field(default_factory=list)

    def generate(self, prompts: Any, sampling: Sampling) -> Any:
        self.generated.append((prompts, sampling))
        return self.engine.generate(prompts, sampling)

    def update(self, turns: Sequence[WeightedTurn], *, learning_rate: float) -> Any:
        self.updated.append(turns)
        return self.engine.update(turns, learning_rate=learning_rate)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--notes", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()

    settings = Settings(rollout_batch_size=arguments.notes, learning_rate=1e-12)  # the same policy all along
    recorder = Recorder(create_engine(settings))
    trainer = MedSeRLTrainer(settings, recorder)
    trainer.training_step(sample_notes(size=4, seed=99))  # warm caches and allocator
    for number in range(arguments.rounds):
        recorder.generated.clear()
        recorder.updated.clear()
        start = time.perf_counter()
        metrics = trainer.training_step(sample_notes(size=arguments.notes, seed=number))
        whole = time.perf_counter() - start

        start = time.perf_counter()
        for prompts, sampling in recorder.generated:
            recorder.engine.generate(prompts, sampling)
        for turns in recorder.updated:
            recorder.engine.update(turns, learning_rate=1e-12)
        bare = time.perf_counter() - start

        print(f"round {number + 1}: {metrics['accepted_games']} of {arguments.notes} games, {metrics['samples']} turns")
        for phase in PHASES:
            speed = metrics.get(f"tokens_per_second_{phase}")
            print(f"  {phase:<10} {metrics[f'seconds_{phase}']:7.2f} s  {speed or 0:8.0f} tokens/s")
        print(f"  round {whole:.2f} s, bare {bare:.2f} s, ratio {whole / bare:.2f}")


if __name__ == "__main__":
    main()
