"""A round of MedSeRL and steps of TRL's GRPOTrainer, in turn, on the same model, adapter, notes and number type.

    pip install -c constraints.txt -e ".[benchmarks]"
    python benchmarks/against_trl.py [--rounds 3] [--notes 32] [--threads N]

Each side has a process of its own and waits while the other works. A step of TRL samples and learns from as many
completions as a round of ours, half of them on the Injector's prompts and half on the Assessor's, two to a prompt, with
our temperature, KL weight, clip and learning rate; a completion ends where ours ends.

Not equal: TRL plays no game. It has no VCF and no retries, judges notes that nobody edited, and its rewards here are
coin flips, which cost nothing. What our side spends on rejected attempts is in our seconds.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from typing import Any

GENERATIONS = 2
"""Completions to a prompt: the fewest that GRPO takes."""
EQUAL = (
    "equal: model, adapter, notes, prompts, number type, threads, temperature, KL weight, clip, learning rate, where a "
    "completion ends, and about as many trained completions a step. Not equal: TRL plays no game, so it has no VCF and "
    "no retries (ours are in our seconds), judges notes that nobody edited, draws two completions of each prompt, and "
    "its rewards are coin flips."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--notes", type=int, default=32)
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own choice")
    arguments = parser.parse_args()

    context = multiprocessing.get_context("spawn")
    ours, theirs = (start(context, work, arguments) for work in (play_rounds, grpo_steps))
    wanted = ask(ours)["completions"]  # a round that warms caches up, and says how many completions TRL is to make
    ask(theirs, wanted)
    figures = []
    for number in range(arguments.rounds):
        mine, other = ask(ours), ask(theirs)
        figures.append((mine, other))
        print(f"round {number + 1}: MedSeRL {told(mine)}; TRL {told(other)}", flush=True)
    for connection in (ours, theirs):
        connection.send(None)
    summarize(figures)


def start(context: Any, work: Any, arguments: argparse.Namespace) -> Connection:
    here, there = context.Pipe()
    context.Process(target=work, args=(there, arguments), daemon=True).start()
    return here


def ask(connection: Connection, wanted: int = 0) -> dict[str, float]:
    connection.send(wanted)
    answer = connection.recv()
    if isinstance(answer, str):
        raise SystemExit(answer)
    return answer


def told(figures: dict[str, float]) -> str:
    return f"{figures['seconds']:.1f} s for {figures['completions']:.0f} completions"


def summarize(figures: list[tuple[dict[str, float], dict[str, float]]]) -> None:
    each = [[side["seconds"] / side["completions"] for side in pair] for pair in figures]
    ratios = sorted(mine / other for mine, other in each)
    print(f"seconds per trained completion: MedSeRL {statistics.median(m for m, _ in each):.2f}, ", end="")
    print(f"TRL {statistics.median(o for _, o in each):.2f}")
    print(f"ratio: median {statistics.median(ratios):.2f}, from {ratios[0]:.2f} to {ratios[-1]:.2f}")
    hours = sum(mine["seconds"] for mine, _ in figures) / 3600
    print(f"accepted games an hour: MedSeRL {sum(mine['games'] for mine, _ in figures) / hours:.0f}; TRL plays none")
    mine, other = (side["memory"] for side in figures[-1])
    print(f"peak memory: MedSeRL {mine:.1f} GiB, TRL {other:.1f} GiB")
    print(EQUAL)


def settings_of(arguments: argparse.Namespace) -> Any:
    import torch

    from medserl.config import Settings

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    return Settings(rollout_batch_size=arguments.notes, engine="local")


def play_rounds(connection: Connection, arguments: argparse.Namespace) -> None:
    """Rounds of ours, one each time the other side asks."""
    settings = settings_of(arguments)
    from medserl.rounds.sampler import sample_games
    from medserl.trainer import MedSeRLTrainer

    trainer = MedSeRLTrainer(settings)
    number = 0
    while connection.recv() is not None:
        batch = sample_games(size=arguments.notes, seed=number)
        started = time.perf_counter()
        metrics = trainer.training_step(batch)
        seconds = time.perf_counter() - started
        number += 1
        connection.send(
            {
                "seconds": seconds,
                "completions": metrics["samples"],
                "games": metrics["accepted_games"],
                "memory": metrics["peak_memory_gb"],
            }
        )


def grpo_steps(connection: Connection, arguments: argparse.Namespace) -> None:
    """Steps of TRL's trainer, likewise."""
    settings = settings_of(arguments)
    try:
        import trl  # noqa: F401
    except ImportError:
        connection.recv()
        connection.send("TRL is not installed: pip install -e '.[benchmarks]'")
        return
    wanted = connection.recv()
    completions = max(wanted - wanted % (2 * GENERATIONS), 2 * GENERATIONS)
    trainer = grpo_trainer(settings, arguments, completions, connection)
    trainer.train()


def grpo_trainer(settings: Any, arguments: argparse.Namespace, completions: int, connection: Connection) -> Any:
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from medserl.models import load_model

    class InTurn(TrainerCallback):
        """Waits for the word before each step but the first, which has been given, and tells what the step took."""

        def __init__(self) -> None:
            self.begun = 0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if self.begun and connection.recv() is None:
                raise SystemExit
            self.begun += 1
            self.started = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds = time.perf_counter() - self.started
            connection.send({"seconds": seconds, "completions": completions, "memory": peak_memory_gib()})

    loaded = load_model(settings)
    prompts = prompts_of(settings, completions // GENERATIONS, arguments.rounds + 2)
    options = GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        max_steps=arguments.rounds + 1,
        per_device_train_batch_size=completions,
        num_generations=GENERATIONS,
        max_completion_length=80,
        temperature=settings.temperature,
        beta=settings.kl_coef,
        epsilon=settings.clip_range,
        learning_rate=settings.learning_rate,
        shuffle_dataset=False,
        bf16=False,
        use_cpu=loaded.model.device.type == "cpu",
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    rng = random.Random(0)
    return GRPOTrainer(
        model=loaded.model,
        reward_funcs=lambda completions, **_: [rng.choice((-1.0, 1.0)) for _ in completions],
        args=options,
        train_dataset=Dataset.from_list([{"prompt": list(map(dict, prompt))} for prompt in prompts]),
        processing_class=loaded.tokenizer,
        callbacks=[InTurn()],
    )


def prompts_of(settings: Any, count: int, rounds: int) -> list[Any]:
    """The prompts of so many steps, `count` a step: the Injector's and the Assessor's in turn, on our rounds' notes."""
    from medserl.game.prompts import load_prompts
    from medserl.rounds.sampler import sample_games

    texts = load_prompts(settings.prompts, settings.injector_format)
    prompts = []
    for number in range(rounds):
        for game in sample_games(size=count // 2, seed=number):
            prompts += [texts.injector(game.original, game.mode, game.error_type), texts.assessor(game.original)]
    return prompts


def peak_memory_gib() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
