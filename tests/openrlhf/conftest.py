"""Tests that need OpenRLHF's environment; `scripts/run_openrlhf_tests.sh` makes it and runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if find_spec("deepspeed") is None:  # every other environment; this folder itself answers to "openrlhf"
    collect_ignore_glob = ["test_*.py"]

STARTED_BY = "MEDSERL_TEST_STARTED_BY"
LIMIT_SECONDS = 600


class Training:
    """`medserl train --engine openrlhf` in a process, and every process that came of it."""

    def __init__(self, flags: list[str], environment: dict[str, str], log: Path) -> None:
        self.mark = uuid.uuid4().hex
        self.log = log
        with log.open("w", encoding="utf-8") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "medserl.cli", "train", *flags],
                stdout=file, stderr=subprocess.STDOUT,
                env={**os.environ, **environment, STARTED_BY: self.mark},
            )  # fmt: skip

    def finish(self, seconds: float = LIMIT_SECONDS) -> int:
        return self.process.wait(timeout=seconds)

    def wait_for(self, text: str) -> None:
        """Until the log has `text`, which it must get while the run is alive."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while text not in self.output():
            assert self.process.poll() is None, f"ended before {text!r}:\n{self.output()}"
            assert time.monotonic() < deadline, f"no {text!r} within {LIMIT_SECONDS} s:\n{self.output()}"
            time.sleep(0.2)

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def descendants(self, name: str = "") -> list[int]:
        """Live processes that this run started and whose command line holds `name`."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == self.process.pid:
                continue
            try:
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                mine = f"{STARTED_BY}={self.mark}".encode() in (entry / "environ").read_bytes()
                command = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:  # it ended meanwhile
                continue
            if mine and state != "Z" and name in command:
                found.append(int(entry.name))
        return found

    def left_over(self, seconds: float = 60) -> list[int]:
        """Processes that are still there `seconds` after the run ended."""
        deadline = time.monotonic() + seconds
        while (alive := self.descendants()) and time.monotonic() < deadline:
            time.sleep(0.5)
        return alive

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in self.descendants():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


@pytest.fixture(scope="session")
def player(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from player import write_player

    folder = tmp_path_factory.mktemp("player")
    write_player(folder, tiny_llama)
    return folder


@pytest.fixture(scope="module")
def start(player: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Training]]:
    """`start(*flags, KEY=value)`: begin a run of the tiny player. Whatever is left of it ends with the module."""
    from player import CONTEXT

    runs: list[Training] = []
    common = [
        "--engine", "openrlhf", "--model", str(player), "--adapter", "none", "--prompts", str(player / "prompts.toml"),
        "--prompt-data", str(player / "notes.jsonl"), "--validation-data", "none", "--rollout-batch-size", "8",
        "--max-epochs", "200", "--no-tensorboard", "--save-every", "1", "--seed", "5",
    ]  # fmt: skip

    def begin(*flags: str, resume: Path | None = None, **environment: str) -> Training:
        log = tmp_path_factory.mktemp("logs") / "output.txt"
        environment = {"MEDSERL_VLLM_CONTEXT": str(CONTEXT), **environment}
        arguments = ["--resume", str(resume)] if resume else [*common, *flags]
        runs.append(Training(arguments, environment, log))
        return runs[-1]

    yield begin
    for run in runs:
        run.end()


def rows(run: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / name).read_text(encoding="utf-8").splitlines()]
