"""What the passes of a model may look like, tried out on a few tokens before anything starts.

A family may see its past through a window, in a running state or with distances of its own, and read the arguments of a
pass in its own way. So no list of families says which shortcuts are right for which: each is compared with the plain
pass of one turn, and what differs, or cannot be done at all, is done without. What remains is right, if slower.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from medserl.engines.packing import pack
from medserl.engines.prefill import Ids, Prefill, forward, prefill
from medserl.engines.prefixes import Beginning, go_on, keeps_every_place, together
from medserl.engines.scoring import completion_logits
from medserl.errors import ModelError, first_line
from medserl.game.episode import Completion
from medserl.models import attention_for_training, context_length
from medserl.models.four_bits import is_packed, unpacked_as

HEAD, TAIL = 12, 6
"""Tokens of the trial's prompt and of its completions."""
SAME, SAME_NARROW, BROKEN_NARROW = 3e-4, 0.15, 0.5
"""How far logits may be apart, as a share of their spread, and still count as the same. In float32 rounding gives 5e-6
on a model of 30 layers, a wrong shortcut 1e-3 and more, mostly above 0.05. Where there is no room for float32, bfloat16
alone gives up to 0.07: what is further apart is done without, and only what is far apart is refused."""
WIDE = 4
"""Bytes of a float32."""
CANNOT = (TypeError, ValueError, RuntimeError, AttributeError, LookupError, NotImplementedError, AssertionError)
"""What models raise when they are asked for something that they cannot do."""


@dataclass(frozen=True)
class Abilities:
    """What is as good as plain passes.

    `shares_rows`: turns that begin alike may stand in one row. `free`: prompts of different lengths may be read
    together, and what was read may be copied, and rows leave it. `cuts`: what was read may be cut back to a beginning,
    and gone on from.
    """

    shares_rows: bool = True
    free: bool = True
    cuts: bool = True

    def done_without(self, *, training: bool) -> list[str]:
        """What is slower with this model than with others, in words."""
        told = []
        if training and not self.shares_rows:
            told.append("this model learns each turn in a row of its own: turns that begin alike are read separately")
        if not self.free:
            told.append("this model plays prompts of one length together, and reads each again at every attempt")
        return told


@torch.inference_mode()
def examine_family(model: Any, tokenizer: Any, pad_id: int, longest_row: int) -> Abilities:
    """Try the shortcuts; rows are at most `longest_row` long in training, and 0 where nothing is trained.

    Raises:
        ModelError: not even the plain way gives the same when sampling as when scoring.
    """
    with _in_float32(model) as exact:
        trial = _Trial(model, tokenizer, pad_id, longest_row)
        at_most, broken = (SAME, SAME) if exact else (SAME_NARROW, BROKEN_NARROW)
        if trial.gap(trial.padded_rows) > broken:
            raise ModelError(
                f"{_name(model)} scores several texts in one batch otherwise than each alone, so it cannot be trained "
                "or judged here; take a model of another family"
            )
        free = trial.gap(trial.free_generation) <= at_most
        if not free and trial.gap(trial.plain_generation) > broken:
            raise ModelError(
                f"{_name(model)} gives a text other probabilities when it writes it token by token than when it reads "
                "it as a whole, so what it writes could not be learnt; take a model of another family"
            )
        shares_rows = bool(longest_row) and trial.gap(trial.shared_rows) <= at_most
        return Abilities(shares_rows, free, free and trial.gap(trial.cut_generation) <= at_most)


@contextmanager
def _in_float32(model: Any) -> Iterator[bool]:
    """Inside, the weights are float32 where there is room for them, which is told; afterwards they are as they were."""
    tensors = [tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point()]
    plain = all(p.is_floating_point() or is_packed(p) for p in model.parameters()) and all(
        tensor.dtype in (torch.float32, torch.bfloat16, torch.float16) for tensor in tensors
    )
    narrow = [(tensor, tensor.data) for tensor in tensors if tensor.dtype != torch.float32] if plain else []
    exact = plain and sum(WIDE * tensor.numel() for tensor, _ in narrow) < _room(model.device)
    try:
        for tensor, data in narrow if exact else ():
            tensor.data = data.float()
        with unpacked_as(model, torch.float32) if exact else nullcontext():
            yield exact
    finally:
        for tensor, data in narrow:
            tensor.data = data


