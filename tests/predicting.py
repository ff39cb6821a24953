"""What tests of `medserl predict` share: notes of which every tenth is poisoned, and the command."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from medserl.cli import main

COUNT = 70
"""Notes: more than a batch."""


def text(number: int) -> str:
    """Every tenth note is poisoned, in its second sentence."""
    return f"Note of {number}. She is given {'poison' if number % 10 == 3 else 'aspirin'}. She improves."


def write_texts(path: Path, texts: Sequence[str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "text"])
        rows.writerows([f"n{number}", each] for number, each in enumerate(texts))
    return path


def predict(*arguments: object) -> list[dict[str, Any]]:
    """The rows that were written to `out.jsonl`."""
    main(["predict", *map(str, arguments), "--output", "out.jsonl"])
    return rows(Path("out.jsonl"))


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def error_line(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as stopped:
        main([*map(str, arguments)])
    assert stopped.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def write_adapter(folder: Path, weights: bytes) -> None:
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}', encoding="utf-8")
    (folder / "adapter_model.safetensors").write_bytes(weights)
