"""Logits at the tokens of completions, with a row for each turn or with rows that turns share."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from medserl.engines.masks import seen_by
from medserl.engines.packing import PackedRow, tensors
from medserl.engines.passes import logits_at


def completion_logits(model: Any, rows: Sequence[PackedRow], pad_id: int, *, shared: bool) -> tuple[Tensor, Tensor]:
    """Float logits that predict the completions' tokens, (N, V), and these tokens, (N,): row by row, turn by turn.

    Where rows are not `shared`, each holds one turn, and the model gets an ordinary padding mask.
    """
    device = next(model.parameters()).device
    ids, positions, related = (tensor.to(device) for tensor in tensors(rows, pad_id))
    places = [(i, place) for i, row in enumerate(rows) for turn in range(len(row.turns)) for place in row.places(turn)]
    said = [token for row in rows for target in row.targets for token in target]
    at = torch.tensor(places, dtype=torch.long, device=device).reshape(-1, 2)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    real = torch.arange(ids.shape[1], device=device) < lengths[:, None]
    with seen_by(related, positions) if shared else nullcontext():
        logits, _ = logits_at(
            model,
            at[:, 0],
            at[:, 1],
            input_ids=ids,
            attention_mask=(torch.ones_like(real) if shared else real).long(),
            position_ids=positions,
            use_cache=False,
        )
    return logits, torch.tensor(said, device=device)
