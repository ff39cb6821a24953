"""Tests that need OpenRLHF's environment; `scripts/run_openrlhf_tests.sh` makes it and runs them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if find_spec("deepspeed") is None:  # every other environment; this folder itself answers to "openrlhf"
    collect_ignore_glob = ["test_*.py"]

ROOT = Path(__file__).resolve().parents[2]
STARTED_BY = "MEDSERL_TEST_STARTED_BY"
LIMIT_SECONDS = 600


class Program:
    """A command in a process group of its own, as a shell makes one, and every process that came of it."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.mark = uuid.uuid4().hex
        self.log = log
        with log.open("w", encoding="utf-8") as file:
            self.process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
                env={**os.environ, **environment, STARTED_BY: self.mark},
            )  # fmt: skip

    def finish(self, seconds: float = LIMIT_SECONDS) -> int:
        return self.process.wait(timeout=seconds)

    def wait_for(self, text: str) -> None:
        """Until the log has `text`, which it must get while the program is alive."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while text not in self.output():
            assert self.process.poll() is None, f"ended before {text!r}:\n{self.output()}"
            assert time.monotonic() < deadline, f"no {text!r} within {LIMIT_SECONDS} s:\n{self.output()}"
            time.sleep(0.2)

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def press_ctrl_c(self) -> None:
        """SIGINT to the whole process group, as a terminal sends it."""
        os.killpg(self.process.pid, signal.SIGINT)

    def descendants(self, name: str = "") -> dict[int, str]:
        """Live processes that this program started and whose command line holds `name`, with that line.

        They have its mark or its session: Ray gives some a title that is written over their environment.
        """
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == self.process.pid:
                continue
            try:
                state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                marked = f"{STARTED_BY}={self.mark}".encode() in (entry / "environ").read_bytes()
                command = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:  # it ended meanwhile
                continue
            if (marked or int(session) == self.process.pid) and state != "Z" and name in command:
                found[int(entry.name)] = command.replace("\0", " ").strip()
        return found

    def left_over(self, name: str = "", seconds: float = 60) -> dict[int, str]:
        """Processes, of that name, that are still there after so many seconds."""
        deadline = time.monotonic() + seconds
        while (alive := self.descendants(name)) and time.monotonic() < deadline:
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


@pytest.fixture(scope="session")
def common_flags(player: Path) -> list[str]:
    """A run of the tiny player, on any engine. The learning rates of the tests go with one baseline a role."""
    return [
        "--advantage-normalization", "per_role",
        "--model", str(player), "--adapter", "none", "--prompts", str(player / "prompts.toml"),
        "--prompt-data", str(player / "notes.jsonl"), "--rollout-batch-size", "8",
        "--max-epochs", "200", "--no-tensorboard", "--save-every", "1", "--seed", "5",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def start(common_flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Program]]:
    """`start(*flags, KEY=value)`: begin a run, by the documented script. What is left of it ends with the module."""
    from player import CONTEXT

    runs: list[Program] = []
    script = ["bash", str(ROOT / "scripts/train_medserl_reinforce_pp.sh"), "--engine", "openrlhf"]

    def begin(*flags: str, resume: Path | None = None, **environment: str) -> Program:
        log = tmp_path_factory.mktemp("logs") / "output.txt"
        settings = {"MEDSERL_VLLM_CONTEXT": str(CONTEXT), "MEDSERL_VALIDATION_DATA": "none"}
        environment = {"PYTHON": sys.executable, **settings, **environment}
        arguments = ["--resume", str(resume)] if resume else [*common_flags, *flags]
        runs.append(Program([*script, *arguments], log, environment))
        return runs[-1]

    yield begin
    for run in runs:
        run.end()


@pytest.fixture
def running_ray(tmp_path: Path) -> Iterator[tuple[Program, int]]:
    """A Ray cluster as its user starts one, and its port."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", f"--port={port}", "--block"]
    cluster = Program([*command, "--include-dashboard=false"], tmp_path / "ray.txt", {})
    cluster.wait_for("Ray runtime started")
    yield cluster, port
    cluster.process.terminate()
    cluster.finish(60)
    cluster.end()


def rows(run: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / name).read_text(encoding="utf-8").splitlines()]
