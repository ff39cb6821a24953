"""The engine for many GPUs, really run: Ray, two vLLM engines, two training ranks, gloo between them."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from conftest import Program, rows

Start = Callable[..., Program]

LIMIT = 300
SYNCED, STALE = 1e-3, 1e-2
"""`vllm_kl` of engines that have the trained weights, and of engines that never got them."""
ACTORS = ("VLLM", "ray::Rollout", "ray::Policy", "ray::Reference")
"""What a run's own processes are called."""


def assert_learnt(metrics: list[dict[str, Any]], run: Path, *, mini_batches: int = 1) -> None:
    """Finite figures, every accepted game in the optimizer steps (two turns of each with a verdict), weights moved."""
    for row in metrics:
        games = [game for game in rows(run, "episodes.jsonl") if game["round"] == row["round"]]
        accepted = [game for game in games if game["modified"] is not None]
        without_verdict = [game for game in accepted if game["verdict"] is None]
        assert row["accepted_games"] == len(accepted) > 0
        assert row["samples"] == 2 * len(accepted) - len(without_verdict)
        assert row["optimizer_steps"] == min(mini_batches, row["samples"])
        assert all(math.isfinite(row[name]) for name in ("loss", "entropy", "grad_norm", "logprob_gap", "vllm_kl"))
        assert row["grad_norm"] > 0 or row["no_variance_share"] == 1  # rewards that are all alike move nothing


def assert_synced(metrics: list[dict[str, Any]]) -> None:
    """Over all rounds: one of eight games has some 150 tokens, and bfloat16's rounding shows in so few."""
    assert abs(fmean(row["vllm_kl"] for row in metrics)) < SYNCED


