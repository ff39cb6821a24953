"""Batched sampling with a key-value cache that returns each sampled token's log-probability.

Prompts are sorted by length and cut into batches, so little is spent on padding; equal prompts of a batch, and those
of a call before where a `PrefixCache` is at hand, are read once; rows that have finished leave the batch, so it does
not pay for its longest row. Each row has its own stream of random numbers: what it samples does not depend on which
rows share its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from medserl.engines.base import Sampling
from medserl.engines.prefill import Ids, Prefill, forward, prefill, right_pad
from medserl.engines.prefixes import PrefixCache
from medserl.engines.reply_probabilities import Alternatives

COMPACT_BELOW = 0.75
"""Rows are dropped from the batch once fewer than this share of them is still writing."""


@dataclass
class Draft:
    """One prompt's completion, of at most `limit` tokens, while it is being written."""

    index: int
    prompt: Ids
    limit: int
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stopped: bool = False

    @property
    def done(self) -> bool:
        return self.stopped or len(self.token_ids) == self.limit


@torch.inference_mode()
def sample(
    model: Any,
    prompts: Sequence[Ids],
    sampling: Sampling,
    *,
    stop_ids: frozenset[int],
    pad_id: int,
    token_budget: int,
    prefixes: PrefixCache | None = None,
    reader: str = "",
    free: bool = True,
    finished: Callable[[], None] = lambda: None,
) -> list[Draft]:
    """Sample a completion for every prompt; `token_budget` bounds rows x (longest prompt + largest limit) of a batch.

    `finished` is called as each completion ends.
    With `prefixes`, what `reader` has read in an earlier call is not read again while it is kept there.
    A model that is not `free` (`families.Abilities`) gets batches of equally long prompts, which nobody leaves, and
    reads every prompt each time.
    """
    rooms = sampling.rooms(len(prompts))
    draws = _draws(rooms, sampling)
    rows = [Draft(i, *each) for i, each in enumerate(zip(prompts, rooms, strict=True))]
    prefixes = prefixes or PrefixCache(0)
    for batch in _batches(rows, token_budget, mixed=free):
        wanted = tuple(row.prompt for row in batch)
        start = prefixes.read(model, wanted, pad_id, reader) if free else prefill(model, wanted, pad_id)
        _sample_batch(model, batch, start, sampling, draws, stop_ids, free, finished)
    return rows


def _draws(rooms: Sequence[int], sampling: Sampling) -> list[Tensor]:
    """Of each prompt as many uniform random numbers as its completion may have tokens."""
    if not sampling.seeds:
        generator = torch.Generator().manual_seed(sampling.seed)
        return [torch.rand(room, generator=generator) for room in rooms]
    return [
        torch.rand(room, generator=torch.Generator().manual_seed(seed))
        for room, seed in zip(rooms, sampling.seeds, strict=True)
    ]


def _batches(rows: list[Draft], token_budget: int, *, mixed: bool = True) -> Iterator[list[Draft]]:
    """Rows in order of their prompts' lengths, within the budget once all are as long as they may become; a batch of
    `mixed` lengths is padded."""
    batch: list[Draft] = []
    limit = 0
    for row in sorted(rows, key=lambda row: (len(row.prompt), row.prompt, row.index)):
        full = (len(batch) + 1) * (len(row.prompt) + max(limit, row.limit)) > token_budget
        if batch and (full or not (mixed or len(batch[0].prompt) == len(row.prompt))):
            yield batch
            batch, limit = [], 0
        batch.append(row)
        limit = max(limit, row.limit)
    if batch:
        yield batch


def _sample_batch(
    model: Any,
    rows: list[Draft],
    start: Prefill,
    sampling: Sampling,
    draws: list[Tensor],
    stop_ids: frozenset[int],
    free: bool,
    finished: Callable[[], None],
) -> None:
    logits, mask, positions, cache = start.logits, start.mask, start.positions, start.cache
    uniforms = pad_sequence([draws[row.index] for row in rows], batch_first=True).to(mask.device)
    for step in range(uniforms.shape[1]):
        tokens, logprobs = choose(logits, sampling, uniforms[:, step])
        for row, token, logprob in zip(rows, tokens.tolist(), logprobs.tolist(), strict=True):
            if not row.done:
                row.token_ids.append(token)
                row.logprobs.append(logprob)
                row.stopped = token in stop_ids
                if row.done:
                    finished()
        alive = [i for i, row in enumerate(rows) if not row.done]
        if not alive:
            return
        if free and len(alive) < COMPACT_BELOW * len(rows):
            kept = torch.tensor(alive, device=mask.device)
            cache.reorder_cache(kept)
            tokens, mask, positions, uniforms = tokens[kept], mask[kept], positions[kept], uniforms[kept]
            rows = [rows[i] for i in alive]
        positions = positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        step_logits, cache = forward(model, tokens[:, None], mask if free else None, positions, cache)
        logits = step_logits[:, -1]


