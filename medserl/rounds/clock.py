"""Seconds and tokens by phase of a round."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from medserl.display.progress import busy

WITH_TOKENS = ("inject", "assess", "reference", "update")
PHASES = (*WITH_TOKENS, "sync")


@dataclass
class Phase:
    seconds: float = 0.0
    tokens: int = 0


class PhaseClock:
    """`with clock.phase("inject") as phase: ...; phase.tokens = n`."""

    def __init__(self) -> None:
        self._phases = {name: Phase() for name in PHASES}

    @contextmanager
    def phase(self, name: str) -> Iterator[Phase]:
        phase = self._phases[name]
        start = time.perf_counter()
        with busy(name):
            yield phase
        phase.seconds += time.perf_counter() - start

    def metrics(self) -> dict[str, float | None]:
        """`seconds_<phase>` and `tokens_per_second_<phase>`: completion tokens where sampling, all tokens elsewhere."""
        figures: dict[str, float | None] = {}
        for name, phase in self._phases.items():
            figures[f"seconds_{name}"] = phase.seconds
        for name in WITH_TOKENS:
            phase = self._phases[name]
            figures[f"tokens_per_second_{name}"] = phase.tokens / phase.seconds if phase.seconds else None
        return figures
