"""Runs that differ in nothing but their seed: their evaluations in one table, with means over the seeds.

The t intervals say how much training varies from seed to seed on these very texts. How much the figures would vary with
other texts is in the tables of each evaluation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medserl.errors import DataError, RunError
from medserl.evaluation.guessing import FLAG_RATES
from medserl.evaluation.places import RECORD, find_evaluations
from medserl.evaluation.statistics import Estimate, over_seeds
from medserl.evaluation.table import TableRow, cell, escape_markdown, write_tables

MAY_DIFFER = frozenset(
    {
        "seed", "adapter", "output_dir", "resume", "device", "generation_token_budget", "training_token_budget",
        "save_every", "keep_checkpoints", "eval_every", "tensorboard", "wandb",
    }
)  # fmt: skip
"""Settings in which runs may differ that differ in their seed: where they lie, and what they ran on."""


@dataclass(frozen=True)
class SeedResult:
    """One finished evaluation: its rows as in table.json, and what was judged and how."""

    name: str
    rows: list[TableRow]
    record: dict[str, Any]


def write_seeds(folders: Sequence[Path], output: Path) -> str:
    """Read the evaluations, write `table.md`, `.csv` and `.json` to `output`; returns the Markdown.

    Raises:
        DataError, RunError: fewer than two evaluations, one that is damaged, or two of different texts or options.
    """
    results = read_results(folders)
    table, differences = seed_rows(results), seed_differences(results)
    text = _markdown(table, differences, results)
    write_tables(output, text, table, differences)
    return text


def read_results(folders: Sequence[Path]) -> list[SeedResult]:
    """The evaluations in these folders of evaluations or runs; they must be of the same texts, options and settings."""
    places = _places(folders)
    if len({place.resolve() for place in places}) < max(2, len(places)):
        raise DataError("give two or more evaluations, each of them once")
    names = [place.parent.name if place.name == "eval" else place.name for place in places]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    results = [_read(place, name) for place, name in zip(places, names, strict=True)]
    first = results[0]
    for result in results[1:]:
        for what in ("texts", "options"):
            if result.record[what] != first.record[what]:
                raise DataError(f"{result.name} and {first.name} differ in their {what} and cannot be put together")
        _require_same_settings(first, result)
    return results


def _places(folders: Sequence[Path]) -> list[Path]:
    """Of each folder its evaluation; of a run that has several the one whose texts and options all the others have."""
    found = [_evaluations(folder) for folder in folders]
    if all(len(places) == 1 for places in found):
        return [place for (place,) in found]
    asked = [{_asked(place): place for place in places} for places in found]
    shared = [question for question in asked[0] if all(question in places for places in asked[1:])]
    if len(shared) != 1:
        several = next(folder for folder, places in zip(folders, found, strict=True) if len(places) > 1)
        names = ", ".join(str(place) for place in found[list(folders).index(several)])
        raise DataError(f"{several} holds several evaluations ({names}); give the folders of those to put together")
    return [places[shared[0]] for places in asked]


def _evaluations(folder: Path) -> list[Path]:
    if (folder / RECORD).is_file():
        return [folder]
    return find_evaluations(folder / "eval") or [folder / "eval"]


def _asked(place: Path) -> str:
    record = _read(place, place.name).record
    return json.dumps([record["texts"], record["options"]], sort_keys=True)


def _require_same_settings(first: SeedResult, other: SeedResult) -> None:
    """Raises DataError where two systems of one name were trained or asked by other settings than the seed."""
    known, given = (result.record.get("settings", {}) for result in (first, other))
    for system in known.keys() & given.keys():
        for name in sorted((known[system].keys() | given[system].keys()) - MAY_DIFFER):
            mine, theirs = (settings[system].get(name) for settings in (known, given))
            if mine != theirs:
                raise DataError(
                    f"{first.name} and {other.name} differ in {name} ({mine} and {theirs}), not in the seed alone, "
                    "and cannot be put together"
                )


def _read(place: Path, name: str) -> SeedResult:
    rows, record = _json(place / "table.json", list), _json(place / RECORD, dict)
    keys = {"system", "group", "figure", "value"}
    if not all(isinstance(row, dict) and keys <= row.keys() for row in rows) or not {
        "texts",
        "options",
        "systems",
    } <= set(record):
        raise RunError(f"{place}: not as `medserl evaluate` writes it; evaluate again")
    return SeedResult(name, rows, record)


def _json(path: Path, kind: type[Any]) -> Any:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path}: no such file; run `medserl evaluate` first") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from None
    if not isinstance(found, kind):
        raise RunError(f"{path}: not as `medserl evaluate` writes it; evaluate again")
    return found


def seed_rows(results: Sequence[SeedResult]) -> list[TableRow]:
    """Of every figure that all evaluations have: mean, t interval, number of seeds, and each one's value."""
    by_key = [_values(result.rows) for result in results]
    shared = [key for key in by_key[0] if all(key in values for values in by_key[1:])]
    rows = []
    for key in shared:
        values = [values[key] for values in by_key]
        rows.append(dict(zip(("system", "group", "figure"), key, strict=True)) | _summary(values, results))
    return rows


