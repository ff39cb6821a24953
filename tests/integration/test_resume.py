"""A run that was stopped and resumed ends exactly where one never stopped ends. Real model, real kills."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROUNDS = 3
FLAGS = [
    "--prompt-data", "sample", "--rollout-batch-size", "4", "--max-rounds", str(ROUNDS), "--save-every", "1",
    "--eval-notes", "1", "--frozen-games", "2", "--no-tensorboard", "--device", "cpu", "--seed", "3",
]  # fmt: skip
NOT_COMPARED = ("seconds_", "tokens_per_second_", "peak_memory_gb")

pytestmark = pytest.mark.model


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "medserl.cli", "train", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=1800)
    assert process.returncode == 0, output
    return output


def outcome(run: Path) -> tuple[bytes, bytes, list[dict[str, object]], list[dict[str, object]]]:
    """Final adapter, the frozen opponent's games, metrics without timings, and episodes."""
    metrics, episodes = (
        [json.loads(line) for line in (run / name).read_text(encoding="utf-8").splitlines()]
        for name in ("metrics.jsonl", "episodes.jsonl")
    )
    figures = [{k: v for k, v in row.items() if not k.startswith(NOT_COMPARED)} for row in metrics]
    adapter = run / "checkpoints" / f"round_{ROUNDS}" / "adapter_model.safetensors"
    return adapter.read_bytes(), (run / "frozen_opponent.jsonl").read_bytes(), figures, episodes


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "uninterrupted"
    finish(start(*FLAGS, "--output-dir", str(run)))
    return run


def test_a_resumed_run_is_bit_identical(uninterrupted: Path, tmp_path: Path) -> None:
    """Other signals end a run after its round (tests/integration/test_output_trouble.py)."""
    run = tmp_path / "stopped"
    process = start(*FLAGS, "--output-dir", str(run))
    assert process.stdout is not None
    watchdog = threading.Timer(1800, process.kill)
    watchdog.start()
    for line in process.stdout:
        if line.startswith("round   2/"):
            process.kill()
            break
    process.communicate(timeout=1800)
    watchdog.cancel()
    done = len((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    assert 1 + 2 <= done < 1 + ROUNDS, "the signal came too late to test anything"
    assert process.returncode == -signal.SIGKILL

    finish(start("--resume", str(run)))
    assert outcome(run) == outcome(uninterrupted)


def test_the_frozen_opponent_is_judged_before_and_after(uninterrupted: Path) -> None:
    _, games, metrics, _ = outcome(uninterrupted)
    assert games
    assert [row["round"] for row in metrics if row.get("frozen_accuracy") is not None] == [0, ROUNDS]


def test_the_run_learnt_something(uninterrupted: Path) -> None:
    metrics = outcome(uninterrupted)[2][1:]
    assert all(row["optimizer_steps"] == 1 and row["grad_norm"] > 0 for row in metrics)
    assert all(row["vcf_acceptance_rate"] > 0.1 for row in metrics)
    assert metrics[0]["kl_assessor"] != metrics[-1]["kl_assessor"]


def test_sampled_and_recomputed_logprobs_agree(uninterrupted: Path) -> None:
    """bfloat16 rounds logits to about 2 %: the mean gap stays below a twentieth of a nat."""
    assert all(row["logprob_gap"] < 0.05 for row in outcome(uninterrupted)[2][1:])
