"""What guessing gets on the judged texts: rows of their own in every table, and what all praise is measured against.

Three ways to guess: always INCORRECT, always CORRECT, and a fair coin, of which the expected figures are given. None of
them has an interval, because what they get on these very texts is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medserl.evaluation.metrics import DetectionMetrics
from medserl.evaluation.predictions import LabelledText
from medserl.evaluation.statistics import (
    NOTHING,
    SIGNIFICANCE,
    Comparison,
    Estimate,
    compare,
    format_p,
    share_against,
)

ALWAYS_INCORRECT, ALWAYS_CORRECT, COIN = "always-incorrect", "always-correct", "coin"
FLAG_RATES: Mapping[str, float] = {ALWAYS_INCORRECT: 1.0, ALWAYS_CORRECT: 0.0, COIN: 0.5}
"""How often each calls a text INCORRECT, whatever stands in it."""

GUESSING = "guessing"
"""What a system is compared with: in texts the guess that is right most often, in pairs the coin that is like it."""


def guess_figures(n_errors: int, n_correct: int, n_pairs: int) -> dict[str, dict[str, Estimate]]:
    """The figures of each way to guess, by name, on texts of which so many have an error, and so many have none."""
    return {name: _figures(rate, n_errors, n_correct, n_pairs) for name, rate in FLAG_RATES.items()}


def guesses_on(texts: Sequence[LabelledText], n_pairs: int) -> dict[str, dict[str, Estimate]]:
    """The same on these texts, among which are so many pairs."""
    n_errors = sum(text.is_error for text in texts)
    return guess_figures(n_errors, len(texts) - n_errors, n_pairs)


def _figures(rate: float, n_errors: int, n_correct: int, n_pairs: int) -> dict[str, Estimate]:
    """Expected figures of verdicts that are INCORRECT with the probability `rate`, independently of the texts.

    F1 is that of the expected counts.
    """
    n = n_errors + n_correct
    hits, alarms = rate * n_errors, rate * n_correct
    values = {
        "accuracy": ((hits + n_correct - alarms) / n if n else None, n),
        "pairwise_accuracy": (rate * (1 - rate) if n_pairs else None, n_pairs),
        "pairwise_chance": (rate * (1 - rate) if n_pairs else None, n_pairs),
        "right_minus_reversed": (0.0 if n_pairs else None, n_pairs),
        "d_prime": (0.0 if n_errors and n_correct else None, n),
        "pair_ordering": (0.5 if n_pairs else None, n_pairs),
        "auroc": (0.5 if n_errors and n_correct else None, n),
        "recall": (rate if n_errors else None, n_errors),
        "specificity": (1 - rate if n_correct else None, n_correct),
        "f1": (2 * hits / (hits + alarms + n_errors) if hits + alarms + n_errors else None, n),
        "balanced_accuracy": (0.5 if n_errors and n_correct else None, n),
        "mcc": (0.0 if n_errors and n_correct else None, n),
        "flag_rate": (rate if n else None, n),
        "no_verdict_rate": (0.0 if n else None, n),
        "truncated_rate": (0.0 if n else None, n),
    }
    return {
        name: NOTHING if value is None else Estimate(value, None, None, count)
        for name, (value, count) in values.items()
    }


@dataclass(frozen=True)
class AgainstGuessing:
    """A system against the best that guessing gets: in `texts` right, or in `pairs` right.

    `chance` is what guessing gets, and `how` says who would get it.
    """

    unit: str
    chance: float
    how: str
    comparison: Comparison

    @property
    def better(self) -> bool:
        """Whether the system is right more often, and not by chance."""
        difference = self.comparison.difference.value
        return difference is not None and difference > 0 and self.comparison.p_value < SIGNIFICANCE

    def sentence(self, name: str) -> str:
        """`trained is better than guessing (always INCORRECT: 55.6 %) by 4.1 points of texts right (p = 0.012).`"""
        points = self.comparison.difference.value or 0.0
        guessing = f"guessing ({self.how}: {100 * self.chance:.1f} %)"
        p = format_p(self.comparison.p_value)
        if self.comparison.p_value >= SIGNIFICANCE:
            return f"{name} is not distinguishable from {guessing} in {self.unit} right ({p})."
        word = "better" if points > 0 else "worse"
        return f"{name} is {word} than {guessing} by {100 * abs(points):.1f} points of {self.unit} right ({p})."


def against_guessing(found: DetectionMetrics) -> dict[str, AgainstGuessing]:
    """A system against guessing, by unit; nothing on texts of one class, where guessing is always right.

    In texts right, against the guess that is right most often on these texts, by the paired test. In pairs right,
    against a coin that says each verdict as often as the system does (`pairwise_chance`), by the exact binomial test.
    The coin takes the two verdicts on a pair for independent: a system that tends to say the same of both twins gets
    fewer pairs right than that, however well it tells them apart otherwise.
    """
    if found.of_one_class:
        return {}
    units = {"texts": _texts(found)}
    if found.pairwise_accuracy.value is not None and found.pairwise_chance.value is not None:
        units["pairs"] = _pairs(found.pairwise_accuracy, found.pairwise_chance.value)
    return units


def _texts(found: DetectionMetrics) -> AgainstGuessing:
    n_correct = found.n_texts - found.n_errors
    always = "INCORRECT" if found.n_errors >= n_correct else "CORRECT"
    guessed = [one.is_error == (always == "INCORRECT") for one in found.outcomes]
    compared = compare([one.right for one in found.outcomes], guessed, [one.cluster for one in found.outcomes])
    chance = max(found.n_errors, n_correct) / found.n_texts
    if found.n_errors == n_correct:  # one answer throughout, or a coin: all are as good
        return AgainstGuessing("texts", chance, "one answer throughout", compared)
    return AgainstGuessing("texts", chance, f"always {always}", compared)


def _pairs(right: Estimate, chance: float) -> AgainstGuessing:
    return AgainstGuessing("pairs", chance, "a coin that flags as often", share_against(right, chance))