def seed_differences(results: Sequence[SeedResult]) -> list[TableRow]:
    """Of the last system against each one before it: the difference in texts and in pairs right, seed by seed."""
    by_key = [_values(result.rows) for result in results]
    systems = list(dict.fromkeys(system for system, group, _ in by_key[0] if group == "all"))
    found = []
    last = systems[-1]
    pairs = (last, "all", "pairwise_accuracy"), (last, "all", "pairwise_chance")
    if all(key in values for key in pairs for values in by_key):
        differences = [values[pairs[0]] - values[pairs[1]] for values in by_key]
        sentence = _sentence(last, "a coin that flags as often", "pairs", over_seeds(differences))
        row = {"system": last, "against": "its coin", "unit": "pairs"} | _summary(differences, results)
        found.append(row | {"sentence": sentence})
    for other in systems[:-1]:
        for figure, unit in (("accuracy", "texts"), ("pairwise_accuracy", "pairs")):
            if other in FLAG_RATES and unit == "pairs":
                continue  # always the same gets none right, which praises everybody
            keys = (systems[-1], "all", figure), (other, "all", figure)
            if all(key in values for key in keys for values in by_key):
                differences = [values[keys[0]] - values[keys[1]] for values in by_key]
                row = {"system": systems[-1], "against": other, "unit": unit} | _summary(differences, results)
                found.append(row | {"sentence": _sentence(systems[-1], other, unit, over_seeds(differences))})
    return found


def _values(rows: Sequence[TableRow]) -> dict[tuple[str, str, str], float]:
    return {(row["system"], row["group"], row["figure"]): row["value"] for row in rows if row["value"] is not None}


def _summary(values: Sequence[float], results: Sequence[SeedResult]) -> TableRow:
    found = over_seeds(values)
    each = {f"value {result.name}": value for result, value in zip(results, values, strict=True)}
    return {"value": found.value, "low": found.low, "high": found.high, "n": found.n} | each


def _sentence(name: str, other: str, unit: str, found: Estimate) -> str:
    assert found.value is not None and found.low is not None and found.high is not None
    points = 100 * abs(found.value)
    word = "better" if found.value > 0 else "worse"
    if found.low == found.high:
        return f"{name} and {other} differ by {100 * found.value:+.1f} points of {unit} right with every seed."
    interval = f"({100 * found.low:+.1f} to {100 * found.high:+.1f} over {found.n} seeds)"
    if found.low <= 0 <= found.high:
        return f"{name} is not distinguishable from {other} in {unit} right {interval}."
    return f"{name} is {word} than {other} by {points:.1f} points of {unit} right {interval}."


def _markdown(table: Sequence[TableRow], differences: Sequence[TableRow], results: Sequence[SeedResult]) -> str:
    """The figures on all texts; those of groups are in the CSV and JSON files."""
    titles = ["system", "figure", "mean", *(result.name for result in results)]
    lines = [titles, ["---"] * len(titles), *(_line(row, results) for row in table if row["group"] == "all")]
    remarks = [*(row["sentence"] for row in differences), *_remarks(results)]
    parts = [
        f"{len(results)} evaluations; mean with its 95 % t interval over seeds, then each one; percent",
        "\n".join(f"| {' | '.join(map(escape_markdown, line))} |" for line in lines),
        "\n".join(f"- {escape_markdown(remark)}" for remark in remarks),
    ]
    return "\n\n".join(parts)


def _remarks(results: Sequence[SeedResult]) -> list[str]:
    """What seeds the last system of each evaluation was trained with, where that is known."""
    seeds = [list(result.record["systems"].values())[-1].get("seed") for result in results if result.record["systems"]]
    if len(seeds) < len(results) or None in seeds:
        return ["Seeds: not recorded, because predictions from files were scored."]
    if len(set(seeds)) < len(seeds):
        return [f"Seeds: {', '.join(map(str, seeds))}. Some are the same, so the intervals are too narrow."]
    return [f"Seeds: {', '.join(map(str, seeds))}."]


def _line(row: Mapping[str, Any], results: Sequence[SeedResult]) -> list[str]:
    figure = row["figure"]
    mean = Estimate(row["value"], row["low"], row["high"], row["n"])
    if mean.low == mean.high:  # the same with every seed, as what guessing gets is
        mean = Estimate(mean.value, None, None, mean.n)
    each = [cell(figure, Estimate(row[f"value {result.name}"], None, None, 1)) for result in results]
    return [row["system"], figure.replace("_", " "), cell(figure, replace(mean, n=0)), *each]
