"""Role-turns as OpenRLHF's `Experience`, and per-token numbers back.

One role-turn is one `Experience` with a batch of 1: its own reward, action mask and log-probabilities. OpenRLHF counts
actions over the whole sequence of T tokens: entry t of a (1, T-1) row is about token t+1, and the mask keeps the
completion's entries.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from openrlhf.trainer.ppo_utils.experience import Experience
from torch import Tensor

from medserl.engines.base import WeightedTurn
from medserl.errors import RunError
from medserl.game.episode import Turn


def length(turn: Turn) -> int:
    """Tokens of prompt and completion."""
    return len(turn.completion.prompt_ids) + len(turn.completion.token_ids)


def to_experience(turn: Turn) -> Experience:
    """The turn's tokens and masks, to be scored.

    Raises:
        RunError: the completion has no token, so there would be no action.
    """
    prompt, completion = turn.completion.prompt_ids, turn.completion.token_ids
    if not completion or not prompt:
        raise RunError(f"a turn of the {turn.role} without tokens cannot be trained or scored")
    sequence = torch.tensor([prompt + completion])
    return Experience(
        sequences=sequence,
        attention_mask=torch.ones_like(sequence),
        action_mask=_actions(torch.ones(len(completion)), len(prompt)).bool(),
    )


def to_training_experience(turn: WeightedTurn) -> Experience:
    """The turn with all that the policy update needs.

    Raises:
        RunError: there are no log-probabilities of the policy before the update.
    """
    if turn.old_logprobs is None:
        raise RunError(f"a turn of the {turn.turn.role} on note {turn.note_id} was not scored before the update")
    experience = to_experience(turn.turn)
    prompt_length = len(turn.turn.completion.prompt_ids)

    def row(values: Sequence[float]) -> Tensor:
        return _actions(torch.tensor(values, dtype=torch.float32), prompt_length)

    experience.rewards = torch.tensor([turn.reward])
    experience.action_log_probs = row(turn.old_logprobs)
    experience.rollout_log_probs = row(turn.turn.completion.logprobs)
    experience.advantages = row(turn.advantages)
    if turn.ref_logprobs is not None:
        experience.base_action_log_probs = row(turn.ref_logprobs)
    return experience


def together(experiences: Sequence[Experience], pad_id: int) -> Experience:
    """One pass: the experiences as rows of one batch, padded on the right."""
    return Experience.concat_experiences(list(experiences), pad_id)


def completion_values(rows: Tensor, turns: Sequence[Turn]) -> list[tuple[float, ...]]:
    """Out of (B, T-1) rows, the entries at each turn's completion tokens."""
    return [
        tuple(row[len(turn.completion.prompt_ids) - 1 : length(turn) - 1].tolist())
        for row, turn in zip(rows, turns, strict=True)
    ]


def _actions(values: Tensor, prompt_length: int) -> Tensor:
    """(1, T-1): zeros for the prompt, then `values`."""
    return torch.nn.functional.pad(values, (prompt_length - 1, 0))[None]
