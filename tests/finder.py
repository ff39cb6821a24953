"""A scripted Assessor that finds poisonings, whatever the note, in the place of a model."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import ClassVar

from medserl.config import Settings
from medserl.engines.base import Sampling
from medserl.engines.scripted import ScriptedEngine
from medserl.game.episode import Completion
from medserl.game.prompts import Messages

NUMBER, POISON = re.compile(r"of (\d+)\."), re.compile(r"^(\d+) (.*poison.*)$", re.MULTILINE)


def find(messages: Messages, rng: random.Random) -> str:
    """Names the sentence with the poison; of a note with `mumble` in it says nothing that can be read."""
    shown = messages[-1]["content"]
    if "mumble" in shown:
        return "final_answer: CORRECT\nfinal_answer: INCORRECT"
    place = POISON.search(shown)
    if place is None:
        return "sentence: 0\nshould_say: fever\nit_says: fever\nfinal_answer: CORRECT"
    return f"sentence: {place[1]}\nshould_say: aspirin\nit_says: poison\nfinal_answer: INCORRECT"


class Finder(ScriptedEngine):
    """P(INCORRECT) is 0.9 of a poisoning, less by a thousandth of the last number `of N.` in the note; of others
    0.2, or 0.6 where the note speaks of a Patient.

    `context` is in words. Keeps how often it was asked, and is interrupted instead of answering a call after `patience`
    of them.
    """

    context_words: ClassVar[int | None] = None
    patience: ClassVar[int | None] = None
    asked: ClassVar[list[int]] = []

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(find)
        self.context = type(self).context_words

    def generate(self, prompts: Sequence[Messages], sampling: Sampling) -> list[Completion]:
        if type(self).patience == len(type(self).asked):
            raise KeyboardInterrupt
        type(self).asked.append(len(prompts))
        return super().generate(prompts, sampling)

    def reply_probabilities(
        self, prompts: Sequence[Messages], replies: Sequence[tuple[str, ...]]
    ) -> list[tuple[float, ...]]:
        return [(1 - p, p) for p in (chance(prompt[-1]["content"]) for prompt in prompts)]


def chance(shown: str) -> float:
    if "poison" not in shown:
        return 0.6 if "Patient" in shown else 0.2
    numbers = NUMBER.findall(shown)
    return 0.9 - int(numbers[-1]) / 1000 if numbers else 0.9
