"""One table of several systems on the same texts: Markdown to read, CSV and JSON to compute with."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from itertools import combinations
from pathlib import Path
from typing import Any

from medserl.display.shares import as_count
from medserl.display.visible import visible_line
from medserl.errors import DataError
from medserl.evaluation.guessing import GUESSING, against_guessing
from medserl.evaluation.metrics import DetectionMetrics, Outcome, pairs_right
from medserl.evaluation.statistics import NOTHING, Comparison, Estimate, compare, comparison_sentence
from medserl.files import private_folder, write_private

HEADERS = {
    "accuracy": "accuracy",
    "pairwise_accuracy": "pairs right",
    "pairwise_chance": "pairs by coin",
    "right_minus_reversed": "right − reversed",
    "pair_ordering": "pairs ordered",
    "auroc": "AUROC",
    "d_prime": "d′",
    "recall": "recall",
    "specificity": "specificity",
    "f1": "F1",
    "balanced_accuracy": "balanced",
    "mcc": "MCC",
    "flag_rate": "flagged",
    "no_verdict_rate": "no verdict",
    "truncated_rate": "cut off",
    "brier": "Brier",
    "ece": "ECE",
    "threshold": "threshold",
    "threshold_accuracy": "accuracy",
    "threshold_pairwise_accuracy": "pairs right",
    "threshold_pairwise_chance": "pairs by coin",
    "threshold_recall": "recall",
    "threshold_specificity": "specificity",
    "threshold_f1": "F1",
    "threshold_balanced_accuracy": "balanced",
    "threshold_mcc": "MCC",
    "threshold_flag_rate": "flagged",
}
"""Figures in their order, and the words for them in a table's head; others are called what they are."""
COUNTED = ("accuracy", "pairwise_accuracy", "recall", "specificity", "flag_rate", "no_verdict_rate", "truncated_rate")
"""Figures that are so many texts, or pairs, out of `n`; beside them those by threshold, and two official scores."""
_ON_OWN_SCALE = (
    "d_prime",
    "mcc",
    "brier",
    "ece",
    "threshold",
    "threshold_mcc",
)  # all others are shares, shown in percent

TableRow = dict[str, Any]
Estimates = Mapping[str, Estimate]


def rows(results: Mapping[str, Estimates], group: str = "all") -> list[TableRow]:
    """One row for each system and figure; figures that no system has are left out."""
    measured = _measured(results.values())
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
        for system, figures in results.items()
        for name, estimate in figures.items()
        if name in measured
    ]


def comparison_table(results: Mapping[str, DetectionMetrics]) -> list[TableRow]:
    """Each system against guessing, then against each one before it, in texts judged rightly, and in pairs.

    Two systems are compared on the texts that both were asked about.
    `difference` is the system's share minus the other's, with its 95 % interval. The p-values are not corrected for
    their number. Of texts of one class there are no comparisons: always saying the same would win each.

    Raises:
        DataError: two systems were scored on texts of which neither are all among the other's.
    """
    guessing = {name: against_guessing(found) for name, found in results.items()}
    rows = [
        _row(name, GUESSING, unit, one.comparison, one.sentence(name))
        for name, units in guessing.items()
        for unit, one in units.items()
    ]
    for other, system in combinations(results, 2):
        mine, theirs = _of_both(results[system].outcomes, results[other].outcomes)
        if [o.text_id for o in mine] != [o.text_id for o in theirs]:
            raise DataError(f"{system} and {other} were scored on different texts and cannot be compared")
        for unit, chance in guessing[system].items():
            comparison = _compare(mine, theirs, unit)
            sentence = comparison_sentence(system, other, comparison, unit, better_than_guessing=chance.better)
            rows.append(_row(system, other, unit, comparison, sentence))
    return rows


def _of_both(mine: Sequence[Outcome], theirs: Sequence[Outcome]) -> tuple[Sequence[Outcome], Sequence[Outcome]]:
    """Of the larger set those on texts of the smaller one; a sample is part of what it was drawn from."""
    few = {o.text_id for o in min(mine, theirs, key=len)}
    return [o for o in mine if o.text_id in few], [o for o in theirs if o.text_id in few]


def _compare(mine: Sequence[Outcome], theirs: Sequence[Outcome], unit: str) -> Comparison:
    if unit == "pairs":
        right, other_right = pairs_right(mine), pairs_right(theirs)
        clusters = [str(i) for i in range(len(right))]
    else:
        right, other_right = [o.right for o in mine], [o.right for o in theirs]
        clusters = [o.cluster for o in mine]
    return compare(right, other_right, clusters)


