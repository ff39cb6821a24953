"""Many vLLM engines as one."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import ray

from medserl.engines.openrlhf.watch import Watch

MOST_AT_ONCE = 256
"""Prompts that one engine works on at a time, which is as many as vLLM runs side by side on most GPUs."""


class EnginePool:
    """Stands where a `vllm.LLM` stands in `engines.vllm.VLLMEngine`.

    Prompts are sent one by one, longest first, each to the engine with the fewest at hand, as they become free: no
    engine idles while another has a queue.
    """

    def __init__(self, engines: Sequence[Any], watch: Watch, context: int) -> None:
        self.engines = list(engines)
        self.model_config = SimpleNamespace(max_model_len=context)
        self._watch = watch

    def generate(self, prompts: Sequence[dict[str, Any]], options: Sequence[Any], **_: Any) -> list[Any]:
        """vLLM's `RequestOutput` for each prompt, in order; `options` are their `SamplingParams`."""
        requests = [(prompt["prompt_token_ids"], each) for prompt, each in zip(prompts, options, strict=True)]
        return self._watch.guard(lambda: self._run(requests), "generating")

    def _run(self, requests: Sequence[tuple[list[int], Any]]) -> list[Any]:
        waiting = deque(sorted(range(len(requests)), key=lambda i: -len(requests[i][0])))
        running: dict[Any, tuple[int, int]] = {}
        loads = [0] * len(self.engines)
        outputs: list[Any] = [None] * len(requests)
        while waiting or running:
            while waiting and min(loads) < MOST_AT_ONCE:
                engine, request = loads.index(min(loads)), waiting.popleft()
                running[self.engines[engine].generate.remote(*requests[request])] = (request, engine)
                loads[engine] += 1
            ready, _ = ray.wait(list(running), num_returns=1)
            for reference in ready:
                request, engine = running.pop(reference)
                loads[engine] -= 1
                outputs[request] = ray.get(reference)
        return outputs
