"""What a model knows after a prompt: its keys and values, and the logits of the next token."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from medserl.engines.passes import logits_at

Ids = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Prefill:
    """Some prompts, padded on the left to L places, as one model has read them.

    `logits` are those of the next token, (B, V); `mask` and `positions` are (B, L); the cache holds L places a row.
    """

    prompts: tuple[Ids, ...]
    logits: Tensor
    mask: Tensor
    positions: Tensor
    cache: Any

    def of(self, prompts: Sequence[Ids]) -> Prefill:
        """A copy to write on, for these of its prompts in this order; one may come several times."""
        rows = torch.tensor([self.prompts.index(prompt) for prompt in prompts], device=self.mask.device)
        cache = copy.copy(self.cache)
        cache.layers = [_copied(layer) for layer in self.cache.layers]
        cache.reorder_cache(rows)  # gives the copied layers tensors of their own
        return Prefill(tuple(prompts), self.logits[rows], self.mask[rows], self.positions[rows], cache)


def _copied(layer: Any) -> Any:
    """A layer of a cache that can change without the first; the states of a linear attention stand in dicts."""
    new = copy.copy(layer)
    for name, value in vars(layer).items():
        if isinstance(value, dict):
            setattr(new, name, dict(value))
    return new


@torch.inference_mode()
def prefill(model: Any, prompts: Sequence[Ids], pad_id: int) -> Prefill:
    """Read the prompts."""
    device = next(model.parameters()).device
    input_ids, mask = left_pad(prompts, pad_id)
    input_ids, mask = input_ids.to(device), mask.to(device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    logits, cache = forward(model, input_ids, None if mask.all() else mask, positions, None)
    return Prefill(tuple(prompts), logits[:, -1], mask, positions, cache)


def forward(
    model: Any, input_ids: Tensor, mask: Tensor | None, positions: Tensor, cache: Any, keep: int = 1
) -> tuple[Tensor, Any]:
    """Float logits of the last `keep` positions, (B, keep, V), and the cache, which has grown by these inputs.

    Without a cache, the model makes the one that suits it. No mask means that nothing is padded: a family that keeps a
    running state may take a mask of all places for one of the new ones.
    """
    rows, columns = torch.meshgrid(
        torch.arange(len(input_ids), device=input_ids.device),
        torch.arange(input_ids.shape[1] - keep, input_ids.shape[1], device=input_ids.device),
        indexing="ij",
    )
    logits, cache = logits_at(
        model,
        rows.flatten(),
        columns.flatten(),
        input_ids=input_ids,
        attention_mask=mask,
        position_ids=positions,
        use_cache=True,
        cache=cache,
    )
    return logits.unflatten(0, (len(input_ids), keep)), cache


def left_pad(sequences: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask of right-aligned sequences, both (B, longest)."""
    longest = max(map(len, sequences))
    input_ids = torch.full((len(sequences), longest), pad_id)
    mask = torch.zeros(len(sequences), longest, dtype=torch.long)
    for i, sequence in enumerate(sequences):
        input_ids[i, longest - len(sequence) :] = torch.tensor(sequence)
        mask[i, longest - len(sequence) :] = 1
    return input_ids, mask


def right_pad(sequences: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask of left-aligned sequences, both (B, longest)."""
    input_ids, mask = left_pad([sequence[::-1] for sequence in sequences], pad_id)
    return input_ids.flip(1), mask.flip(1)
