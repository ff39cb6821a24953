"""What a round costs: seconds and tokens by phase, and how both compare with an earlier version of MedSeRL.

    python benchmarks/round.py [--notes 32] [--rounds 2] [--originals]
    python benchmarks/round.py --against COMMIT [--rounds 3]

Rounds of the embedded model on the sample notes, always with the same policy. Tokens are those that go through the
model, for each game of the round. `read`: of passes over more than one token a row, padding included; `unpadded`: the
same without padding, where rows are packed; `written`: of completions. An update goes back over what it reads, too.

Without --against or --originals: the ratio of the round's time to that of the same calls for writing and learning, made
bare, with nothing of the game, the rewards, the reference or the records around them. --originals plays each round
with `judge_originals` as well, where the Assessor judges the original of each accepted error and learns from it, and
says what that costs. --against plays the rounds with the version of a commit as well, with its own prompts and adapter.
Each side has a process of its own and waits while the other plays; the one that begins changes with each round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent.parent
PHASES = ("inject", "assess", "reference", "update", "sync", "round")
ORIGINALS = "with originals"
TOKENS = ("read", "unpadded", "written")


@dataclass
class Side:
    """A version of MedSeRL, at work in a process of its own."""

    name: str
    process: subprocess.Popen[str]
    rounds: list[dict[str, Any]] = field(default_factory=list)

    def play(self, seed: int) -> None:
        assert self.process.stdin
        print(seed, file=self.process.stdin, flush=True)
        self.rounds.append(self.answer())

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: its process ended, for the reason above")
        return json.loads(line)

    def seconds(self, phase: str) -> list[float]:
        return [each["seconds"].get(phase, 0.0) for each in self.rounds]

    def tokens(self, kind: str, phase: str) -> list[int]:
        return [each[kind].get(phase, 0) for each in self.rounds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--notes", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument("--against", metavar="COMMIT", help="a commit since 25e575d")
    asked.add_argument("--originals", action="store_true")
    arguments = parser.parse_args()

    with ExitStack() as stack:
        trees = {"now": HERE}
        if arguments.against:
            trees = {arguments.against: stack.enter_context(checked_out(arguments.against)), **trees}
        if arguments.originals:
            trees[ORIGINALS] = HERE
        sides = [stack.enter_context(at_work(name, tree, arguments)) for name, tree in trees.items()]
        for number in range(arguments.rounds):
            for side in sides if number % 2 == 0 else reversed(sides):
                side.play(seed=number)
            told = "; ".join(f"{side.name} {in_words(side.rounds[-1], arguments.notes)}" for side in sides)
            print(f"round {number + 1}: {told}", flush=True)

    print(machine(sides))
    print_table(sides, arguments.notes)
    if len(sides) == 2:
        print_ratios(*sides)
    else:
        bare = [each["seconds"]["round"] / each["bare"] for each in sides[0].rounds]
        print(f"a round's time to the bare work's: {spread(bare)}")


def print_ratios(before: Side, now: Side) -> None:
    """Of whole rounds, and for each turn learnt: the versions may accept other numbers of games."""
    for told, share in (("a round", lambda each: 1), ("each turn learnt", lambda each: max(1, each["turns"]))):
        old, new = ([each["seconds"]["round"] / share(each) for each in side.rounds] for side in (before, now))
        ratios = [n / o for n, o in zip(new, old, strict=True)]
        print(f"time of {told}, {now.name} to {before.name}: {spread(ratios)}")


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """A git worktree of the commit, for as long as it is needed."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(HERE), "worktree"]
        if subprocess.run([*git, "add", "--quiet", "--detach", str(tree), commit], check=False).returncode:
            raise SystemExit(f"--against {commit}: git cannot check it out, for the reason above")
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


@contextmanager
def at_work(name: str, tree: Path, arguments: argparse.Namespace) -> Iterator[Side]:
    """A side that has warmed up."""
    command = [
        sys.executable,
        "-Wignore::FutureWarning",
        str(HERE / "benchmarks" / "round_worker.py"),
        f"--tree={tree}",
    ]
    command += [f"--notes={arguments.notes}"] + ["--originals"] * (name == ORIGINALS)
    command += ["--bare"] * (not arguments.against and not arguments.originals)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tree), os.environ.get("PYTHONPATH", "")]).strip(":")}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        try:
            side = Side(name, process)
            side.answer()
            yield side
        finally:
            process.terminate()


def in_words(told: dict[str, Any], notes: int) -> str:
    return (
        f"{told['seconds']['round']:.1f} s, {told['accepted']} of {notes} games accepted, {told['turns']} turns learnt"
    )


def machine(sides: Sequence[Side]) -> str:
    import torch

    from medserl.models import cpu_multiplies_bfloat16

    does = "multiplies" if cpu_multiplies_bfloat16() else "does not multiply"
    types = ", ".join(f"{side.rounds[-1]['dtype']} {side.name}" for side in sides)
    return f"this CPU {does} bfloat16, {torch.get_num_threads()} threads; weights: {types}"


def print_table(sides: Sequence[Side], notes: int) -> None:
    """Medians over the rounds; tokens for each game of a round."""
    print("".ljust(10), *(f"{side.name} (s, tokens a game)".rjust(39) for side in sides))
    print("".ljust(10), *(" ".join(name.rjust(9) for name in ("seconds", *TOKENS)) for _ in sides))
    for phase in PHASES:
        if not any(sum(side.seconds(phase)) for side in sides):
            continue
        columns = [f"{statistics.median(side.seconds(phase)):9.2f}" for side in sides]
        for i, side in enumerate(sides):
            for kind in TOKENS:
                count = statistics.median(side.tokens(kind, phase)) / notes
                columns[i] += f" {count:9.1f}" if count else " " * 10
        print(phase.ljust(10), *columns)


def spread(figures: Sequence[float]) -> str:
    """Median and range."""
    return f"{statistics.median(figures):.2f} (from {min(figures):.2f} to {max(figures):.2f})"


if __name__ == "__main__":
    main()
