"""A scripted reader in the model's place, and notes for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from medserl.evaluation import systems
from tests.poisonings import Reader, write_notes


@pytest.fixture(autouse=True)
def reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDSERL_ENGINE", "scripted")
    monkeypatch.setattr(systems, "create_inference_engine", Reader)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_notes(tmp_path / "test.jsonl", 0)
