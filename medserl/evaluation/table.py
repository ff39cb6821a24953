"""One table of several systems on the same texts: Markdown to read, CSV and JSON to compute with."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medserl.evaluation.metrics import DetectionMetrics
from medserl.evaluation.statistics import Estimate

HEADERS = {
    "accuracy": "accuracy",
    "pairwise_accuracy": "pairs right",
    "recall": "recall",
    "specificity": "specificity",
    "f1": "F1",
    "balanced_accuracy": "balanced",
    "mcc": "MCC",
    "flag_rate": "flagged",
    "no_verdict_rate": "no verdict",
}


def rows(results: Mapping[str, DetectionMetrics], group: str = "all") -> list[dict[str, Any]]:
    """One row for each system and figure."""
    return [
        {
            "system": system,
            "group": group,
            "figure": name,
            "value": estimate.value,
            "low": estimate.low,
            "high": estimate.high,
            "n": estimate.n,
        }
        for system, metrics in results.items()
        for name, estimate in metrics.items()
    ]


def markdown(results: Mapping[str, DetectionMetrics]) -> str:
    """Systems down, figures across, each in percent with its 95 % interval (MCC as it is)."""
    lines = [
        "| system | " + " | ".join(HEADERS.values()) + " |",
        "|---" * (len(HEADERS) + 1) + "|",
    ]
    for system, metrics in results.items():
        cells = [_cell(name, estimate) for name, estimate in metrics.items()]
        lines.append(f"| {system} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(name: str, estimate: Estimate) -> str:
    if estimate.value is None:
        return "-"
    if name == "mcc":
        return f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"
    return f"{100 * estimate.value:.1f} ({100 * estimate.low:.1f} to {100 * estimate.high:.1f})"


def write_tables(folder: Path, text: str, table: list[dict[str, Any]]) -> None:
    """`table.md`, `table.csv` and `table.json` in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text(text + "\n", encoding="utf-8")
    (folder / "table.json").write_text(json.dumps(table, indent=1), encoding="utf-8")
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(table[0]))
        writer.writeheader()
        writer.writerows(table)
