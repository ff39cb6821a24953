"""Evaluations of several seeds in one table: means with t intervals, worked by hand."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest

from medserl.cli import main
from medserl.errors import DataError, MedSeRLError, RunError
from medserl.evaluation.seeds import write_seeds

T_2 = 4.302652729911275  # 97.5 % quantile of Student's t with 2 degrees of freedom


def rows(system: str, accuracy: float, pairs: float | None) -> list[dict[str, Any]]:
    figures = {"accuracy": accuracy, "pairwise_accuracy": pairs, "mcc": accuracy - 1}
    return [
        {"system": system, "group": group, "figure": figure, "value": value, "low": None, "high": None, "n": 8}
        for group in ("all", "length=short")
        for figure, value in figures.items()
    ]


def write(folder: Path, accuracy: float, pairs: float | None = 0.5, seed: int = 0, **record: Any) -> Path:
    folder.mkdir(parents=True)
    table = [*rows("base", 0.5, 0.25), *rows("trained", accuracy, pairs)]
    known = {"texts": {"sha256": "1"}, "options": {"samples": 1}, "systems": {"trained": {"seed": seed}}}
    (folder / "table.json").write_text(json.dumps(table))
    (folder / "evaluation.json").write_text(json.dumps(known | record))
    return folder


def three(tmp_path: Path) -> list[Path]:
    """Two runs and a folder of an evaluation by another name."""
    write(tmp_path / "run1" / "eval", 0.5, seed=1)
    write(tmp_path / "run2" / "eval", 0.6, seed=2)
    return [tmp_path / "run1", tmp_path / "run2", write(tmp_path / "third", 0.7, None, seed=3)]


def test_means_and_intervals_by_hand(tmp_path: Path) -> None:
    text = write_seeds(three(tmp_path), tmp_path / "out")
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    by_key = {(row["system"], row["group"], row["figure"]): row for row in table}
    found = by_key["trained", "all", "accuracy"]
    reach = T_2 * 0.1 / 3**0.5
    assert (found["value"], found["low"], found["high"]) == pytest.approx((0.6, 0.6 - reach, 0.6 + reach), abs=1e-9)
    assert [found["n"], *(found[f"value {name}"] for name in ("run1", "run2", "third"))] == [3, 0.5, 0.6, 0.7]
    assert by_key["trained", "length=short", "mcc"]["value"] == pytest.approx(-0.4)
    assert ("trained", "all", "pairwise_accuracy") not in by_key  # one evaluation lacks it
    assert (
        f"| trained | accuracy | 60.0 ({100 * (0.6 - reach):.1f} to {100 * (0.6 + reach):.1f}) | 50.0 | 60.0 | 70.0 |"
        in text
    )
    assert "| trained | mcc | -0.40 (-0.65 to -0.15) | -0.50 | -0.40 | -0.30 |" in text
    assert text + "\n" == (tmp_path / "out" / "table.md").read_text()
    with (tmp_path / "out" / "table.csv").open(newline="") as file:
        assert [float(row["value"]) for row in csv.DictReader(file)] == [row["value"] for row in table]


def test_differences_in_plain_sentences(tmp_path: Path) -> None:
    text = write_seeds(three(tmp_path), tmp_path / "out")
    assert "- trained is not distinguishable from base in texts right (-14.8 to +34.8 over 3 seeds)." in text
    assert "pairs right" not in text
    assert "- Seeds: 1, 2, 3." in text
    (difference,) = json.loads((tmp_path / "out" / "comparisons.json").read_text())
    assert (difference["system"], difference["against"], difference["unit"]) == ("trained", "base", "texts")
    assert difference["value third"] == pytest.approx(0.2)
    clear = [write(tmp_path / "clear" / str(i), 0.8 + i / 100, seed=i) for i in range(3)]
    assert "- trained is better than base by 31.0 points of texts right (+28.5 to +33.5 over 3 seeds)." in write_seeds(
        clear, tmp_path / "out"
    )
    worse = [write(tmp_path / "worse" / str(i), 0.2 + i / 100, seed=i) for i in range(3)]
    assert "- trained is worse than base by 29.0 points of texts right (-31.5 to -26.5" in write_seeds(
        worse, tmp_path / "out"
    )


def test_without_spread_there_is_nothing_to_infer(tmp_path: Path) -> None:
    same = [write(tmp_path / name, 0.6, seed=4) for name in ("a", "b")]
    text = write_seeds(same, tmp_path / "out")
    assert "- trained and base differ by +10.0 points of texts right with every seed." in text
    assert "- Seeds: 4, 4. Some are the same, so the intervals are too narrow." in text


def test_scored_files_have_no_seed(tmp_path: Path) -> None:
    scored = [write(tmp_path / name, 0.6, systems={"run": {"file": "run.txt"}}) for name in ("a", "b")]
    assert "- Seeds: not recorded" in write_seeds(scored, tmp_path / "out")


def test_equal_names_are_told_apart(tmp_path: Path) -> None:
    folders = [write(tmp_path / name / "run" / "eval", 0.6, seed=i).parent for i, name in enumerate("ab")]
    head = write_seeds(folders, tmp_path / "out").splitlines()[2]
    assert head == f"| system | figure | mean | {folders[0]} | {folders[1]} |"


def _damaged(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder


def test_what_cannot_be_put_together(tmp_path: Path) -> None:
    good = write(tmp_path / "good", 0.6)
    cases: list[tuple[Path, type[MedSeRLError], str]] = [
        (good, DataError, "give two or more evaluations, each of them once"),
        (tmp_path / "none", RunError, "run `medserl evaluate` first"),
        (write(tmp_path / "texts", 0.6, texts={"sha256": "2"}), DataError, "texts and good differ in their texts"),
        (write(tmp_path / "options", 0.6, options={}), DataError, "options and good differ in their options"),
        (_damaged(write(tmp_path / "a", 0.6), "table.json", "[{}]"), RunError, "evaluate again"),
        (_damaged(write(tmp_path / "b", 0.6), "table.json", "{}"), RunError, "evaluate again"),
        (_damaged(write(tmp_path / "c", 0.6), "evaluation.json", "{}"), RunError, "evaluate again"),
        (_damaged(write(tmp_path / "d", 0.6), "evaluation.json", "["), RunError, "cannot be read"),
    ]
    for folder, kind, message in cases:
        with pytest.raises(kind, match=message):
            write_seeds([good, folder], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_of_several_evaluations_of_a_run_the_one_that_all_have_is_taken(tmp_path: Path) -> None:
    one = write(tmp_path / "run1" / "eval", 0.5, seed=1).parent
    write(tmp_path / "run1" / "eval" / "other-1", 0.9, texts={"sha256": "other"})
    two = write(tmp_path / "run2" / "eval", 0.9, texts={"sha256": "third"}).parent
    write(tmp_path / "run2" / "eval" / "mine-2", 0.6, seed=2)
    text = write_seeds([one, two], tmp_path / "out")
    assert "| trained | accuracy | 55.0 (" in text
    write(tmp_path / "run1" / "eval" / "third-3", 0.9, texts={"sha256": "third"})
    with pytest.raises(DataError, match=r"run1 holds several evaluations .*; give the folders"):
        write_seeds([one, two], tmp_path / "out")
    none = write(tmp_path / "run3" / "eval", 0.5, texts={"sha256": "fourth"}).parent
    with pytest.raises(DataError, match="holds several evaluations"):
        write_seeds([one, none], tmp_path / "out")


def test_runs_that_differ_in_more_than_their_seed_are_no_seeds(tmp_path: Path) -> None:
    def run(name: str, **changes: Any) -> Path:
        settings = {"learning_rate": 5e-5, "adapter": name, "seed": len(name), "sft_verdict_pairs": 0} | changes
        return write(tmp_path / name, 0.6, settings={"trained": settings})

    assert "2 evaluations" in write_seeds([run("a"), run("bb", output_dir="elsewhere")], tmp_path / "out")
    with pytest.raises(
        DataError, match=r"a and c differ in sft_verdict_pairs \(0 and 8\), not in the seed alone"
    ) as caught:
        write_seeds([tmp_path / "a", run("c", sft_verdict_pairs=8)], tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_a_coin_of_their_own_flag_rate_stands_against_the_pairs(tmp_path: Path) -> None:
    folders = []
    for i in range(3):
        folder = write(tmp_path / str(i), 0.6, 0.1 + i / 100, seed=i)
        table = json.loads((folder / "table.json").read_text())
        chance = table[0] | {"system": "trained", "figure": "pairwise_chance", "value": 0.24}
        guess = [table[0] | {"system": "always-correct", "figure": f, "value": 0.0} for f in ("pairwise_accuracy",)]
        (folder / "table.json").write_text(json.dumps([*guess, *table, chance]))
        folders.append(folder)
    text = write_seeds(folders, tmp_path / "out")
    assert "- trained is worse than a coin that flags as often by 13.0 points of pairs right" in text
    assert "always-correct in pairs" not in text


@pytest.mark.parametrize("name", ["a|b", "<b>", "x\ny"])
def test_no_name_of_a_run_breaks_the_table(tmp_path: Path, name: str) -> None:
    text = write_seeds([write(tmp_path / name, 0.6, seed=1), write(tmp_path / "b", 0.7, seed=2)], tmp_path / "out")
    head, *_ = (line for line in text.splitlines() if line.startswith("| system"))
    assert len(re.findall(r"(?<!\\)\|", head)) == 6
    assert "<" not in head.replace("\\<", "")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(folder) for folder in three(tmp_path)]
    main(["seeds", *folders, "--output", str(tmp_path / "out")])
    assert "3 evaluations; mean with its 95 % t interval over seeds" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main(["seeds", folders[0]])
    assert stopped.value.code == 2
    assert "error: give two or more evaluations" in capsys.readouterr().err
