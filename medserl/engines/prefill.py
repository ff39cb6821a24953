"""What a model knows after a prompt: its keys and values, and the logits of the next token.

Reading a note costs far more than writing the few words of an edit. So whoever goes on from a prompt, several times in
one call or at the next attempt in a later one, goes on from a copy of the first prefill.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from packaging import version
from torch import Tensor
from transformers import DynamicCache

Ids = tuple[int, ...]

# Newer transformers call the argument `cache`, older ones know `past_key_values` only.
_CACHE = "cache" if version.parse(transformers.__version__) >= version.parse("5.24") else "past_key_values"


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
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        cache.batch_select_indices(rows)  # gives the copied layers tensors of their own
        return Prefill(tuple(prompts), self.logits[rows], self.mask[rows], self.positions[rows], cache)


@torch.inference_mode()
def prefill(model: Any, prompts: Sequence[Ids], pad_id: int) -> Prefill:
    """Read the prompts, each of them once however often it comes."""
    different = tuple(dict.fromkeys(prompts))
    device = next(model.parameters()).device
    input_ids, mask = left_pad(different, pad_id)
    input_ids, mask = input_ids.to(device), mask.to(device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    logits = forward(model, input_ids, mask, positions, cache)[:, -1]
    return Prefill(different, logits, mask, positions, cache)


class PrefixCache:
    """The last prefills, at most `token_budget` tokens of them, padding included. Void once the weights change.

    `reader` names the weights that read: a past policy must not go on from what the current one has read.
    """

    def __init__(self, token_budget: int) -> None:
        self._budget = token_budget
        self._kept: list[tuple[str, Prefill]] = []

    def find(self, reader: str, prompt: Ids) -> Prefill | None:
        return next((known for who, known in self._kept if who == reader and prompt in known.prompts), None)

    def keep(self, reader: str, new: Prefill) -> None:
        self._kept.append((reader, new))
        while sum(known.mask.numel() for _, known in self._kept) > self._budget:
            self._kept.pop(0)

    def forget(self) -> None:
        self._kept.clear()


def forward(model: Any, input_ids: Tensor, mask: Tensor, positions: Tensor, cache: Any, keep: int = 1) -> Tensor:
    """Float logits of the last `keep` positions, (B, keep, V); the cache grows by these inputs."""
    length = input_ids.shape[1]
    return model(
        input_ids=input_ids,
        attention_mask=mask,
        position_ids=positions,
        use_cache=True,
        logits_to_keep=last_places(length, keep, input_ids.device),
        **{_CACHE: cache},
    ).logits.float()


def last_places(length: int, count: int, device: Any) -> Tensor:
    """The last `count` of `length` places, for `logits_to_keep`.

    A number there would give a slice of the hidden states, for which torch copies the output matrix once a row.
    """
    return torch.arange(length - count, length, device=device)


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
