"""Local engines on a tiny model, the turns that they play, and what they learn with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from medserl.config import Settings
from medserl.engines import create_engine
from medserl.engines.base import Sampling, WeightedTurn
from medserl.engines.local import LocalEngine
from medserl.game.episode import Completion, Turn
from medserl.game.prompts import Messages, load_prompts

NOTES = (
    "A man has fever.",
    "A 54-year-old woman comes to the physician because of fever and cough for three days.",
    "Her temperature is 38.3 C (100.9 F), pulse is 96/min. She is treated with amoxicillin.",
    "The chest is clear. The abdomen is soft. Dr. Smith gives aspirin b.i.d. with food.",
    "No murmur.",
    "He smokes and drinks; his blood pressure is 120/70 mm Hg.",
)
LEARNING_RATE = 1e-3


def engine_of(folder: Path, **changes: Any) -> LocalEngine:
    options = {"adapter": "none", "device": "cpu", "dtype": "float32", "lora_rank": 4, "lora_alpha": 8}
    engine = create_engine(Settings(model=str(folder), **{**options, **changes}))
    assert isinstance(engine, LocalEngine)
    return engine


def chats() -> list[Messages]:
    prompts = load_prompts("term", "edit")
    return [prompts.assessor(note) for note in NOTES] + [prompts.injector(NOTES[3], "benign", None)]


def played(engine: LocalEngine, seed: int = 0) -> list[Turn]:
    """Turns of 3 to 12 tokens: each completion is cut to a length of its own."""
    turns = []
    for i, (chat, done) in enumerate(zip(chats(), sampled(engine, seed), strict=True)):
        n = 3 + 7 * i % 10
        cut = replace(done, token_ids=done.token_ids[:n], logprobs=done.logprobs[:n])
        turns.append(Turn("assessor", chat, cut))
    return turns


def sampled(engine: LocalEngine, seed: int = 0, max_new_tokens: int = 12) -> list[Completion]:
    return engine.generate(chats(), Sampling(max_new_tokens, seed=seed))


def weighted(turns: Sequence[Turn], advantage: Any = None) -> list[WeightedTurn]:
    """Turns with an advantage of their own for every token: alternating in sign, unless one is given."""
    return [
        WeightedTurn(
            turn=turn,
            old_logprobs=turn.completion.logprobs,
            advantages=tuple(
                advantage if advantage is not None else (-1) ** i * (1 + t / 4)
                for t in range(len(turn.completion.token_ids))
            ),
            note_id=f"n{i}",
        )
        for i, turn in enumerate(turns)
    ]


def trained(engine: LocalEngine) -> dict[str, torch.Tensor]:
    """A copy of every trained weight."""
    return {name: p.detach().clone() for name, p in engine.model.named_parameters() if p.requires_grad}


def gradients(engine: LocalEngine) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in engine.model.named_parameters() if p.requires_grad}


def assert_identical(some: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> None:
    assert some.keys() == others.keys()
    assert all(torch.equal(tensor, others[name]) for name, tensor in some.items())


def flat(rows: Sequence[Sequence[float]]) -> torch.Tensor:
    return torch.tensor([value for row in rows for value in row])


def plain_logprobs(engine: LocalEngine, turn: Turn) -> torch.Tensor:
    """Of each completion token: one turn, no padding, all logits."""
    done = turn.completion
    logits = engine.model(torch.tensor([done.prompt_ids + done.token_ids])).logits[0]
    before_each = range(len(done.prompt_ids) - 1, len(logits) - 1)
    return logits.log_softmax(-1)[before_each, done.token_ids]
