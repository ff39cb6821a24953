"""The figures of `benchmarks/gpu_check.sh`, side by side: means over a run's rounds but the first, which warms up.

python benchmarks/gpu_page.py FOLDER            # of runs
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

FIGURES = (
    *(f"seconds_{phase}" for phase in ("inject", "assess", "reference", "update", "sync")),
    *("tokens_per_second_inject", "tokens_per_second_assess", "tokens_per_second_update"),
    *("vllm_kl", "logprob_gap", "logprob_gap_max", "vcf_acceptance_rate", "peak_memory_gb"),
)


def rounds(run: Path) -> list[dict[str, Any]]:
    """What the run logged of its rounds."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["round"] > 0]


def summary(run: Path) -> dict[str, float | None]:
    """Each figure of a run, and seconds for each accepted game."""
    played = rounds(run)
    later = played[1:] or played
    figures: dict[str, float | None] = {}
    for name in FIGURES:
        values = [row[name] for row in later if row.get(name) is not None]
        figures[name] = fmean(values) if values else None
    seconds = sum(row.get(name) or 0.0 for row in later for name in FIGURES[:5])
    accepted = sum(row["accepted_games"] for row in later)
    figures["seconds an accepted game"] = seconds / accepted if accepted else None
    return figures


def page(folder: Path) -> str:
    """A table of all runs in the folder, and the drift of each round of the longest."""
    runs = {path.parent.name: path.parent for path in sorted(folder.glob("*/metrics.jsonl"))}
    if not runs:
        return f"{folder}: no run there has played a round"
    found = {name: summary(run) for name, run in runs.items()}
    width = max(len(name) for name in (*FIGURES, "seconds an accepted game"))
    lines = [" " * width + "".join(f"{name:>14}" for name in found)]
    for figure in next(iter(found.values())):
        cells = [figures[figure] for figures in found.values()]
        lines.append(figure.ljust(width) + "".join(f"{'-' if cell is None else f'{cell:.4g}':>14}" for cell in cells))
    longest = max(runs.values(), key=lambda run: len(rounds(run)))
    drift = [f"{row['logprob_gap']:.4f}" for row in rounds(longest) if row.get("logprob_gap") is not None]
    return "\n".join([*lines, f"logprob_gap by round ({longest.name}): {' '.join(drift)}"])


if __name__ == "__main__":
    print(page(Path(sys.argv[1])))
