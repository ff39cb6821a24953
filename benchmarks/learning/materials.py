"""What the arms start from and are judged on: notes with and without twins, a start taught on a few pairs, a test.

All of it follows from the fact table and the seeds named here. Invented patients, for developing software, not for
clinical use.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from medserl.data.corpus import build_larger_test, build_untaught, build_untaught_pairs
from medserl.data.sample_paths import sample_path

FEW_GOLD = 91
"""One training pair in ten keeps its wrong twin."""
TEST_SPLITS = ("test-seen", "test-unseen", "test-reworded")
TEST_PAIRS = (100, 100, 200)
"""Pairs of each split that judge an arm: the facts that were taught, others, and these in words of their own."""
CHOOSING_PAIRS = 73
"""Pairs on which a recipe is chosen, of facts that were taught and of others in words of their own."""
SEED = 0
TAUGHT = ("--epochs", "20", "--measure", "0", "--edit-audit", "reject")
"""How a start is taught on few pairs: as many steps as two passes over all of the sample's pairs have."""

Row = dict[str, Any]


def untaught() -> list[Row]:
    """Correct notes of facts that nobody is taught."""
    return build_untaught()[0]


def untaught_pairs() -> list[Row]:
    """The same notes, each with a wrong twin: what gold pairs of those facts would teach."""
    return build_untaught_pairs()


def untaught_and_few_pairs() -> list[Row]:
    """The notes of facts that nobody is taught, and 91 of the sample's pairs on others."""
    return untaught() + few_pairs()


def few_gold() -> list[Row]:
    """All training notes of the sample, of which 91 keep their wrong twin and the others are correct notes alone."""
    rows, kept = _training_pairs()
    of_note = ("note_id", "correct_note", "fact_id", "split", "kind")
    return [row if row["note_id"] in kept else {name: row[name] for name in of_note} for row in rows]


def few_pairs() -> list[Row]:
    """Those 91 pairs alone."""
    rows, kept = _training_pairs()
    return [row for row in rows if row["note_id"] in kept]


def _training_pairs() -> tuple[list[Row], set[str]]:
    rows = [json.loads(line) for line in sample_path("train").read_text(encoding="utf-8").splitlines()]
    return rows, set(random.Random(SEED).sample([row["note_id"] for row in rows], FEW_GOLD))


def larger_test(pairs: Sequence[int]) -> list[Row]:
    """So many pairs of each of the splits, drawn once for all arms and seeds out of 546, 455 and 273."""
    by_split = {split: [row for row in _tests() if row["split"] == split] for split in TEST_SPLITS}
    drawn = (
        random.Random(f"{SEED}/{split}").sample(mine, min(count, len(mine)))
        for (split, mine), count in zip(by_split.items(), pairs, strict=True)
    )
    return [row for mine in drawn for row in mine]


def choosing() -> list[Row]:
    """Pairs on which no arm is judged: all that are left of the reworded ones, and as many of the seen facts."""
    judged = {row["note_id"] for row in larger_test(TEST_PAIRS)}
    rest = [row for row in _tests() if row["note_id"] not in judged]
    seen, reworded = ([row for row in rest if row["split"] == split] for split in ("test-seen", "test-reworded"))
    return reworded + random.Random(SEED + 1).sample(seen, CHOOSING_PAIRS)


@lru_cache(maxsize=1)
def _tests() -> list[Row]:
    return [*build_larger_test(), *build_untaught()[1]]


NOTES: Mapping[str, Callable[[], list[Row]]] = {
    "untaught": untaught,
    "untaught_pairs": untaught_pairs,
    "untaught_and_few_pairs": untaught_and_few_pairs,
    "few_gold": few_gold,
    "few_pairs": few_pairs,
}
"""What an arm may name as `prompt_data`."""


def notes_file(name: str, folder: Path) -> Path:
    """The file of these notes, built where it is not there yet."""
    return write_once(folder / f"medec_{name}_sample.jsonl", NOTES[name])


def test_file(pairs: Sequence[int], folder: Path) -> Path:
    """The file of so many test pairs of each split, built where it is not there yet."""
    named = "_".join(map(str, pairs))
    return write_once(folder / f"medec_test_{named}_sample.jsonl", lambda: larger_test(pairs))


def choosing_file(folder: Path) -> Path:
    """The file of the pairs on which a recipe is chosen, built where it is not there yet."""
    return write_once(folder / "medec_choosing_sample.jsonl", choosing)


def write_once(path: Path, build: Callable[[], list[Row]]) -> Path:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in build()), encoding="utf-8")
        part.replace(path)
    return path
