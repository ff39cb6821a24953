"""Tables of several systems, and who differs from whom."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from medserl.errors import DataError, RunError
from medserl.evaluation.metrics import DetectionMetrics, detection_metrics
from medserl.evaluation.predictions import Prediction, labelled_texts
from medserl.evaluation.statistics import NOTHING, Estimate
from medserl.evaluation.table import cell, comparison_table, group_markdown, markdown, rows, to_csv, write_tables
from medserl.game.note import Note

TEXTS = labelled_texts([Note(f"n{i}", f"right {i}", f"wrong {i}") for i in range(20)])


def _system(right: int) -> DetectionMetrics:
    """Both twins of the first `right` pairs judged rightly, of the others CORRECT said of both."""
    said = [
        Prediction(t.text_id, "INCORRECT" if t.is_error and int(t.pair_id[1:]) < right else "CORRECT") for t in TEXTS
    ]
    return detection_metrics(TEXTS, said)


RESULTS = {"none": _system(0), "base": _system(1), "trained": _system(18)}
FIGURES = {name: dict(found.items()) for name, found in RESULTS.items()}


def test_rows_hold_every_measured_figure() -> None:
    table = rows(FIGURES, "split=known")
    assert list(table[0]) == ["system", "group", "figure", "value", "low", "high", "n"]
    assert {row["group"] for row in table} == {"split=known"}
    by_name = {(row["system"], row["figure"]): row for row in table}
    assert by_name["trained", "accuracy"]["value"] == 38 / 40
    assert by_name["trained", "pairwise_accuracy"] | {"low": 0, "high": 0} == {
        "system": "trained",
        "group": "split=known",
        "figure": "pairwise_accuracy",
        "value": 18 / 20,
        "low": 0,
        "high": 0,
        "n": 20,
    }
    assert not {"brier", "ece"} & {row["figure"] for row in table}  # no system gave probabilities


def test_systems_are_compared_with_all_before_them() -> None:
    table = comparison_table(RESULTS)
    assert [(row["system"], row["against"], row["unit"]) for row in table] == [
        (system, against, unit)
        for against, system in (
            *(("guessing", name) for name in RESULTS),
            *(("none", "base"), ("none", "trained"), ("base", "trained")),
        )
        for unit in ("texts", "pairs")
    ]
    texts, pairs = table[10:]
    assert texts["test"] == "permutation test by pair"
    assert texts["difference"] == pytest.approx(17 / 40)
    assert texts["sentence"] == "trained is better than base by 42.5 points of texts right (p < 0.001)."
    assert pairs["test"] == "McNemar's exact test"
    assert pairs["p_value"] == pytest.approx(2 / 2**17)
    assert table[6]["sentence"] == "base is not distinguishable from none in texts right (p = 1.00)."
    assert {row["against"] for row in comparison_table({"alone": RESULTS["base"]})} == {"guessing"}


def test_systems_on_different_texts_are_not_compared() -> None:
    one, other = detection_metrics(TEXTS[:4], []), detection_metrics(TEXTS[2:6], [])
    with pytest.raises(DataError, match="b and a were scored on different texts"):
        comparison_table({"a": one, "b": other})


def test_markdown_is_a_table() -> None:
    lines = markdown({"a|b": FIGURES["trained"]}).splitlines()
    assert lines[0].startswith("| system | accuracy | pairs right | pairs by coin | right − reversed | d′ | recall |")
    assert lines[2].startswith(r"| a\|b | 95.0 (")
    assert "| 0.90 (" in lines[2]  # MCC as it is: TP 18, TN 20, FN 2
    assert len({line.replace(r"\|", "").count("|") for line in lines}) == 1


def test_figures_without_value_or_interval_in_markdown() -> None:
    only_errors = dict(detection_metrics([t for t in TEXTS if t.is_error], []).items())
    assert " - |" in markdown({"pairs": FIGURES["base"], "errors": only_errors}).splitlines()[3]
    assert cell("accuracy", Estimate(0.5, None, None, 3)) == "50.0"


def test_figures_of_any_name_come_after_the_known_ones_in_their_own_order() -> None:
    half = Estimate(0.5, 0.25, 0.75, 80)
    first = {"ROUGE-1": NOTHING, "threshold": half, "composite": half, "left out": NOTHING, "recall": half}
    second = {"ROUGE-1": half}
    lines = markdown({"a": first, "b": second}).splitlines()
    assert lines[0] == "| system | recall | threshold | ROUGE-1 | composite |"
    assert lines[2] == "| a | 50.0 (25.0 to 75.0) | 0.50 (0.25 to 0.75) | - | 50.0 (25.0 to 75.0) |"
    assert lines[3] == "| b | - | - | 50.0 (25.0 to 75.0) | - |"
    assert [(row["system"], row["figure"]) for row in rows({"a": first, "b": second})] == [
        *(("a", name) for name in ("ROUGE-1", "threshold", "composite", "recall")),
        ("b", "ROUGE-1"),
    ]


@pytest.mark.parametrize(
    ("figure", "estimate", "shown"),
    [
        ("accuracy", Estimate(0.75, 0.3, 0.95, 4), "3 of 4 (30.0 to 95.0)"),
        ("flag accuracy", Estimate(1.0, 0.6, 1.0, 9), "9 of 9 (60.0 to 100.0)"),
        ("threshold_recall", Estimate(0.0, 0.0, 0.5, 3), "0 of 3 (0.0 to 50.0)"),
        ("accuracy", Estimate(0.7, 0.4, 0.9, 10), "70.0 (40.0 to 90.0)"),
        ("f1", Estimate(0.75, 0.3, 0.95, 4), "75.0 (30.0 to 95.0)"),  # no share of texts
        ("accuracy", Estimate(0.5, None, None, 4), "50.0"),  # what guessing gets is no count
        ("accuracy", NOTHING, "-"),
    ],
)
def test_shares_of_a_few_texts_are_told_as_counts(figure: str, estimate: Estimate, shown: str) -> None:
    assert cell(figure, estimate) == shown


@pytest.mark.parametrize("name", ["a|b", "a\nb", "<b>a</b>", "`a`", "[a](b)", "\x1b[31ma", "a\\|b"])
def test_no_name_breaks_a_table(name: str) -> None:
    (line,) = group_markdown(name, {name: {name: FIGURES["base"]}}).splitlines()[2:]
    assert not re.search(r"(?<!\\)[<`\[]", line)
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == group_markdown(
        "x", {"y": {"z": FIGURES["base"]}}
    ).splitlines()[2].count("|")
    assert line.isprintable()


def test_several_groups_in_one_table() -> None:
    half = Estimate(0.5, None, None, 8)
    lines = group_markdown("split", {"seen": {"a": {"recall": half}}, "new": {"a": {"recall": NOTHING}}}).splitlines()
    assert lines == [
        "| split | system | recall |",
        "| --- | --- | --- |",
        "| seen | a | 50.0 |",
        "| new | a | - |",
    ]


def test_files_hold_the_same_rows(tmp_path: Path) -> None:
    table, comparisons = rows(FIGURES), comparison_table(RESULTS)
    write_tables(tmp_path / "eval", markdown(FIGURES), table, comparisons)
    folder = tmp_path / "eval"
    assert json.loads((folder / "table.json").read_text()) == table
    assert json.loads((folder / "comparisons.json").read_text()) == comparisons
    assert (folder / "table.md").read_text() == markdown(FIGURES) + "\n"
    with (folder / "table.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [(row["system"], row["figure"], float(row["value"])) for row in read] == [
        (row["system"], row["figure"], row["value"]) for row in table
    ]
    assert len((folder / "comparisons.csv").read_text().splitlines()) == 1 + len(comparisons)


def test_no_comparisons_no_file_and_no_rows_no_lines(tmp_path: Path) -> None:
    write_tables(tmp_path, "", [])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["table.csv", "table.json", "table.md"]
    assert to_csv([]) == ""
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        write_tables(tmp_path / "file", "", [])