def _row(system: str, other: str, unit: str, comparison: Comparison, sentence: str) -> TableRow:
    return {
        "system": system,
        "against": other,
        "unit": unit,
        "difference": comparison.difference.value,
        "low": comparison.difference.low,
        "high": comparison.difference.high,
        "n": comparison.difference.n,
        "p_value": comparison.p_value,
        "test": comparison.test,
        "sentence": sentence,
    }


def markdown(results: Mapping[str, Estimates]) -> str:
    """Systems down, figures across, each with its 95 % interval; shares in percent."""
    return _markdown(("system",), [((_with_n(system, results),), figures) for system, figures in results.items()])


def _with_n(system: str, results: Mapping[str, Estimates]) -> str:
    """A system's name; of one that judged fewer texts than another one, with their number."""
    counts = {name: figures.get("no_verdict_rate", NOTHING).n for name, figures in results.items()}
    return f"{system}, n = {counts[system]}" if 0 < counts[system] < max(counts.values()) else system


def group_markdown(title: str, groups: Mapping[str, Mapping[str, Estimates]]) -> str:
    """The same for several groups of texts in one table, the systems below each other in each group."""
    lines = [
        ((group, _with_n(system, results)), figures)
        for group, results in groups.items()
        for system, figures in results.items()
    ]
    return _markdown((title, "system"), lines)


def _markdown(head: Sequence[str], lines: Sequence[tuple[Sequence[str], Estimates]]) -> str:
    names = _measured(figures for _, figures in lines)
    titles = [*map(escape_markdown, head), *(HEADERS.get(name, name) for name in names)]
    cells = [
        [*map(escape_markdown, first), *(cell(name, figures.get(name, NOTHING)) for name in names)]
        for first, figures in lines
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in [titles, ["---"] * len(titles), *cells])


def _measured(results: Iterable[Estimates]) -> list[str]:
    """The figures that at least one of the results has a value of, in their order."""
    found: dict[str, bool] = {}
    for figures in results:
        for name, estimate in figures.items():
            found[name] = found.get(name, False) or estimate.value is not None
    return [name for name in (*HEADERS, *(name for name in found if name not in HEADERS)) if found.get(name)]


def escape_markdown(text: str) -> str:
    """A name, id or message as one cell or line of Markdown: what is markup in it is shown as it stands."""
    return re.sub(r"([\\|<>`*\[\]])", r"\\\1", visible_line(" ".join(text.split())))


def cell(name: str, estimate: Estimate) -> str:
    """`61.3 (57.2 to 65.2)`, in percent but for figures on their own scale; `-` where there is no value.

    Of fewer than ten texts or pairs `3 of 4 (30.1 to 95.4)`.
    """
    if estimate.value is None:
        return "-"
    scale, digits = (1, 2) if name in _ON_OWN_SCALE else (100, 1)
    value = f"{scale * estimate.value:.{digits}f}"
    if is_count(name) and estimate.low is not None:
        value = as_count(estimate.value, estimate.n) or value
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} ({scale * estimate.low:.{digits}f} to {scale * estimate.high:.{digits}f})"


def is_count(name: str) -> bool:
    """Whether a figure's value is a number of texts or pairs, out of its `n`."""
    return name.removeprefix("threshold_") in (*COUNTED, "flag accuracy", "sentence accuracy")


def to_csv(table: Sequence[TableRow]) -> str:
    """The rows under a header of their keys; empty for no rows."""
    text = StringIO(newline="")
    if table:
        writer = csv.DictWriter(text, fieldnames=list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    return text.getvalue()


def write_tables(folder: Path, text: str, table: Sequence[TableRow], comparisons: Sequence[TableRow] = ()) -> None:
    """`table.md`, `table.csv` and `table.json` in `folder`, and `comparisons.csv` and `.json` where there are any.

    Raises:
        OutputError: they cannot be written.
    """
    files = {"table.md": text + "\n", "table.csv": to_csv(table), "table.json": json.dumps(list(table), indent=1)}
    if comparisons:
        files |= {"comparisons.csv": to_csv(comparisons), "comparisons.json": json.dumps(list(comparisons), indent=1)}
    private_folder(folder)
    for name, content in files.items():
        write_private(folder / name, content)
