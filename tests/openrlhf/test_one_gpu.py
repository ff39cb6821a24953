"""`--engine vllm`, really run: vLLM's CPU build plays in a process of its own, the local engine learns."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from conftest import Program, rows
from test_runs import Resumed, assert_learnt, assert_synced, resumed_after

Start = Callable[..., Program]

VLLM = ("EngineCore", "VLLM::")
"""What vLLM's processes are called."""


@pytest.fixture(scope="module")
def train(common_flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """`train(*flags, KEY=value)`: begin a run with the engine. What is left of it ends with the module."""
    runs: list[Program] = []

    def begin(*flags: str, resume: Path | None = None, **environment: str) -> Program:
        log = tmp_path_factory.mktemp("logs") / "output.txt"
        arguments = ["--resume", str(resume), *flags] if resume else [*common_flags, "--engine", "vllm", *flags]
        settings = {"MEDSERL_VALIDATION_DATA": "none", "MEDSERL_VLLM_CONTEXT": "512"}
        settings["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1"  # as users have it: a process that can die
        command = [sys.executable, "-m", "medserl.cli", "train", *arguments]
        runs.append(Program(command, log, {**settings, **environment}))
        return runs[-1]

    yield begin
    for run in runs:
        run.end()


def last_error(run: Program) -> str:
    *_, line = [line for line in run.output().splitlines() if line.startswith("error: ")]
    return line


def kill_vllm(run: Program) -> None:
    found = [pid for name in VLLM for pid in run.descendants(name)]
    assert found, run.output()
    for pid in found:
        os.kill(pid, signal.SIGKILL)


# -- an adapter for each role: killed, resumed, stopped -----------------------------------------------------


@pytest.fixture(scope="module")
def adapters_run(train: Start, tmp_path_factory: pytest.TempPathFactory) -> Resumed:
    """Killed with signal 9 in the sixth round, up to which vLLM never got new weights; resumed; ended with Ctrl-C."""
    folder = tmp_path_factory.mktemp("runs") / "adapters"
    killed = train(
        "--lora-targets", "all-linear", "--adapters", "per_role", "--max-rounds", "60", "--learning-rate", "3e-3",
        "--output-dir", str(folder), MEDSERL_TEST_IGNORE_WEIGHTS="1",
    )  # fmt: skip
    killed.wait_for("round   5/60")
    killed.process.kill()
    killed.finish()
    assert killed.left_over() == {}
    resumed = train(resume=folder)
    resumed.wait_for("round   8/60")
    resumed.press_ctrl_c()
    assert resumed.finish(240) == 130, resumed.output()
    assert resumed.left_over() == {}
    metrics, done = rows(folder), resumed_after(resumed)
    return Resumed(folder, resumed.output(), metrics[:done], metrics[done:])


def test_a_run_goes_on_with_vllm_where_it_was(adapters_run: Resumed) -> None:
    metrics = adapters_run.before + adapters_run.after
    assert [row["round"] for row in metrics] == [*range(1, len(metrics) + 1)] and len(metrics) >= 8
    learnt = [row for row in adapters_run.after if row["samples"]]  # in some rounds no edit may be accepted
    assert learnt and all(row["grad_norm"] > 0 for row in learnt)
    assert_synced(learnt)
    assert any(row["kl_assessor"] > 0 for row in learnt), "the policy left the reference"


def test_weights_that_never_arrive_show(adapters_run: Resumed) -> None:
    """The negative control of `logprob_gap`."""
    gaps: list[float] = [row["logprob_gap"] for row in adapters_run.before if row["samples"]]
    assert gaps[0] < 2e-3 < 1e-2 < fmean(gaps[-2:]), gaps


def test_the_end_is_of_the_round_and_not_of_vllm(adapters_run: Resumed) -> None:
    """Ctrl-C goes to every process of the terminal; vLLM's must not end with it."""
    assert "error: " not in adapters_run.output and "stopped after round" in " ".join(adapters_run.output.split())


def test_the_local_engine_goes_on_from_there(adapters_run: Resumed, train: Start, tmp_path: Path) -> None:
    folder = shutil.copytree(adapters_run.folder, tmp_path / "run")
    done = len(rows(folder))
    run = train("--engine", "local", "--max-rounds", str(done + 1), resume=folder)
    assert run.finish(240) == 0, run.output()
    assert [row["round"] for row in rows(folder)][-2:] == [done, done + 1]
    assert "vllm_kl" not in rows(folder)[-1], "no vLLM has played"


# -- all weights, and the death of vLLM ---------------------------------------------------------------------


def test_all_weights_reach_vllm_and_its_death_ends_the_run(train: Start, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = train(
        "--lora-rank", "0", "--max-rounds", "60", "--learning-rate", "3e-4", "--temperature", "0.9",
        "--output-dir", str(folder),
    )  # fmt: skip
    run.wait_for("round   5/60")
    kill_vllm(run)
    assert run.finish(120) == 2
    assert "vLLM's process died" in last_error(run)
    assert run.left_over() == {}
    learnt: list[dict[str, Any]] = [row for row in rows(folder) if row["samples"]]
    assert len(learnt) >= 2
    assert_learnt(learnt, folder)
    moved = max(abs(row[f"kl_{role}"]) for row in learnt for role in ("assessor", "injector"))
    off = max(abs(row["vllm_kl"]) for row in learnt)
    assert off < moved / 2, "vLLM follows the policy away from the reference; what is left is bfloat16's rounding"
