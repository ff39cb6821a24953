"""The README's first command with the real model, made short: every stage runs and leaves what it should."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.places import ROOT

pytestmark = pytest.mark.model


def pipeline(run: Path, test_data: Path, *flags: str) -> str:
    command = ["bash", "scripts/run_medserl_pipeline.sh", "--run", str(run), "--test-data", str(test_data), *flags]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=1800, env={**os.environ, "VENV": sys.prefix}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_whole_pipeline(tmp_path: Path) -> None:
    sample = (ROOT / "data/medec_test_sample.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    small = tmp_path / "small.jsonl"
    small.write_text("".join(sample[:2]), encoding="utf-8")
    run = tmp_path / "run"
    flags = ["--stage", "train", "--rollout-batch-size", "4", "--max-rounds", "2", "--eval-notes", "2"]
    printed = pipeline(run, small, *flags)

    rounds = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["round"] for row in rounds] == [0, 1, 2]
    assert all(row["vcf_acceptance_rate"] > 0.1 for row in rounds[1:])
    assert all(row["logprob_gap"] < 0.05 for row in rounds[1:])
    assert (run / "checkpoints/round_2/adapter_model.safetensors").is_file()
    table = json.loads((run / "eval/table.json").read_text(encoding="utf-8"))
    guesses = {"always-incorrect", "always-correct", "coin"}
    assert {row["system"] for row in table} == {*guesses, "tf-idf", "base", "warmup", "trained"}
    assert "round   2/2" in printed
    report = (run / "report.html").read_text(encoding="utf-8")
    assert "Edits accepted" in report
    assert "Invented patients" in report

    again = pipeline(run, small, "--stage", "report")
    assert "== report" in again
    assert "== online self-play" not in again


def test_an_unknown_stage_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "scripts/run_medserl_pipeline.sh", "--stage", "nonsense"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "env warmup train evaluate report" in done.stderr
