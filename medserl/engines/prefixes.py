"""Prompts that begin like others are read on from where they part.

Reading a note costs far more than writing the few words of an edit, and every turn on a note begins alike: both roles,
its twin, the original, every try. So a prompt is read on from the longest beginning that the same weights have read.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from medserl.engines.prefill import Ids, Prefill, forward, left_pad, prefill

LEAST_SHARED_TOKENS = 32
"""Tokens in common from which on it pays to go on from another prompt."""


@dataclass(frozen=True, eq=False)
class Beginning:
    """The first `length` tokens of a row that has been read."""

    read: Prefill
    row: int
    length: int


class PrefixCache:
    """The last prefills, at most `token_budget` tokens of them, padding included. Void once the weights change.

    `reader` names the weights that read: one role's adapter must not go on from what the other's has read. A model
    whose cache cannot be cut back (`families.Abilities.cuts`) reads every prompt in each call.
    """

    def __init__(self, token_budget: int, cuts: bool = True) -> None:
        self._budget, self._cuts = token_budget, cuts
        self._kept: list[tuple[str, Prefill]] = []

    def read(self, model: Any, prompts: Sequence[Ids], pad_id: int, reader: str = "") -> Prefill:
        """The prompts as one batch to write on."""
        if not self._cuts:
            return prefill(model, tuple(dict.fromkeys(prompts)), pad_id).of(prompts)
        pool = [known for who, known in self._kept if who == reader]
        begun = {prompt: _longest(pool, prompt) for prompt in prompts}
        for few in _waves([prompt for prompt, known in begun.items() if _rest(prompt, known)]):
            for prompt in few:
                begun[prompt] = _longest(pool, prompt)
            for group in _groups(few, begun):
                new = go_on(model, group, [begun[prompt] for prompt in group], pad_id)
                self._keep(reader, new)
                pool.append(new)
                begun |= {prompt: Beginning(new, row, len(prompt)) for row, prompt in enumerate(group)}
        return together(prompts, [known for prompt in prompts if (known := begun[prompt])])

    def _keep(self, reader: str, new: Prefill) -> None:
        self._kept.append((reader, new))
        while sum(known.mask.numel() for _, known in self._kept) > self._budget:
            self._kept.pop(0)

    def forget(self) -> None:
        self._kept.clear()


def keeps_every_place(cache: Any) -> bool:
    """Whether every layer keeps all that it has read, place by place: no window, no running state."""
    return all(type(layer) is DynamicLayer for layer in cache.layers)


def _longest(pool: Sequence[Prefill], prompt: Ids) -> Beginning | None:
    """What has been read of the prompt: all of it, or a beginning that is worth going on from."""
    found = None
    for read in pool:
        for row, known in enumerate(read.prompts):
            length = len(prompt) if known == prompt else min(common(known, prompt), len(prompt) - 1)
            worth = length == len(prompt) or length >= LEAST_SHARED_TOKENS
            if worth and (found is None or length > found.length):
                found = Beginning(read, row, length)
    return found


def _rest(prompt: Ids, known: Beginning | None) -> int:
    return len(prompt) - (known.length if known else 0)


def _waves(prompts: Sequence[Ids]) -> tuple[list[Ids], list[Ids]]:
    """The prompts in two waves: those of the second have half of themselves in common with one of the first."""
    first: list[Ids] = []
    second: list[Ids] = []
    for prompt in sorted(prompts):  # so that the last of the first wave has the most in common with it
        alike = bool(first) and common(first[-1], prompt) >= max(LEAST_SHARED_TOKENS, len(prompt) / 2)
        (second if alike else first).append(prompt)
    return first, second


def _groups(prompts: Sequence[Ids], begun: dict[Ids, Beginning | None]) -> Iterator[list[Ids]]:
    """Prompts of which about as much is to be read, so that little is padded."""
    group: list[Ids] = []
    for prompt in sorted(prompts, key=lambda prompt: (_rest(prompt, begun[prompt]), prompt)):
        if group and _rest(prompt, begun[prompt]) > 1.5 * _rest(group[0], begun[group[0]]) + 8:
            yield group
            group = []
        group.append(prompt)
    if group:
        yield group


@torch.inference_mode()
def go_on(model: Any, prompts: Sequence[Ids], begun: Sequence[Beginning | None], pad_id: int) -> Prefill:
    """Read what is left of the prompts after these beginnings."""
    if not any(begun):
        return prefill(model, prompts, pad_id)
    mask, cache = _gathered(begun)
    rests = [prompt[each.length if each else 0 :] for prompt, each in zip(prompts, begun, strict=True)]
    ids, said = (tensor.to(mask.device) for tensor in left_pad(rests, pad_id))
    mask = torch.cat([mask, said], dim=1)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    logits, cache = forward(model, ids, mask, positions[:, -ids.shape[1] :], cache)
    return Prefill(tuple(prompts), logits[:, -1], mask, positions, cache)


def together(prompts: Sequence[Ids], read: Sequence[Beginning]) -> Prefill:
    """One prefill of these prompts, a copy, out of the rows that hold them."""
    mask, cache = _gathered(read)
    logits = torch.stack([each.read.logits[each.row] for each in read])
    return Prefill(tuple(prompts), logits, mask, (mask.cumsum(-1) - 1).clamp(min=0), cache)


def _gathered(begun: Sequence[Beginning | None]) -> tuple[Tensor, Any]:
    """Mask, (B, L), and cache of these beginnings, moved to the right; a row of None is empty."""
    longest = max(each.length for each in begun if each)
    sample = next(each.read for each in begun if each)
    mask = sample.mask.new_zeros(len(begun), longest)
    places = [each and each.read.mask[each.row].nonzero().flatten()[: each.length] for each in begun]
    for i, each in enumerate(begun):
        if each:
            mask[i, longest - each.length :] = 1
    cache = copy.copy(sample.cache)
    cache.layers = [copy.copy(layer) for layer in sample.cache.layers]
    for number, layer in enumerate(cache.layers):
        for name in ("keys", "values"):
            some = getattr(layer, name)
            tensor = some.new_zeros(len(begun), some.shape[1], longest, some.shape[3])
            for i, each in enumerate(begun):
                if each:
                    row = getattr(each.read.cache.layers[number], name)[each.row]
                    tensor[i, :, longest - each.length :] = row[:, places[i]]
            setattr(layer, name, tensor)
    return mask, cache


def common(a: Ids, b: Ids) -> int:
    """How many tokens both begin with."""
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
