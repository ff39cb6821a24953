"""Shares in words: of a few games or texts as a count, because percents of three or four look like a finding."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

FEW = 10
"""Below so many a share is told as a count."""
_OF_TEXTS = {"eval_accuracy", "eval_flag_rate", "eval_no_verdict_rate", "eval_truncated_rate"}


def as_count(value: float | None, n: int) -> str | None:
    """`3 of 4` where a share is one of fewer than 10; None where there are more, or where it is no share of `n`."""
    if value is None or not 0 < n < FEW or not math.isclose(value * n, round(value * n), abs_tol=1e-6):
        return None
    return f"{round(value * n)} of {n}"


def counted_in(figure: str, row: Mapping[str, Any]) -> int:
    """How many games, validation texts or pairs a figure of a round is a share of; 0 where the row does not tell."""
    texts, errors, pairs = (int(row.get(f"eval_{kind}") or 0) for kind in ("texts", "errors", "pairs"))
    correct = texts - errors if "eval_errors" in row else 0  # older runs did not record it
    validated = {"eval_recall": errors, "eval_specificity": correct, "eval_pairwise_accuracy": pairs}
    if figure in _OF_TEXTS or figure in validated:
        return validated.get(figure, texts)
    games, accepted = (int(row.get(key) or 0) for key in ("games", "accepted_games"))
    judged = accepted - int(row.get("past_games") or 0)  # older runs had games that these figures leave out
    if figure in ("vcf_acceptance_rate", "vcf_first_attempt_rate"):
        return games
    if figure == "accepted_error_share":
        return accepted
    if figure in ("assessor_accuracy", "assessor_flag_rate", "no_verdict_rate"):
        return judged
    errors = round((row.get("accepted_error_share") or 0.0) * accepted)
    by_mode = {"error": errors, "benign": accepted - errors}
    modes = {"assessor_recall": "error", "assessor_specificity": "benign"}
    mode = modes.get(figure) or figure.removeprefix("injector_win_rate_")
    return by_mode.get(mode, 0) if judged == accepted else 0
