"""`--engine vllm`, really run: vLLM's CPU build plays in a process of its own, the local engine learns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Program, rows

Start = Callable[..., Program]


@pytest.fixture(scope="module")
def train(common_flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """`train(*flags, KEY=value)`: begin a run with the engine. What is left of it ends with the module."""
    import sys

    runs: list[Program] = []

    def begin(*flags: str, resume: Path | None = None, **environment: str) -> Program:
        log = tmp_path_factory.mktemp("logs") / "output.txt"
        arguments = ["--resume", str(resume)] if resume else [*common_flags, "--engine", "vllm", *flags]
        command = [sys.executable, "-m", "medserl.cli", "train", *arguments]
        runs.append(
            Program(command, log, {"MEDSERL_VALIDATION_DATA": "none", "MEDSERL_VLLM_CONTEXT": "512", **environment})
        )
        return runs[-1]

    yield begin
    for run in runs:
        run.end()


def test_first(train, tmp_path):
    run = train(
        "--lora-targets",
        "all-linear",
        "--max-rounds",
        "3",
        "--learning-rate",
        "3e-3",
        "--output-dir",
        str(tmp_path / "run"),
    )
    assert run.finish() == 0, run.output()
    print(run.output())
    for r in rows(tmp_path / "run"):
        print({k: v for k, v in r.items() if "gap" in k or "kl" in k or "sec" in k or "accept" in k})
