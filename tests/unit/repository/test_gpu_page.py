"""The page of figures of `benchmarks/gpu_check.sh`, and that its script is one."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from benchmarks.gpu_page import page, summary
from medserl.config import Settings
from tests.places import ROOT

SCRIPT = ROOT / "benchmarks/gpu_check.sh"


def run(folder: Path, name: str, inject: list[float]) -> Path:
    path = folder / name
    path.mkdir()
    rows = [{"round": 0}]
    rows += [
        {"round": i, "accepted_games": 2, "seconds_inject": seconds, "seconds_update": 1.0, "logprob_gap": i / 100}
        for i, seconds in enumerate(inject, start=1)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_means_leave_the_first_round_out(tmp_path: Path) -> None:
    found = summary(run(tmp_path, "awake", [100.0, 3.0, 5.0]))
    assert found["seconds_inject"] == 4.0
    assert found["seconds an accepted game"] == (3.0 + 5.0 + 2.0) / 4
    assert found["vllm_kl"] is None


def test_a_page_has_all_runs_and_the_drift_of_the_longest(tmp_path: Path) -> None:
    run(tmp_path, "awake", [1.0, 2.0, 3.0])
    run(tmp_path, "local", [1.0])
    lines = page(tmp_path).splitlines()
    assert lines[0].split() == ["awake", "local"]
    assert lines[-1] == "logprob_gap by round (awake): 0.0100 0.0200 0.0300"
    assert page(tmp_path / "local" / "none").endswith("no run there has played a round")


def test_the_script_is_well_formed_and_its_flags_are_settings() -> None:
    assert subprocess.run(["bash", "-n", str(SCRIPT)], check=False).returncode == 0
    known = {f"--{name.replace('_', '-')}" for name in Settings.model_fields}
    others = {"--notes", "--dry-run", "--query-gpu", "--format", "--short"}
    for word in SCRIPT.read_text(encoding="utf-8").split():
        if word.startswith("--"):
            flag = word.split("=")[0].rstrip("|\\")
            assert flag in known | others or f"--{flag.removeprefix('--no-')}" in known, flag
