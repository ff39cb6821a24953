"""The paths and checks that the plan of this project names, run verbatim from the repository root."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.places import ROOT

VCF_CHECK = """
from scripts.sft.inference_utils import apply_vcf
original = 'Patient has type 2 diabetes controlled with metformin.'
modified = 'Patient has type 1 diabetes controlled with metformin.'
result = apply_vcf(original, modified, min_jaccard=0.85, max_jaccard=0.99, max_word_edits=6)
assert result.passed
"""

STEP_CHECK = """
from src.training.medserl_trainer import MedSeRLTrainer, sample_notes
trainer = MedSeRLTrainer()
batch = sample_notes(size=8)
metrics = trainer.training_step(batch)
assert 'vcf_acceptance_rate' in metrics and metrics['vcf_acceptance_rate'] > 0.1 and 'mean_reward' in metrics
"""

TRAIN_CHECK = (
    "bash scripts/train_medserl_reinforce_pp.sh --prompt-data data/medec_train_sample.jsonl "
    "--rollout-batch-size 32 --max-epochs 1"
)
SCRIPT_CHECK = (
    f"{sys.executable} src/training/medserl_trainer.py --prompt-data medec_train.jsonl --vcf-min-jaccard 0.85 "
    "--vcf-max-jaccard 0.99 --vcf-max-word-edits 6 --rollout-batch-size 64"
)


def run(command: list[str], folder: Path = ROOT, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=1800,
        env={**os.environ, "PYTHON": sys.executable, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_vcf_check() -> None:
    run([sys.executable, "-c", VCF_CHECK])


@pytest.mark.model
def test_training_step_check() -> None:
    """The check as the plan writes it but for its 64 notes, which take minutes and show no more than 8."""
    run([sys.executable, "-c", STEP_CHECK])


def test_training_script_check(tmp_path: Path) -> None:
    """The command as written; the environment asks for the scripted engine: an epoch of the real one takes long."""
    before = set((ROOT / "outputs").glob("medserl_*")) if (ROOT / "outputs").exists() else set()
    run(["bash", "-c", TRAIN_CHECK], MEDSERL_ENGINE="scripted")
    (made,) = set((ROOT / "outputs").glob("medserl_*")) - before
    assert "vcf_acceptance_rate" in run(["bash", "-c", f"tail {made}/logs/train.log | grep vcf_acceptance_rate"])


def test_trainer_as_a_script(tmp_path: Path) -> None:
    sample = (ROOT / "data/medec_train_sample.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:64]
    (ROOT / "medec_train.jsonl").write_text("".join(sample), encoding="utf-8")
    try:
        run(["bash", "-c", SCRIPT_CHECK], MEDSERL_ENGINE="scripted", MEDSERL_OUTPUT_DIR=str(tmp_path / "run"))
    finally:
        (ROOT / "medec_train.jsonl").unlink()
    assert (tmp_path / "run/metrics.jsonl").is_file()


def test_the_other_documented_paths_import() -> None:
    run([sys.executable, "-c", (
        "from src.training.vcf_rollout import VCFRolloutGenerator as V; V.generate_with_vcf\n"
        "from src.training.medec_reward import game_rewards, reward_func\n"
        "r = reward_func(['note final_answer: CORRECT\\nfinal_answer: INCORRECT'],"
        " ['note final_answer: CORRECT\\n'], ['error'])\n"
        "assert r['rewards'] == [1.0]"
    )])  # fmt: skip


def test_scripts_are_found_even_beside_an_installed_package_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/__init__.py").write_text("raise ImportError('the wrong scripts package')")
    run([sys.executable, "-c", VCF_CHECK], PYTHONPATH=str(tmp_path))


def test_evaluation_script_answers() -> None:
    assert "--compare" in run([sys.executable, "scripts/evaluate_medserl.py", "--help"])