def choose(logits: Tensor, sampling: Sampling, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Next token of each row, and its log-probability at the sampling temperature. Logits (B, V), uniforms (B,).

    A greedy choice draws from no distribution: its log-probability is the one at temperature 1. `top_p` cuts the
    distribution but not the log-probabilities, so nothing that was sampled with it can be trained on.
    """
    scaled = at_temperature(logits, sampling.temperature)
    logprobs = scaled.log_softmax(-1)
    if sampling.temperature == 0:
        tokens = logits.argmax(-1)
    else:
        probabilities = scaled.softmax(-1)
        if sampling.top_p < 1:
            probabilities = nucleus(probabilities, sampling.top_p)
        cumulative = probabilities.cumsum(-1)
        target = (uniforms * cumulative[:, -1])[:, None]
        tokens = torch.searchsorted(cumulative, target, right=True).squeeze(-1)
        tokens = tokens.clamp(max=logits.shape[-1] - 1)
    return tokens, logprobs.gather(-1, tokens[:, None]).squeeze(-1)


def at_temperature(logits: Tensor, temperature: float) -> Tensor:
    """The logits of the distribution that is sampled from; greedy choices (0) have none, so theirs stay as they are."""
    return logits if temperature in (0.0, 1.0) else logits / temperature


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """The smallest set of tokens that holds `top_p` of the mass, the rest set to 0 (arXiv 1904.09751). Shape (B, V)."""
    ordered, order = probabilities.sort(-1, descending=True)
    outside = ordered.cumsum(-1) - ordered >= top_p
    return torch.zeros_like(probabilities).scatter(-1, order, ordered.masked_fill(outside, 0.0))


@torch.inference_mode()
def tail_logprobs(
    model: Any,
    choices: Sequence[Alternatives],
    *,
    pad_id: int,
    token_budget: int,
    prefixes: PrefixCache | None = None,
    reader: str = "",
) -> list[tuple[float, ...]]:
    """Log-probability of every tail after its context. Each context is read once, then all its tails side by side."""
    rows = [Draft(i, choice.context, choice.room) for i, choice in enumerate(choices)]
    scores: list[tuple[float, ...]] = [()] * len(choices)
    for batch in _batches(rows, token_budget):
        members = [choices[row.index] for row in batch]
        each = [choice.context for choice in members for _ in choice.tails]
        start = (prefixes or PrefixCache(0)).read(model, each, pad_id, reader)
        summed = iter(_score_tails(model, members, start, pad_id))
        for row, member in zip(batch, members, strict=True):
            scores[row.index] = tuple(next(summed) for _ in member.tails)
    return scores


def _score_tails(model: Any, choices: Sequence[Alternatives], start: Prefill, pad_id: int) -> list[float]:
    """Of each tail of each choice, in order, the sum of its tokens' log-probabilities; `start` has a row for each."""
    tails, said = right_pad([tail for choice in choices for tail in choice.tails], pad_id)
    tails, said = tails.to(start.mask.device), said.to(start.mask.device)
    logits, steps = start.logits[:, None], tails.shape[1] - 1
    if steps > 0:
        mask = torch.cat([start.mask, said[:, :-1]], dim=1)
        after = start.positions[:, -1:] + 1 + torch.arange(steps, device=mask.device)
        later, _ = forward(model, tails[:, :-1], mask, after, start.cache, keep=steps)
        logits = torch.cat([logits, later], dim=1)
    logprobs = logits.log_softmax(-1).gather(-1, tails[:, :, None]).squeeze(-1)
    return (logprobs * said).sum(-1).tolist()
