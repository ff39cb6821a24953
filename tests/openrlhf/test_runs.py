"""The engine for many GPUs, really run: Ray, two vLLM engines, two training ranks, gloo between them."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Training, rows

Start = Callable[..., Training]

LIMIT = 300
SYNCED, STALE = 1e-3, 1e-2
"""`vllm_kl` of engines that have the trained weights, and of engines that never got them."""


def assert_learnt(metrics: list[dict[str, Any]], run: Path, *, mini_batches: int = 1) -> None:
    """Finite figures, and every accepted game in the optimizer steps: two turns of each that had a verdict."""
    for row in metrics:
        games = [game for game in rows(run, "episodes.jsonl") if game["round"] == row["round"]]
        accepted = [game for game in games if game["modified"] is not None]
        without_verdict = [game for game in accepted if game["verdict"] is None]
        assert row["accepted_games"] == len(accepted) > 0
        assert row["samples"] == 2 * len(accepted) - len(without_verdict)
        assert row["optimizer_steps"] == min(mini_batches, row["samples"])
        assert all(math.isfinite(row[name]) for name in ("loss", "entropy", "grad_norm", "logprob_gap", "vllm_kl"))
        assert row["grad_norm"] > 0


def assert_synced(metrics: list[dict[str, Any]]) -> None:
    assert max(abs(row["vllm_kl"]) for row in metrics) < SYNCED


# -- all weights: two engines, two ranks, killed and resumed ------------------------------------------------


@pytest.fixture(scope="module")
def full_run(start: Start, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Training]:
    """Four rounds of all weights; the driver was killed after the second."""
    folder = tmp_path_factory.mktemp("runs") / "full"
    killed = start(
        "--lora-rank", "0", "--vllm-engines", "2", "--train-gpus-per-node", "2", "--max-rounds", "4",
        "--mini-batches", "2", "--learning-rate", "2e-4", "--output-dir", str(folder),
    )  # fmt: skip
    killed.wait_for("round   2/4")
    killed.process.kill()
    killed.finish()
    assert killed.left_over() == [], "a driver that was killed left processes behind"
    resumed = start(resume=folder)
    assert resumed.finish() == 0, resumed.output()
    return folder, resumed


def test_full_training(full_run: tuple[Path, Training]) -> None:
    folder, _ = full_run
    metrics = rows(folder)
    assert [row["round"] for row in metrics] == [1, 2, 3, 4]
    assert_learnt(metrics, folder, mini_batches=2)
    assert_synced(metrics)


def test_edits_were_rejected_and_tried_again(full_run: tuple[Path, Training]) -> None:
    assert any(len(game["attempts"]) > 1 for game in rows(full_run[0], "episodes.jsonl"))


def test_a_resumed_run_plays_the_games_that_would_have_come(full_run: tuple[Path, Training], player: Path) -> None:
    """Notes and modes of all rounds are those of an uninterrupted sampler."""
    from medserl.data.readers import load_notes
    from medserl.data.sampler import FreshBatchSampler

    sampler = FreshBatchSampler(load_notes(player / "notes.jsonl").notes, 8, 5)
    expected = [(n, game.note.note_id, game.mode) for n in (1, 2, 3, 4) for game in sampler.next_batch()]
    assert [(e["round"], e["note_id"], e["mode"]) for e in rows(full_run[0], "episodes.jsonl")] == expected


def test_the_same_run_folder_as_every_engine(full_run: tuple[Path, Training]) -> None:
    folder, run = full_run
    assert "vcf_acceptance_rate=" in (folder / "logs/train.log").read_text(encoding="utf-8")
    assert 'engine = "openrlhf"' in (folder / "config.toml").read_text(encoding="utf-8")
    assert "round   4/4" in run.output()
    subprocess.run([sys.executable, "-m", "medserl.cli", "report", str(folder)], check=True, timeout=120)


def test_a_full_checkpoint_is_an_ordinary_model(full_run: tuple[Path, Training]) -> None:
    from transformers import AutoModelForCausalLM

    newest = full_run[0] / "checkpoints" / "round_4"
    model = AutoModelForCausalLM.from_pretrained(newest)
    assert sum(p.numel() for p in model.parameters()) > 0


# -- LoRA ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lora_run(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "lora"
    run = start(
        "--lora-targets", "all-linear", "--train-gpus-per-node", "2", "--max-rounds", "4", "--learning-rate", "3e-3",
        "--kl-estimator", "k3", "--output-dir", str(folder),
    )  # fmt: skip
    assert run.finish() == 0, run.output()
    assert run.left_over() == []
    return folder


def test_lora_training(lora_run: Path) -> None:
    metrics = rows(lora_run)
    assert_learnt(metrics, lora_run)
    assert_synced(metrics)
    assert metrics[0]["kl_assessor"] != metrics[-1]["kl_assessor"], "the policy left the reference"


def test_a_lora_checkpoint_is_judged_by_the_local_engine(lora_run: Path, player: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "medserl.cli", "evaluate", "--run", str(lora_run), "--compare", "trained",
         "--data", str(player / "notes.jsonl"), "--limit", "4", "--output", str(tmp_path)],
        capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "round_4" in done.stdout or "trained" in done.stdout


# -- what is shown when it fails ----------------------------------------------------------------------------


def test_engines_that_never_get_the_weights_show(start: Start, tmp_path: Path) -> None:
    """The negative control of `vllm_kl`; then Ctrl-C, twice."""
    run = start(
        "--lora-rank", "0", "--learning-rate", "5e-4", "--max-rounds", "60", "--output-dir", str(tmp_path / "run"),
        MEDSERL_TEST_IGNORE_WEIGHTS="1",
    )  # fmt: skip
    run.wait_for("round   4/60")
    run.process.send_signal(signal.SIGINT)
    run.wait_for("stopping after this round")
    run.process.send_signal(signal.SIGINT)
    run.finish(120)
    assert run.left_over() == []
    assert max(abs(row["vllm_kl"]) for row in rows(tmp_path / "run")[2:]) > STALE


def test_an_engine_that_dies_ends_the_run_with_its_error(start: Start, tmp_path: Path) -> None:
    run = start("--lora-rank", "0", "--learning-rate", "1e-6", "--output-dir", str(tmp_path / "run"))
    run.wait_for("round   1/")
    for pid in run.descendants("VLLM"):
        os.kill(pid, signal.SIGKILL)
    assert run.finish(120) == 2
    (line,) = [line for line in run.output().splitlines() if line.startswith("error: ") and "Dead" in line]
    assert "vLLM" in line or "generating" in line
    assert run.left_over() == []


def test_an_engine_that_cannot_start_ends_the_run_with_its_error(start: Start, tmp_path: Path) -> None:
    run = start("--lora-rank", "0", "--vllm-context", "4096", "--output-dir", str(tmp_path / "run"))
    assert run.finish(240) == 2
    assert "max_model_len" in run.output()
    assert run.left_over() == []
    assert not (tmp_path / "run").exists()
