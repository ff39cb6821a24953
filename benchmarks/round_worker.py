"""One side of `benchmarks/round.py`: a line of JSON when it is ready, then one for each seed read, of a round.

It uses what MedSeRL has had since 25e575d alone, so that older trees can be first on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import medserl
from medserl.config import Settings
from medserl.engines import create_engine, local
from medserl.trainer import MedSeRLTrainer

try:
    from medserl.rounds.sampler import sample_games
except ImportError:  # an older tree
    from medserl.data.sampler import sample_notes as sample_games

GENERATING = {"injector": "inject", "assessor": "assess"}
BARE = ("inject", "assess", "update")
STILL = 1e-12
"""The learning rate: the policy is the same all along."""


class Meter:
    """A local engine that counts the tokens that go through its model, by phase.

    `read` are the tokens of passes over more than one column, padding included; `unpadded` the same without it, of the
    rows that an update or the reference reads; `written` the tokens of completions.
    """

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.read: Counter[str] = Counter()
        self.written: Counter[str] = Counter()
        self.unpadded: Counter[str] = Counter()
        self.calls: list[Callable[[], Any]] = []
        self._phase = "other"
        engine.model.get_input_embeddings().register_forward_pre_hook(self._count)
        packs: Any = local
        batches = packs.batches
        packs.batches = lambda rows, budget: batches(self._unpadded(rows), budget)

    def clear(self) -> None:
        for kept in (self.read, self.written, self.unpadded, self.calls):
            kept.clear()

    def generate(self, prompts: Any, sampling: Any) -> Any:
        phase = GENERATING[sampling.role]
        completions = self._during(phase, self.engine.generate, prompts, sampling)
        self.written[phase] += sum(len(completion.token_ids) for completion in completions)
        return completions

    def logprobs(self, turns: Any, **options: Any) -> Any:
        return self._during("reference", self.engine.logprobs, turns, **options)

    def update(self, turns: Any, **options: Any) -> Any:
        return self._during("update", self.engine.update, turns, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def _during(self, phase: str, call: Callable[..., Any], *given: Any, **options: Any) -> Any:
        if phase in BARE:
            self.calls.append(partial(call, *given, **options))
        self._phase = phase
        try:
            return call(*given, **options)
        finally:
            self._phase = "other"

    def _count(self, _: Any, inputs: tuple[Any, ...]) -> None:
        if inputs[0].shape[-1] > 1:
            self.read[self._phase] += inputs[0].numel()

    def _unpadded(self, rows: Sequence[Any]) -> Sequence[Any]:
        self.unpadded[self._phase] += sum(map(len, rows))
        return rows


class Player:
    """Plays rounds, and tells what each took."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        asked = {"judge_originals": True} if arguments.originals else {}
        settings = Settings(rollout_batch_size=arguments.notes, learning_rate=STILL, engine="local", **asked)
        self.meter = Meter(create_engine(settings))
        self.trainer: Any = MedSeRLTrainer(settings, self.meter)

    def round(self, notes: int, seed: int) -> dict[str, Any]:
        """Seconds and tokens by phase."""
        batch = sample_games(size=notes, seed=seed)
        self.meter.clear()
        start = time.perf_counter()
        metrics = self.trainer.training_step(batch)
        whole = time.perf_counter() - start
        seconds = {name.removeprefix("seconds_"): metrics[name] for name in metrics if name.startswith("seconds_")}
        told = {
            "accepted": metrics["accepted_games"],
            "turns": metrics["samples"],
            "dtype": str(self.meter.engine.model.dtype).removeprefix("torch."),
            "seconds": {**seconds, "round": whole},
            "read": dict(self.meter.read),
            "unpadded": dict(self.meter.unpadded),
            "written": dict(self.meter.written),
        }
        return {**told, "bare": self.bare_seconds()} if self.arguments.bare else told

    def bare_seconds(self) -> float:
        """Of the round's calls that write and learn, made once more with nothing around them."""
        start = time.perf_counter()
        for call in self.meter.calls:
            call()
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tree", type=Path, required=True)
    parser.add_argument("--notes", type=int, required=True)
    parser.add_argument("--originals", action="store_true")
    parser.add_argument("--bare", action="store_true")
    arguments = parser.parse_args()
    if not Path(medserl.__file__).resolve().is_relative_to(arguments.tree.resolve()):
        raise SystemExit(f"{medserl.__file__} is not of {arguments.tree}: something is before it on PYTHONPATH")

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what MedSeRL prints is no answer
    player = Player(arguments)
    player.round(4, seed=99)  # warms caches and allocator up
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(player.round(arguments.notes, int(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
