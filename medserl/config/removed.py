"""Settings that there were, and former names of those that there are: a file or flag of before is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

REMOVED: Mapping[str, tuple[Any, str]] = {
    "repeat_penalty": (0.0, "no experiment used it; the report says how many edits are alike"),
    "repeat_window": (5, "it went with repeat_penalty"),
    "injector_reward": ("zero_sum", "rewards are zero-sum, as no experiment used another kind"),
    "vcf_rejection_reward": (0.0, "no experiment used it; sft_edit_pairs keep the Injector to its format"),
    "past_fraction": (0.0, "no experiment used it"),
    "past_pool": (4, "it went with past_fraction"),
    "past_every": (5, "it went with past_fraction"),
}
"""By name: what it was by default, and what became of it."""

RENAMED: Mapping[str, str] = {
    "gold_lessons": "sft_verdict_pairs",
    "edit_lessons": "sft_edit_pairs",
    "game_lessons": "sft_games",
    "lesson_weight": "sft_loss_weight",
}
"""Former name to the one of today."""

RENAMED_FIGURES: Mapping[str, str] = {"lesson_nll": "sft_loss"}
"""The same of figures in metrics.jsonl."""


def gone(name: str) -> str | None:
    """What became of a setting that was removed, or what one is called now; None for any other name."""
    if name in RENAMED:
        return f"{name} is now called {RENAMED[name]}"
    return f"there is no {name} any more: {REMOVED[name][1]}" if name in REMOVED else None


def without_removed(table: Mapping[str, Any]) -> dict[str, Any]:
    """Without the removed settings that are as they were by default: a run of before wrote all of them down."""
    return {name: value for name, value in table.items() if name not in REMOVED or value != REMOVED[name][0]}


def renamed(table: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that a run of before wrote down, by the names of today."""
    return {RENAMED.get(name, name): value for name, value in table.items()}


def with_figures_renamed(row: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a round that a run of before wrote down, by the names of today."""
    return {RENAMED_FIGURES.get(name, name): value for name, value in row.items()}
