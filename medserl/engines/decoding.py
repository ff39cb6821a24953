"""Batched sampling with a key-value cache that returns each sampled token's log-probability.

Prompts are sorted by length and cut into batches, so little is spent on padding; equal prompts of a batch are read
once; rows that have finished leave the batch, so it does not pay for its longest row. Each row has its own stream of
random numbers: what it samples does not depend on which rows share its batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from packaging import version
from torch import Tensor
from transformers import DynamicCache

from medserl.engines.base import Sampling
from medserl.engines.weighing import Alternatives

# Newer transformers call the argument `cache`, older ones know `past_key_values` only.
_CACHE = "cache" if version.parse(transformers.__version__) >= version.parse("5.24") else "past_key_values"

COMPACT_BELOW = 0.75
"""Rows are dropped from the batch once fewer than this share of them is still writing."""


@dataclass
class Row:
    """One prompt's completion while it is being written."""

    index: int
    prompt: tuple[int, ...]
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stopped: bool = False


@torch.inference_mode()
def sample(
    model: Any,
    prompts: Sequence[tuple[int, ...]],
    sampling: Sampling,
    *,
    stop_ids: frozenset[int],
    pad_id: int,
    token_budget: int,
) -> list[Row]:
    """Sample a completion for every prompt; `token_budget` bounds rows x (prompt + completion) of one batch."""
    draws = _draws(len(prompts), sampling)
    rows = [Row(i, prompt) for i, prompt in enumerate(prompts)]
    for batch in _batches(rows, sampling.max_new_tokens, token_budget):
        _sample_batch(model, batch, sampling, draws, stop_ids, pad_id)
    return rows


def _draws(count: int, sampling: Sampling) -> Tensor:
    """Uniform random numbers, (count, max_new_tokens)."""
    if not sampling.seeds:
        generator = torch.Generator().manual_seed(sampling.seed)
        return torch.rand(count, sampling.max_new_tokens, generator=generator)
    streams = [torch.Generator().manual_seed(seed) for seed in sampling.seeds]
    return torch.stack([torch.rand(sampling.max_new_tokens, generator=stream) for stream in streams])


def _batches(rows: list[Row], max_new_tokens: int, token_budget: int) -> Iterator[list[Row]]:
    batch: list[Row] = []
    for row in sorted(rows, key=lambda row: (len(row.prompt), row.prompt, row.index)):
        if batch and (len(batch) + 1) * (len(row.prompt) + max_new_tokens) > token_budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _sample_batch(
    model: Any, rows: list[Row], sampling: Sampling, draws: Tensor, stop_ids: frozenset[int], pad_id: int
) -> None:
    device = next(model.parameters()).device
    prompts = {prompt: i for i, prompt in enumerate(dict.fromkeys(row.prompt for row in rows))}
    input_ids, mask = left_pad(list(prompts), pad_id)
    input_ids, mask = input_ids.to(device), mask.to(device)
    cache = DynamicCache(config=model.config)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    for step in range(sampling.max_new_tokens):
        logits = _forward(model, input_ids, mask, positions, cache)[:, -1]
        if len(logits) < len(rows):  # several rows go on from the same prompt
            owner = torch.tensor([prompts[row.prompt] for row in rows], device=device)
            cache.batch_select_indices(owner)
            logits, mask, positions = logits[owner], mask[owner], positions[owner]
        uniforms = draws[[row.index for row in rows], step].to(device)
        tokens, logprobs = choose(logits, sampling, uniforms)
        for row, token, logprob in zip(rows, tokens.tolist(), logprobs.tolist(), strict=True):
            if not row.stopped:
                row.token_ids.append(token)
                row.logprobs.append(logprob)
                row.stopped = token in stop_ids
        alive = [i for i, row in enumerate(rows) if not row.stopped]
        if not alive:
            return
        if len(alive) < COMPACT_BELOW * len(rows):
            keep = torch.tensor(alive, device=device)
            cache.batch_select_indices(keep)
            tokens, mask, positions = tokens[keep], mask[keep], positions[keep]
            rows = [rows[i] for i in alive]
        input_ids = tokens[:, None]
        positions = positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)


def _forward(model: Any, input_ids: Tensor, mask: Tensor, positions: Tensor, cache: Any, keep: int = 1) -> Tensor:
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


def choose(logits: Tensor, sampling: Sampling, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Next token of each row, and its log-probability under the unmodified policy. Logits (B, V), uniforms (B,)."""
    logprobs = logits.log_softmax(-1)
    if sampling.temperature == 0:
        tokens = logits.argmax(-1)
    else:
        probabilities = (logits / sampling.temperature).softmax(-1)
        if sampling.top_p < 1:
            probabilities = nucleus(probabilities, sampling.top_p)
        cumulative = probabilities.cumsum(-1)
        target = (uniforms * cumulative[:, -1])[:, None]
        tokens = torch.searchsorted(cumulative, target, right=True).squeeze(-1)
        tokens = tokens.clamp(max=logits.shape[-1] - 1)
    return tokens, logprobs.gather(-1, tokens[:, None]).squeeze(-1)


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """The smallest set of tokens that holds `top_p` of the mass, the rest set to 0 (arXiv 1904.09751). Shape (B, V)."""
    ordered, order = probabilities.sort(-1, descending=True)
    outside = ordered.cumsum(-1) - ordered >= top_p
    return torch.zeros_like(probabilities).scatter(-1, order, ordered.masked_fill(outside, 0.0))


@torch.inference_mode()
def tail_logprobs(
    model: Any, choices: Sequence[Alternatives], *, pad_id: int, token_budget: int
) -> list[tuple[float, ...]]:
    """Log-probability of every tail after its context. Each context is read once, then all its tails side by side."""
    rows = [Row(i, choice.context) for i, choice in enumerate(choices)]
    room = max((choice.room for choice in choices), default=0)
    scores: list[tuple[float, ...]] = [()] * len(choices)
    for batch in _batches(rows, room, token_budget):
        members = [choices[row.index] for row in batch]
        summed = iter(_score_tails(model, members, pad_id))
        for row, member in zip(batch, members, strict=True):
            scores[row.index] = tuple(next(summed) for _ in member.tails)
    return scores


def _score_tails(model: Any, choices: Sequence[Alternatives], pad_id: int) -> list[float]:
    """Of each tail of each choice, in order, the sum of its tokens' log-probabilities."""
    device = next(model.parameters()).device
    input_ids, mask = left_pad([choice.context for choice in choices], pad_id)
    input_ids, mask = input_ids.to(device), mask.to(device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    logits = _forward(model, input_ids, mask, positions, cache)
    owner = torch.tensor([i for i, choice in enumerate(choices) for _ in choice.tails], device=device)
    tails, said = right_pad([tail for choice in choices for tail in choice.tails], pad_id)
    tails, said = tails.to(device), said.to(device)
    logits, steps = logits[owner], tails.shape[1] - 1
    if steps > 0:
        cache.batch_select_indices(owner)
        mask = torch.cat([mask[owner], said[:, :-1]], dim=1)
        after = positions[owner, -1:] + 1 + torch.arange(steps, device=device)
        logits = torch.cat([logits, _forward(model, tails[:, :-1], mask, after, cache, keep=steps)], dim=1)
    logprobs = logits.log_softmax(-1).gather(-1, tails[:, :, None]).squeeze(-1)
    return (logprobs * said).sum(-1).tolist()


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
