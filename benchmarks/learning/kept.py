"""The runs whose raw figures `run.py` kept, and the notes that they were judged on."""

from __future__ import annotations

import json
import lzma
import re
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from medserl.config.removed import with_figures_renamed
from medserl.data.readers import read_notes
from medserl.data.sample_paths import sample_path
from medserl.evaluation.predictions import Prediction
from medserl.game.note import Note

WARMUP = "warmup"
FEW_ROUNDS = 10
"""The beginning and the end of a run: what the table says of its rounds are means over so many."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One arm with one seed."""

    arm: str
    seed: int
    metrics: list[Row]
    predictions: list[Prediction]
    games: list[Row]
    frozen: list[Prediction]
    start: str = WARMUP

    @property
    def is_start(self) -> bool:
        return not self.metrics

    @property
    def rounds(self) -> int:
        return int(self.metrics[-1]["round"]) if self.metrics else 0

    def mean(self, name: str, after: int, to: int) -> float | None:
        """Mean over the rounds `after` + 1 to `to`, of those that have the figure."""
        values = [row[name] for row in self.metrics if after < row["round"] <= to and row.get(name) is not None]
        return fmean(values) if values else None

    def first(self, name: str) -> float | None:
        return self.mean(name, -1, self.few)  # round 0 is the validation before the first

    def last(self, name: str) -> float | None:
        return self.mean(name, self.rounds - self.few, self.rounds)

    @property
    def few(self) -> int:
        return min(FEW_ROUNDS, self.rounds // 2)

    @property
    def tokens(self) -> float:
        """That the updates went over, prompts included, each turn's own."""
        return sum(
            row["tokens_per_second_update"] * row["seconds_update"]
            for row in self.metrics
            if row.get("tokens_per_second_update")
        )

    @property
    def minutes(self) -> float:
        """What the rounds took, without validations and checkpoints."""
        return sum(value for row in self.metrics for key, value in row.items() if key.startswith("seconds_")) / 60


def read_runs(folder: Path) -> list[Run]:
    """Every kept run, the warm-up first, then by arm and seed."""
    runs = []
    for place in sorted(path.parent for path in folder.glob("*/predictions.jsonl.xz")):
        named = re.fullmatch(r"(.+)_seed(\d+)", place.name)
        arm, seed = (named[1], int(named[2])) if named else (place.name, 0)
        metrics, games = (rows(place / f"{name}.jsonl.xz") for name in ("metrics", "games"))
        said, frozen = (
            [Prediction(**row) for row in rows(place / f"{name}.jsonl.xz")] for name in ("predictions", "frozen")
        )
        runs.append(Run(arm, seed, metrics, said, games, frozen, start_of(place / "config.toml.xz")))
    return sorted(runs, key=lambda run: (run.arm != WARMUP, not run.is_start, run.arm, run.seed))


def start_of(config: Path) -> str:
    """The name under which what a run started from was judged."""
    if not config.exists():
        return WARMUP
    adapter = tomllib.loads(lzma.decompress(config.read_bytes()).decode()).get("adapter", "auto")
    return WARMUP if adapter == "auto" else str(adapter)


def test_notes(folder: Path, data: Path | None) -> tuple[Note, ...]:
    """The notes of the file; without one those that `run.py` kept, or the sample's test notes."""
    kept = folder / "test_notes.jsonl.xz"
    if data or not kept.exists():
        return tuple(read_notes(data or sample_path("test")).notes)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "test_notes.jsonl"
        file.write_bytes(lzma.decompress(kept.read_bytes()))
        return tuple(read_notes(file).notes)


def rows(path: Path) -> list[Row]:
    """The rows of a kept file; none where it was not kept."""
    if not path.exists():
        return []
    with lzma.open(path, "rt", encoding="utf-8") as file:
        return [with_figures_renamed(json.loads(line)) for line in file]
