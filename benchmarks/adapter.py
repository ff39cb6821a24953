"""What the adapter costs while sampling: reading prompts and writing words, with the adapter and without, in turn.

    python benchmarks/adapter.py [--dtype bfloat16 float32]

Without the adapter is the most that merging it into the weights could save. The embedded default, random prompts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from statistics import median
from typing import Any

import torch

from medserl.config import Settings
from medserl.engines import create_engine
from medserl.engines.adapters import multiplying_narrowly
from medserl.engines.prefill import forward, prefill

TURNS, PROMPT_TOKENS, STEPS = 3, 200, 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", nargs="+", default=["bfloat16", "float32"])
    arguments = parser.parse_args()
    print("| weights, rows | a step with the adapter | without | reading with it | without |\n|---|---|---|---|---|")
    for dtype in arguments.dtype:
        model = create_engine(Settings(dtype=dtype), trainable=True).model  # type: ignore[attr-defined]
        for rows in (8, 32):
            took = [seconds(model, rows, adapter=turn % 2 == 0) for turn in range(2 * TURNS)]
            (read, step), (plain_read, plain_step) = (map(median, zip(*took[i::2], strict=True)) for i in (0, 1))
            steps = f"{1000 * step:.0f} ms | {1000 * plain_step:.0f} ms"
            print(f"| {dtype}, {rows} | {steps} | {read:.1f} s | {plain_read:.1f} s |", flush=True)


@torch.inference_mode()
def seconds(model: Any, rows: int, *, adapter: bool) -> tuple[float, float]:
    """To read the prompts, and to write a token of each."""
    generator = torch.Generator().manual_seed(rows)
    prompts = [tuple(torch.randint(100, 40000, (PROMPT_TOKENS,), generator=generator).tolist()) for _ in range(rows)]
    with playing(model, adapter=adapter):
        begun = time.perf_counter()
        start = prefill(model, prompts, 0)
        read = time.perf_counter()
        mask, positions, cache, logits = start.mask, start.positions, start.cache, start.logits
        for _ in range(STEPS):
            positions = positions[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(rows, 1)], dim=1)
            tokens = logits.argmax(-1)[:, None]
            later, cache = forward(model, tokens, mask, positions, cache)
            logits = later[:, -1]
        return read - begun, (time.perf_counter() - read) / STEPS


@contextmanager
def playing(model: Any, *, adapter: bool) -> Iterator[None]:
    with nullcontext() if adapter else model.disable_adapter(), multiplying_narrowly(model):
        yield


if __name__ == "__main__":
    main()