def medserl(*arguments: str) -> str:
    """What a command says; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "medserl.cli", *arguments], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- all weights: two engines, two ranks, killed, resumed and stopped --------------------------------------


@dataclass(frozen=True)
class Resumed:
    """A run in two parts; what plays in the first, which was killed, never got new weights."""

    folder: Path
    output: str
    before: list[dict[str, Any]]
    after: list[dict[str, Any]]


@pytest.fixture(scope="module")
def full_run(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Resumed:
    """ZeRO stage 3. Killed with signal 9 in the fifth round; resumed; ended with Ctrl-C, twice."""
    folder = tmp_path_factory.mktemp("runs") / "full"
    killed = start(
        "--lora-rank", "0", "--vllm-engines", "2", "--train-gpus-per-node", "2", "--zero-stage", "3",
        "--max-rounds", "60", "--mini-batches", "2", "--learning-rate", "3e-4", "--output-dir", str(folder),
        MEDSERL_TEST_IGNORE_WEIGHTS="1",
    )  # fmt: skip
    killed.wait_for("round   4/60")
    killed.process.kill()
    killed.finish()
    assert not any(killed.left_over(name) for name in ACTORS)
    resumed = start(resume=folder)
    resumed.wait_for("round   7/60")
    resumed.press_ctrl_c()
    resumed.wait_for("stopping after this round")
    resumed.press_ctrl_c()
    resumed.finish(120)
    assert killed.left_over() == {}, "Ray's agents take a minute to see that all is over"
    assert resumed.left_over() == {}
    metrics, done = rows(folder), resumed_after(resumed)
    return Resumed(folder, resumed.output(), metrics[:done], metrics[done:])


def resumed_after(run: Program) -> int:
    found = re.search(r"resuming .*? after round (\d+)", " ".join(run.output().split()))
    assert found, run.output()
    return int(found[1])


def test_full_training(full_run: Resumed) -> None:
    metrics = full_run.before + full_run.after
    assert [row["round"] for row in metrics] == [*range(1, len(metrics) + 1)] and len(metrics) >= 7
    assert_learnt(metrics, full_run.folder, mini_batches=2)
    assert_synced(full_run.after)


def test_engines_that_never_get_the_weights_show(full_run: Resumed) -> None:
    """The negative control of `vllm_kl`."""
    assert len(full_run.before) >= 3
    assert max(abs(row["vllm_kl"]) for row in full_run.before) > STALE


def test_edits_were_rejected_and_tried_again(full_run: Resumed) -> None:
    assert any(len(game["attempts"]) > 1 for game in rows(full_run.folder, "episodes.jsonl"))


def test_a_resumed_run_plays_the_games_that_would_have_come(full_run: Resumed, player: Path) -> None:
    """Notes and modes of all rounds are those of an uninterrupted sampler."""
    from medserl.data.readers import read_notes
    from medserl.rounds.sampler import FreshBatchSampler

    sampler = FreshBatchSampler(read_notes(player / "notes.jsonl").notes, 8, 5)
    played = [(e["round"], e["note_id"], e["mode"]) for e in rows(full_run.folder, "episodes.jsonl")]
    rounds = range(1, played[-1][0] + 1)
    assert played == [(n, game.note.note_id, game.mode) for n in rounds for game in sampler.next_batch()]


def test_the_same_run_folder_as_the_local_engine(full_run: Resumed, common_flags: list[str], tmp_path: Path) -> None:
    folder = full_run.folder
    assert "vcf_acceptance_rate=" in (folder / "logs/train.log").read_text(encoding="utf-8")
    assert 'engine = "openrlhf"' in (folder / "config.toml").read_text(encoding="utf-8")
    assert "round   7/60" in full_run.output
    medserl("report", str(folder))
    local = tmp_path / "local"
    flags = ["--engine", "local", "--validation-data", "none", "--lora-rank", "0"]
    medserl("train", *common_flags, *flags, "--max-rounds", "1", "--output-dir", str(local))
    (of_one_process,) = rows(local)
    assert {name for row in rows(folder) for name in row} == {*of_one_process, "vllm_kl"}
    assert set(rows(folder, "episodes.jsonl")[0]) == set(rows(local, "episodes.jsonl")[0])
    names = [{path.name for path in run.iterdir()} for run in (folder, local)]
    assert names[0] - {"report.html"} == names[1]


def test_a_full_checkpoint_is_an_ordinary_model(full_run: Resumed) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(full_run.folder / "checkpoints" / "round_6")
    assert sum(p.numel() for p in model.parameters()) > 0


# -- LoRA ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lora_run(start: Start, player: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "lora"
    run = start(
        "--lora-targets", "all-linear", "--train-gpus-per-node", "2", "--max-rounds", "4", "--learning-rate", "3e-3",
        "--kl-estimator", "k3", "--sft-verdict-pairs", "1", "--validation-data", str(player / "notes.jsonl"),
        "--eval-notes", "8", "--eval-every", "1", "--frozen-games", "4", "--keep-checkpoints", "1",
        "--output-dir", str(folder),
    )  # fmt: skip
    assert run.finish() == 0, run.output()
    assert run.left_over() == {}
    return folder


def test_lora_training(lora_run: Path) -> None:
    before, *metrics = rows(lora_run)
    assert before["round"] == 0
    assert_learnt(metrics, lora_run)
    assert_synced(metrics)
    assert metrics[0]["kl_assessor"] != metrics[-1]["kl_assessor"], "the policy left the reference"
    assert all(row["sft_loss"] > 0 for row in metrics), "examples were learnt beside the games"


def test_the_best_checkpoint_by_validation_is_kept(lora_run: Path) -> None:
    rounds = {row["round"]: row["eval_pairwise_accuracy"] for row in rows(lora_run)}
    best = max(rounds, key=lambda number: (rounds[number], -number))
    folders = {folder.name for folder in (lora_run / "checkpoints").iterdir()}
    assert folders == {"round_4"} | ({f"round_{best}"} if best else set())  # 0 is the start, which no checkpoint holds
    state = json.loads((lora_run / "checkpoints/round_4/trainer_state.json").read_text(encoding="utf-8"))
    assert state["best"] == {"round": best, "value": rounds[best]}


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_checkpoints_are_judged_by_the_local_engine(
    kind: str, request: pytest.FixtureRequest, player: Path, tmp_path: Path
) -> None:
    run = request.getfixturevalue("lora_run") if kind == "lora" else request.getfixturevalue("full_run").folder
    said = medserl(
        "evaluate", "--run", str(run), "--compare", "trained", "--engine", "local",
        "--data", str(player / "notes.jsonl"), "--limit", "4", "--output", str(tmp_path),
    )  # fmt: skip
    assert "trained" in said


# -- what is shown when it fails ----------------------------------------------------------------------------


def test_an_engine_that_dies_ends_the_run_with_its_error(start: Start, tmp_path: Path) -> None:
    """While a round is learnt and the next one played."""
    run = start("--lora-rank", "0", "--learning-rate", "1e-6", "--async-rollout", "--output-dir", str(tmp_path / "run"))
    run.wait_for("round   3/")
    assert_learnt(rows(tmp_path / "run")[:3], tmp_path / "run")
    playing = run.descendants("VLLM")
    assert playing, run.descendants()
    for pid in playing:
        os.kill(pid, signal.SIGKILL)
    assert run.finish(120) == 2
    *_, line = [line for line in run.output().splitlines() if line.startswith("error: ")]
    assert "vLLM's process died" in line
    assert run.left_over() == {}


def test_an_engine_that_cannot_start_ends_the_run_with_its_error(start: Start, tmp_path: Path) -> None:
    run = start("--lora-rank", "0", "--kl-coef", "0", "--vllm-context", "4096", "--output-dir", str(tmp_path / "run"))
    assert run.finish(240) == 2
    *_, line = [line for line in run.output().splitlines() if line.startswith("error: ")]
    assert "max_model_len" in line
    assert run.left_over() == {}
    assert not (tmp_path / "run").exists()


# -- a cluster that runs already ----------------------------------------------------------------------------


def test_a_run_joins_the_cluster_that_runs_and_leaves_it_running(
    start: Start, running_ray: tuple[Program, int], tmp_path: Path
) -> None:
    """Playing and learning on the same GPU; then the training rank dies."""
    cluster, port = running_ray
    run = start(
        "--lora-rank", "0", "--learning-rate", "2e-4", "--placement", "colocated", "--kl-coef", "0",
        "--output-dir", str(tmp_path / "run"),
    )  # fmt: skip
    run.wait_for("round   3/")
    assert f":{port}: 4 GPUs, 1 machines" in run.output()
    assert all(cluster.descendants(name) for name in ACTORS[:3])  # KL is off: no reference
    os.kill(next(iter(cluster.descendants("ray::Policy"))), signal.SIGKILL)
    assert run.finish(120) == 2
    *_, line = [line for line in run.output().splitlines() if line.startswith("error: ")]
    assert "died" in line and "free some space" not in line
    assert not any(cluster.left_over(name) for name in ACTORS)
    assert cluster.process.poll() is None
    metrics = rows(tmp_path / "run")[:3]
    assert_learnt(metrics, tmp_path / "run")
    assert_synced(metrics)


GPUS_HELD = """
from types import SimpleNamespace
import ray
from ray.util import placement_group
from medserl.config import Settings
from medserl.engines.openrlhf import cluster
from medserl.engines.openrlhf.watch import Watch

cluster.PLACEMENT_SECONDS = 1
mine = cluster.Cluster(Settings(), Watch())
ray.get(placement_group([{"GPU": 3}]).ready())
mine.start(SimpleNamespace(args=None), "model", with_reference=False)
"""


def test_gpus_that_others_hold_are_not_waited_for_without_end() -> None:
    """Of four GPUs one is free to learn, and none to play."""
    done = subprocess.run([sys.executable, "-c", GPUS_HELD], capture_output=True, text=True, timeout=LIMIT, check=False)
    assert "RunError: 1 GPUs, each with a CPU, did not come free within 1 s" in done.stderr
