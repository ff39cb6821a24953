"""Notes on poisonings, and a scripted engine that finds them in place of a model."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medserl.config import Settings
from medserl.engines.scripted import ScriptedEngine
from medserl.game.prompts import Messages

TYPES = ("diagnosis", "treatment")
PAIRS, LONE = 12, 4


def sentences(number: int, drug: str) -> list[str]:
    return [
        f"Patient {number} has fever.",
        f"She is given {drug}.",
        "She improves" + " slowly" * 100 * (number % 2) + ".",
    ]


def record(number: int, pair: bool, prefix: str) -> dict[str, Any]:
    right, wrong = sentences(number, "aspirin"), sentences(number, "poison")
    note = {"note_id": f"{prefix}-{number}", "correct_note": " ".join(right), "sentences": right}
    if not pair:
        return note
    return note | {
        "incorrect_note": " ".join(wrong),
        "error_type": TYPES[number % 2],
        "error_sentence_id": 1,
        "error_sentence": wrong[1],
        "corrected_sentence": right[1],
        "sentences": wrong,
    }


def write_notes(path: Path, first: int, prefix: str = "ms") -> Path:
    """12 pairs and 4 lone correct notes on patients of the numbers from `first` on."""
    notes = [record(first + i, i < PAIRS, prefix) for i in range(PAIRS + LONE)]
    path.write_text("".join(json.dumps(note) + "\n" for note in notes), encoding="utf-8")
    return path


def examine(messages: Messages, rng: random.Random) -> str:
    """Finds every poison but patient 0's."""
    shown = messages[-1]["content"]
    if "poison" not in shown or "Patient 0 " in shown:
        return "final_answer: CORRECT"
    place = re.search(r"^(\d+) .*poison", shown, re.MULTILINE)
    assert place
    return f"sentence: {place[1]}\nshould_say: given aspirin\nit_says: given poison\nfinal_answer: INCORRECT"


class Reader(ScriptedEngine):
    """P(INCORRECT) is 0.4 of a poisoning and 0.1 of other notes: right in order, wrong in height."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(examine)

    def reply_probabilities(
        self, prompts: Sequence[Messages], replies: Sequence[tuple[str, ...]]
    ) -> list[tuple[float, ...]]:
        chances = [0.4 if "poison" in prompt[-1]["content"] else 0.1 for prompt in prompts]
        return [(1 - p, p) for p in chances]
