"""Masks for rows that turns share, whatever each layer's own mask is.

A model asks transformers for the masks of its layers: full attention, a sliding window, chunks, or several of these.
Each is a function of two places, and it is answered here with the positions that their tokens have in their own turn.
So a window is as long as in a row of its own, and no list of families has to be kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

_KINDS = ("eager", "sdpa")
"""Attention that takes a mask of every pair of places. Others get no shared rows: `families.examine` sees it."""


@contextmanager
def seen_by(related: Tensor, positions: Tensor) -> Iterator[None]:
    """Inside, a token sees what its layer shows at these positions (B, L), of what it is related to (B, L, L)."""
    usual = {kind: ALL_MASK_ATTENTION_FUNCTIONS[kind] for kind in _KINDS}
    for kind, make in usual.items():
        ALL_MASK_ATTENTION_FUNCTIONS[kind] = _restricted(make, related, positions)
    try:
        yield
    finally:
        for kind, make in usual.items():
            ALL_MASK_ATTENTION_FUNCTIONS[kind] = make


def _restricted(make: Callable[..., Any], related: Tensor, positions: Tensor) -> Callable[..., Any]:
    def mask(*args: Any, mask_function: Callable[..., Any], **options: Any) -> Any:
        def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            shown: Tensor = mask_function(batch, head, positions[batch, query], positions[batch, key])
            return shown & related[batch, query, key]

        return make(*args, mask_function=visible, **{**options, "allow_is_causal_skip": False})

    return mask