def _room(device: torch.device) -> float:
    """Bytes that may be taken there for a moment."""
    import psutil

    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    return 0.8 * free


class _Trial:
    """Three turns: the first two begin alike, the third begins later in the same text."""

    def __init__(self, model: Any, tokenizer: Any, pad_id: int, longest_row: int) -> None:
        self._model, self._pad_id = model, pad_id
        text = _text(tokenizer, pad_id, HEAD + max(HEAD, _length_that_tells(model, longest_row)))
        tails = [tuple(reversed(text[i : i + TAIL])) for i in (0, 3, 5)]
        self._turns = [
            Completion("", prompt, tail, (0.0,) * TAIL, "stop")
            for prompt, tail in zip([text, text, text[5:]], tails, strict=True)
        ]
        try:
            self._truth = [self._alone(turn) for turn in self._turns]
        except CANNOT as error:
            raise ModelError(f"{_name(model)} cannot score a text: {first_line(error)}") from error
        if not all(logits.isfinite().all() for logits in self._truth):
            raise ModelError(
                f"{_name(model)} gives logits that are not finite: its weights are damaged, or need float32"
            )

    def _alone(self, turn: Completion) -> Tensor:
        """The logits that predict each token of the completion, (TAIL, V): no padding, no cache, no mask."""
        ids = torch.tensor([turn.prompt_ids + turn.token_ids], device=next(self._model.parameters()).device)
        logits: Tensor = self._model(input_ids=ids, use_cache=False).logits[0].float()
        return logits[len(turn.prompt_ids) - 1 : -1]

    def gap(self, shortcut: Callable[[], list[tuple[Tensor, Tensor]]]) -> float:
        """How far the shortcut's logits are from the plain ones, as a share of their spread; infinite if it fails."""
        try:
            gaps = [((a - b).square().mean().sqrt() / b.std().clamp(min=1e-30)).item() for a, b in shortcut()]
        except CANNOT:
            return math.inf
        return max(gaps) if all(map(math.isfinite, gaps)) else math.inf

    def padded_rows(self) -> list[tuple[Tensor, Tensor]]:
        rows = pack(self._turns, longest=2**30, share=False)
        logits, _ = completion_logits(self._model, rows, self._pad_id, shared=False)
        return [(logits, torch.cat([self._truth[i] for row in rows for i in row.turns]))]

    def shared_rows(self) -> list[tuple[Tensor, Tensor]]:
        rows = pack(self._turns[:2], longest=2**30)
        truth = torch.cat([self._truth[i] for row in rows for i in row.turns])
        scored, _ = completion_logits(self._model, rows, self._pad_id, shared=True)
        with attention_for_training(self._model):
            learning, _ = completion_logits(self._model, rows, self._pad_id, shared=True)
        return [(scored, truth), (learning, truth)]

    def free_generation(self) -> list[tuple[Tensor, Tensor]]:
        """Two prompts of different lengths, read together, copied twice; one row leaves and two tokens come at once."""
        first, _, later = self._turns
        read = prefill(self._model, (first.prompt_ids, later.prompt_ids), self._pad_id)
        written = _Written(self._model, read.of([later.prompt_ids, first.prompt_ids, later.prompt_ids]))
        members = [2, 0, 2]
        pairs = [(written.logits, self._expected(members, 0, 1))]
        pairs.append((written.after(self._tokens(members, 0, 1)), self._expected(members, 1, 2)))
        written.keep([1, 2])
        pairs.append((written.after(self._tokens([0, 2], 1, 3)), self._expected([0, 2], 2, 4)))
        again = _Written(self._model, read.of([first.prompt_ids]))
        return [*pairs, (again.after(self._tokens([0], 0, 1)), self._expected([0], 1, 2))]

    def cut_generation(self) -> list[tuple[Tensor, Tensor]]:
        """Two prompts that go on from one that has been read, one from an earlier place than the other."""
        first, second, _ = self._turns
        read = prefill(self._model, [first.prompt_ids], self._pad_id)
        if not keeps_every_place(read.cache):
            raise NotImplementedError
        prompts = [first.prompt_ids + first.token_ids[:1], second.prompt_ids + second.token_ids[:2]]
        begun = [Beginning(read, 0, len(first.prompt_ids) - cut) for cut in (HEAD // 2, 0)]
        new = go_on(self._model, prompts, begun, self._pad_id)
        start = together(prompts, [Beginning(new, row, len(prompt)) for row, prompt in enumerate(prompts)])
        after = _Written(self._model, start).after([first.token_ids[1:2], second.token_ids[2:3]])
        expected = [torch.stack([self._truth[0][i], self._truth[1][i + 1]]) for i in (1, 2)]
        return [(new.logits, expected[0]), (after[:, 0], expected[1])]

    def plain_generation(self) -> list[tuple[Tensor, Tensor]]:
        """Equally long prompts side by side, one token at a time."""
        read = prefill(self._model, [self._turns[0].prompt_ids] * 2, self._pad_id)
        written = _Written(self._model, read, masked=False)
        pairs = [(written.logits, self._expected([0, 1], 0, 1))]
        for step in range(TAIL - 1):
            after = written.after(self._tokens([0, 1], step, step + 1))
            pairs.append((after, self._expected([0, 1], step + 1, step + 2)))
        return pairs

    def _tokens(self, members: Sequence[int], start: int, end: int) -> list[Ids]:
        return [self._turns[i].token_ids[start:end] for i in members]

    def _expected(self, members: Sequence[int], start: int, end: int) -> Tensor:
        return torch.stack([self._truth[i][start:end] for i in members])


class _Written:
    """Rows that go on from a prefill."""

    def __init__(self, model: Any, start: Prefill, *, masked: bool = True) -> None:
        self._model, self._mask, self._last, self._cache = model, start.mask, start.positions[:, -1:], start.cache
        self._masked = masked
        self.logits = start.logits[:, None]

    def after(self, tokens: Sequence[Ids]) -> Tensor:
        """Logits after each of these tokens, (B, T, V)."""
        ids = torch.tensor(tokens, device=self._mask.device)
        positions = self._last + 1 + torch.arange(ids.shape[1], device=ids.device)
        self._mask = torch.cat([self._mask, torch.ones_like(ids)], dim=1)
        self._last = positions[:, -1:]
        mask = self._mask if self._masked else None
        logits, self._cache = forward(self._model, ids, mask, positions, self._cache, keep=ids.shape[1])
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        kept = torch.tensor(rows, device=self._mask.device)
        self._cache.reorder_cache(kept)
        self._mask, self._last = self._mask[kept], self._last[kept]


def _length_that_tells(model: Any, longest_row: int) -> int:
    """The smallest window of any layer, in which case the trial is longer than it, unless no row of training is."""
    config = model.config.get_text_config()
    bounds = [
        value
        for name, value in vars(config).items()
        if name.endswith(("window", "window_size", "attention_chunk_size")) and type(value) is int and value > 0
    ]
    context = context_length(model.config)
    limits = [longest_row - 2 * TAIL, *([context - HEAD - 2 * TAIL] if context else [])]
    return min([*bounds, *limits]) if bounds else 0


def _text(tokenizer: Any, pad_id: int, length: int) -> Ids:
    """So many tokens that a note might hold, none of which is a control token."""
    tokens = tokenizer(" ".join(map(str, range(length))), add_special_tokens=False)["input_ids"] or [pad_id]
    return tuple(tokens[i % len(tokens)] for i in range(length))


def _name(model: Any) -> str:
    return type(model.get_base_model() if hasattr(model, "peft_config") else model).__name__
