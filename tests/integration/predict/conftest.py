"""A scripted reader in the model's place, notes for it, and a run with validation notes."""

from __future__ import annotations

from pathlib import Path

import pytest

import medserl.engines
from medserl.config import Settings
from medserl.runs.runlog import RunFolder
from tests.finder import Finder
from tests.poisonings import write_notes
from tests.predicting import COUNT, text, write_adapter, write_texts


@pytest.fixture(autouse=True)
def finder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[Finder]:
    monkeypatch.setenv("MEDSERL_ENGINE", "scripted")
    monkeypatch.setenv("MEDSERL_ADAPTER", "none")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(medserl.engines, "create_inference_engine", Finder)
    monkeypatch.setattr(Finder, "asked", [])
    monkeypatch.setattr(Finder, "patience", None)
    monkeypatch.setattr(Finder, "context_words", None)
    return Finder


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return write_texts(tmp_path / "notes.csv", [text(number) for number in range(COUNT)])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose 28 validation texts the Finder judges with 0.9 and 0.6: calibrated, half is between them."""
    write_notes(tmp_path / "train.jsonl", 100)
    write_notes(tmp_path / "validation.jsonl", 200)
    settings = Settings(
        engine="scripted", output_dir="run", prompt_data="train.jsonl", validation_data="validation.jsonl",
        adapter="none", tensorboard=False,
    )  # fmt: skip
    folder = RunFolder.create(settings)
    folder.save_checkpoint({"round": 1}, lambda to: write_adapter(to, b"first"), 3)
    folder.close()
    return folder.path
