"""How well arms tell right notes from wrong ones, whatever they are inclined to say, and what one gained on another.

The pairs of all seeds of an arm count, and a pair is one cluster over all of them. Two arms are compared pair by pair:
a pair's value is its mean over the seeds, and the p-value is that of a permutation test that swaps the arms in whole
pairs, so that it says how sure a difference is to hold on other notes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean

from medserl.evaluation.calibration import auroc
from medserl.evaluation.metrics import (
    Outcome,
    confusion_table,
    d_prime,
    judge,
    pairs_ordered,
    pairs_right_minus_reversed,
)
from medserl.evaluation.predictions import LabelledText, Prediction
from medserl.evaluation.statistics import Estimate, bootstrap_estimate, format_p, mean_estimate, permutation_p

Said = Sequence[Sequence[Prediction]]
"""The predictions of each seed of an arm."""
OfPairs = Callable[[Sequence[Outcome]], list[float]]
FIGURES = ("pairs ordered", "right minus reversed", "d'", "AUROC")
SPLITS = {
    "test-seen": "facts that were taught, in other words",
    "test-unseen": "facts that nobody taught",
    "test-reworded": "facts that nobody taught, in words of no training note",
}
COMPARED: Mapping[str, OfPairs] = {"ordered": pairs_ordered, "right minus reversed": pairs_right_minus_reversed}


def rows(
    said: Mapping[str, Said], starts: Mapping[str, str], texts: Sequence[LabelledText], others: Sequence[str]
) -> Iterator[tuple[str, list[str], list[list[object]]]]:
    """For each split: what it holds, the columns, a row an arm. An arm is compared with its start and with others."""
    against = [*(f"{name}, against the start" for name in COMPARED), *(f"ordered, against {other}" for other in others)]
    for split, title in SPLITS.items():
        mine = [text for text in texts if text.split == split]
        if not mine:
            continue
        lines: list[list[object]] = []
        for arm, each in said.items():
            found = estimates(each, mine)
            figures = [points(found[0]), points(found[1], sign=True), shown(found[2], sign=True), shown(found[3])]
            start = said.get(starts.get(arm, ""), [])
            gains = [difference(each, start, mine, of_pairs) for of_pairs in COMPARED.values()]
            gains += [difference(each, said[o], mine, pairs_ordered) if o in said and o != arm else "" for o in others]
            lines.append([arm, len(each), *figures, *gains])
        yield f"{title}, {len({text.pair_id for text in mine})} pairs", ["arm", "seeds", *FIGURES, *against], lines


def gains(
    said: Mapping[str, Said], starts: Mapping[str, str], texts: Sequence[LabelledText]
) -> dict[str, list[tuple[str, float, float, float]]]:
    """By split: how much each arm's right minus reversed is above its start's, in points, and the interval."""
    found: dict[str, list[tuple[str, float, float, float]]] = defaultdict(list)
    for split, title in SPLITS.items():
        mine = [text for text in texts if text.split == split]
        for arm, each in said.items():
            of_start = said.get(starts.get(arm, ""), [])
            if gain := difference_estimate(each, of_start, mine, pairs_right_minus_reversed):
                found[title].append((arm, *(100 * (value or 0.0) for value in (gain.value, gain.low, gain.high))))
    return found


def estimates(said: Said, texts: Sequence[LabelledText]) -> list[Estimate]:
    """Pairs ordered, right minus reversed, d', AUROC; the last where there are probabilities."""
    outcomes = [one for each in said for one in judge(texts, each)]
    answered = [one for one in outcomes if one.verdict is not None]
    chances = [(p, one.is_error, one.cluster) for one in outcomes if (p := one.p_incorrect) is not None]
    return [
        pair_estimate(said, texts, pairs_ordered),
        pair_estimate(said, texts, pairs_right_minus_reversed),
        bootstrap_estimate(d_prime, confusion_table(answered), [one.cluster for one in answered]),
        auroc(*(list(column) for column in zip(*chances, strict=True))) if chances else Estimate(None, None, None, 0),
    ]


def pair_estimate(said: Said, texts: Sequence[LabelledText], of_pairs: OfPairs) -> Estimate:
    return mean_estimate(list(by_pair(said, texts, of_pairs).values()))


def difference(said: Said, others: Said, texts: Sequence[LabelledText], of_pairs: OfPairs) -> str:
    """How much higher the figure is than the others', in points, with its interval and p-value; empty without them."""
    a, b, pairs = of_both(said, others, texts, of_pairs)
    found = difference_estimate(said, others, texts, of_pairs)
    return f"{points(found, sign=True)}, {format_p(permutation_p(a, b, pairs))}" if found else ""


def difference_estimate(said: Said, others: Said, texts: Sequence[LabelledText], of_pairs: OfPairs) -> Estimate | None:
    """The same as a number; None where no pair has both."""
    a, b, pairs = of_both(said, others, texts, of_pairs)
    return mean_estimate([x - y for x, y in zip(a, b, strict=True)]) if pairs else None


def of_both(
    said: Said, others: Said, texts: Sequence[LabelledText], of_pairs: OfPairs
) -> tuple[list[float], list[float], list[str]]:
    """The values of both for the pairs that have both, and these pairs."""
    mine, theirs = by_pair(said, texts, of_pairs), by_pair(others, texts, of_pairs)
    pairs = [pair for pair in mine if pair in theirs]
    return [mine[pair] for pair in pairs], [theirs[pair] for pair in pairs], pairs


def by_pair(said: Said, texts: Sequence[LabelledText], of_pairs: OfPairs) -> Mapping[str, float]:
    """The mean over the seeds of a pair's value; pairs without one are left out."""
    values: dict[str, list[float]] = defaultdict(list)
    for each in said:
        twins: dict[str, list[Outcome]] = defaultdict(list)
        for one in judge(texts, each):
            if one.has_twin:
                twins[one.cluster].append(one)
        for pair, both in twins.items():
            values[pair] += of_pairs(both)
    return {pair: fmean(seeds) for pair, seeds in values.items() if seeds}


def points(found: Estimate, sign: bool = False) -> str:
    """Percent, with the interval."""
    return shown(found, 100, 1, sign)


def shown(found: Estimate, scale: float = 1, digits: int = 2, sign: bool = False) -> str:
    if found.value is None or found.low is None or found.high is None:
        return "-"
    value, low, high = (
        f"{scale * each:{'+' if sign else ''}.{digits}f}" for each in (found.value, found.low, found.high)
    )
    return f"{value} ({low} to {high})"
