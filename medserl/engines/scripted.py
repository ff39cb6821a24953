"""An engine without a model: deterministic players, so that the whole loop runs in a second.

A player is a function of a prompt and its own random numbers. The default one plays both roles by their prompts: as
Injector it swaps a word of one sentence (and sometimes writes nonsense, so that retries happen), as Assessor it guesses
with a bias that updates move, so that saving, loading and resuming have something to carry.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from medserl.engines.base import Sampling, UpdateStats, WeightedTurn
from medserl.engines.reply_probabilities import shares
from medserl.errors import RunError
from medserl.game.episode import Completion, Turn
from medserl.game.prompts import Messages
from medserl.game.roles import Role

Player = Callable[[Messages, random.Random], str]

_NUMBERED = re.compile(r"^(\d+) (\S.*)$", re.MULTILINE)
_REPLACEMENTS = ("amoxicillin", "left", "chronic", "diabetes", "aspirin", "bilateral")
_STATE_FILE = "scripted.json"


class ScriptedEngine:
    """Implements `engines.base.Engine`. A word of a completion is a token of probability one half."""

    scores_replies = True

    def __init__(self, player: Player | None = None) -> None:
        self.player = player or self._default_player
        self.bias = 0.0
        self.updates = 0
        self.context: int | None = None

    def generate(self, prompts: Sequence[Messages], sampling: Sampling) -> list[Completion]:
        return [
            _cut(self._complete(self.player(messages, random.Random(seed)), messages), room)
            for messages, seed, room in zip(
                prompts, _seeds(len(prompts), sampling), sampling.rooms(len(prompts)), strict=True
            )
        ]

    def prompt_lengths(self, prompts: Sequence[Messages]) -> list[int]:
        return [len(messages[-1]["content"].split()) for messages in prompts]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def _complete(self, text: str, messages: Messages) -> Completion:
        tokens = tuple(range(1, len(text.split()) + 2))
        prompt = tuple(range(len(messages[-1]["content"].split())))
        return Completion(text, prompt, tokens, (math.log(0.5),) * len(tokens), "stop")

    def reply_probabilities(
        self, prompts: Sequence[Messages], replies: Sequence[tuple[str, ...]]
    ) -> list[tuple[float, ...]]:
        return [shares([-math.log(2) * len(reply.split()) for reply in each]) for each in replies]

    def logprobs(self, turns: Sequence[Turn], *, reference: bool = False) -> list[tuple[float, ...]]:
        return [turn.completion.logprobs for turn in turns]

    def target_turns(self, role: Role, prompts: Sequence[Messages], replies: Sequence[str]) -> list[Turn]:
        completions = [self._complete(reply, each) for each, reply in zip(prompts, replies, strict=True)]
        unsampled = [replace(completion, logprobs=()) for completion in completions]
        return [Turn(role, *each) for each in zip(prompts, unsampled, strict=True)]

    def update(self, turns: Sequence[WeightedTurn], *, learning_rate: float) -> UpdateStats:
        self.updates += 1
        for turn in turns:
            if turn.turn.role == "assessor":
                sign = 1 if "INCORRECT" in turn.turn.completion.text else -1
                self.bias += learning_rate * sign * turn.advantages[-1]
        if not math.isfinite(self.bias):
            raise RunError("the weights are not finite after this update")
        return UpdateStats(
            loss=0.0,
            grad_norm=1.0,
            clip_fraction=0.0,
            entropy=math.log(2),
            logprob_gap=0.0,
            optimizer_steps=1,
            tokens=sum(len(turn.advantages) for turn in turns),
            sft_loss=math.log(2) if any(turn.old_logprobs is None for turn in turns) else None,
        )

    def sync(self) -> None:
        """Rollouts read the weights that are trained."""

    def save(self, folder: Path) -> None:
        state = {"bias": self.bias, "updates": self.updates}
        (folder / _STATE_FILE).write_text(json.dumps(state), encoding="utf-8")

    def load(self, folder: Path) -> None:
        state = json.loads((folder / _STATE_FILE).read_text(encoding="utf-8"))
        self.bias, self.updates = state["bias"], state["updates"]

    def peak_memory_bytes(self) -> int:
        return 0

    def close(self) -> None:
        """Nothing is held."""

    def _default_player(self, messages: Messages, rng: random.Random) -> str:
        content = messages[-1]["content"]
        if "final_answer" in content:
            guess = rng.random() < 1 / (1 + math.exp(-self.bias))
            return f"final_answer: {'INCORRECT' if guess else 'CORRECT'}"
        if rng.random() < 0.2:
            return "I would rather not."
        if "<note>" in content:
            return f"<note>{_swap_word(content.split(chr(10))[0], rng)}</note>"
        number, sentence = rng.choice(_NUMBERED.findall(content))
        return f"{number} {_swap_word(sentence, rng)}"


def _cut(done: Completion, room: int) -> Completion:
    """The completion as it is where its tokens, the end of the turn among them, have room; else its first words."""
    if len(done.token_ids) <= room:
        return done
    words = list(re.finditer(r"\S+", done.text))[:room]
    text = done.text[: words[-1].end()]
    return replace(done, text=text, token_ids=done.token_ids[:room], logprobs=done.logprobs[:room], finish="length")


def _seeds(count: int, sampling: Sampling) -> Sequence[int | str]:
    return sampling.seeds or [f"{sampling.seed}/{i}" for i in range(count)]


def _swap_word(text: str, rng: random.Random) -> str:
    words = text.split()
    words[rng.randrange(len(words))] = rng.choice(_REPLACEMENTS)
    return " ".join(words)
