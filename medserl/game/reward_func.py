"""The game's reward in the shape that OpenRLHF's remote reward functions have."""

from __future__ import annotations

from collections.abc import Sequence

from medserl.game.parsing import parse_verdict
from medserl.game.rewards import game_rewards
from medserl.game.roles import MODES, Mode


def reward_func(queries: Sequence[str], prompts: Sequence[str], labels: Sequence[str]) -> dict[str, list[float]]:
    """Assessor's reward for each query (prompt and completion in one text).

    `labels` are the modes (`error` or `benign`). Only what follows the prompt is parsed, so nothing in a note is ever
    read as an answer. The Injector's reward of the same game is the negative, except that it is no sample where there
    was no verdict.

    Raises:
        ValueError: a query that does not begin with its prompt, or a label that is no mode.
    """
    rewards = []
    for query, prompt, label in zip(queries, prompts, labels, strict=True):
        if not query.startswith(prompt):
            raise ValueError("a query must begin with its prompt, or the note could be read as an answer")
        reward = game_rewards(_mode(label), parse_verdict(query[len(prompt) :])).assessor
        rewards.append(reward if reward is not None else 0.0)
    return {"rewards": rewards, "scores": [(reward + 1) / 2 for reward in rewards]}


def _mode(label: str) -> Mode:
    for mode in MODES:
        if label == mode:
            return mode
    raise ValueError(f"label {label!r}: a label is a mode, {' or '.join(MODES)}")
