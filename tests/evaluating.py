"""`medserl evaluate` from flags to what it wrote, or to its error."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from medserl.cli import main
from medserl.engines.scripted import ScriptedEngine
from tests.poisonings import sentences, write_notes


class NoModel(ScriptedEngine):
    def generate(self, *_: Any) -> Any:
        raise AssertionError("no model is to be asked")


class Result:
    """What an evaluation wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = json.loads((folder / "evaluation.json").read_text())
        self.markdown = (folder / "table.md").read_text()
        self.table = json.loads((folder / "table.json").read_text())
        self.figures = {(row["system"], row["figure"]): row["value"] for row in self.table if row["group"] == "all"}

    def group(self, group: str) -> dict[tuple[str, str], float]:
        return {(row["system"], row["figure"]): row["value"] for row in self.table if row["group"] == group}


def evaluate(tmp_path: Path, data: Path, *flags: object) -> Result:
    """An evaluation in a folder of its own: none overwrites another."""
    folder = tmp_path / f"eval{sum(path.name.startswith('eval') for path in tmp_path.iterdir())}"
    return evaluate_to(folder, tmp_path, data, *flags)


def evaluate_to(folder: Path, tmp_path: Path, data: Path, *flags: object) -> Result:
    train = write_notes(tmp_path / "train.jsonl", 300)
    main(["evaluate", "--data", str(data), "--prompt-data", str(train), "--output", str(folder), *map(str, flags)])
    return Result(folder)


def error_line(capsys: pytest.CaptureFixture[str], *flags: object) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", *map(str, flags)])
    assert stopped.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def medec_test(path: Path) -> Path:
    """A test file as MEDEC publishes it: 12 texts of two collections, then 328 rows with an id or nothing at all."""
    columns = "Text ID,Text,Sentences,Error Flag,Error Type,Error Sentence ID,Error Sentence,Corrected Sentence"
    rows = []
    for i in range(12):
        wrong, right = sentences(i, "poison" if i % 2 else "aspirin"), sentences(i, "aspirin")
        numbered = "\n".join(f"{n} {sentence}" for n, sentence in enumerate(wrong))
        gold = [1, "treatment", 1, wrong[1], right[1], " ".join(right)] if i % 2 else [0, "NA", -1, "NA", "NA", "NA"]
        rows.append([f"{'uw' if i % 3 == 0 else 'ms'}-test-{i}", " ".join(wrong), numbered, *gold])
    rows += [[f"ms-test-{i}", *[""] * 8] for i in range(12, 180)] + [[""] * 9] * 160
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([[*columns.split(","), "Corrected Text"], *rows])
    return path
