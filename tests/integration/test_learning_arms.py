"""The learning experiment from end to end with the scripted engine: arms, seeds, going on, table and figure."""

from __future__ import annotations

import json
import lzma
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medserl.evaluation.predictions import LabelledText, Prediction
from tests.learning_scripts import run, script


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("learning")
    judge = ["evaluate", "evaluate"]  # the test notes, and those that the warm-up's Injector has edited
    assert run(folder, "best", seeds=("0", "1")) == [*judge, *(2 * ["train", *judge])]
    assert run(folder, "plan") == ["train", *judge]
    return folder


def test_raw_figures_of_every_run_are_kept(done: Path) -> None:
    kept = done / "results" / "sample"
    names = ["best_seed0", "best_seed1", "plan_seed0", "warmup"]
    assert sorted(path.name for path in kept.iterdir() if path.is_dir()) == names
    rows = lzma.decompress((kept / "best_seed1" / "metrics.jsonl.xz").read_bytes()).decode().splitlines()
    assert len(rows) == 1 + 3 and '"sft_loss"' in rows[-1]
    names = ("config.toml.xz", "games.jsonl.xz")
    config, games = (lzma.decompress((kept / "best_seed1" / name).read_bytes()).decode() for name in names)
    assert "sft_verdict_pairs = " in config and str(done) not in config
    assert len(games.splitlines()) == 3 * 8 and "note" not in games
    assert len(lzma.decompress((kept / "warmup" / "predictions.jsonl.xz").read_bytes()).splitlines()) == 728


def test_a_run_that_learnt_gold_pairs_alone_has_no_games_to_keep(tmp_path: Path) -> None:
    assert script("run").games_of(tmp_path) == b""


def test_every_run_judges_the_same_edits_of_the_warm_up(done: Path, tmp_path: Path) -> None:
    kept = done / "results" / "sample"
    notes = [json.loads(line) for line in lzma.decompress((kept / "frozen_notes.jsonl.xz").read_bytes()).splitlines()]
    assert {note["note_id"] for note in notes} == set(judged(kept / "plan_seed0" / "frozen.jsonl.xz"))
    for note in notes:
        assert note["note_id"] == f"{note['of_note']}-{'benign' if note['incorrect_note'] is None else 'error'}"
        assert (note["correct_note"] is None) != (note["incorrect_note"] is None)
    shutil.copytree(done / "results", tmp_path / "results")  # another machine, or run folders that were cleared away
    changed = tmp_path / "results" / "sample" / "frozen_notes.jsonl.xz"
    changed.write_bytes(lzma.compress(json.dumps(notes[0]).encode() + b"\n"))
    run(tmp_path, "honest_play")
    assert judged(tmp_path / "results" / "sample" / "honest_play_seed0" / "frozen.jsonl.xz") == [notes[0]["note_id"]]


def judged(path: Path) -> list[str]:
    return [json.loads(line)["text_id"] for line in lzma.decompress(path.read_bytes()).splitlines()]


def test_of_notes_that_may_be_someones_no_word_is_kept_and_no_place(tmp_path: Path) -> None:
    module, told = script("run"), {"text_id": "a", "verdict": "CORRECT", "correction": None, "completion": "he smokes"}
    path = tmp_path / "trained.predictions.jsonl"
    path.write_text(json.dumps(told) + "\n", encoding="utf-8")
    assert json.loads(module.predictions_of(path, "/data/medec.csv")) == told | {"completion": ""}
    assert json.loads(module.predictions_of(path, "data/medec_test_sample.jsonl")) == told
    (tmp_path / "config.toml").write_text(
        'prompt_data = "/data/medec.csv"\nvalidation_data = "sample"\n', encoding="utf-8"
    )
    assert module.settings_of(tmp_path).decode() == 'prompt_data = "medec.csv"\nvalidation_data = "sample"\n'


def test_started_again_it_does_nothing_twice_and_goes_on_where_it_stopped(done: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(done, folder)
    assert run(folder, "plan", "best") == []
    shutil.rmtree(folder / "outputs" / "sample" / "plan_seed0" / "eval")
    assert run(folder, "plan") == ["evaluate", "evaluate"]


def test_a_run_whose_injector_gets_nothing_past_the_vcf_is_judged_at_its_last_checkpoint(
    done: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(done / "outputs" / "sample" / "warmup", tmp_path / "outputs" / "sample" / "warmup")
    shutil.copytree(done / "results", tmp_path / "results")
    notes = tmp_path / "notes.jsonl"  # in format `note` the scripted Injector gives back the first line alone
    lines = [json.dumps({"correct_note": f"Seen on day {day}.\nShe has pain in the left knee."}) for day in range(16)]
    notes.write_text("\n".join(lines) + "\n", encoding="utf-8")
    starve = ("max_rounds=4", "save_every=1", f"prompt_data={notes}", "injector_format=note", "frozen_games=0")
    assert run(tmp_path, "plan", extra=starve) == ["train", "evaluate", "evaluate"]
    assert "no note was accepted in 3 rounds in a row (last: 3)" in capfd.readouterr().err
    kept = tmp_path / "results" / "sample" / "plan_seed0" / "metrics.jsonl.xz"
    assert len(lzma.decompress(kept.read_bytes()).splitlines()) == 1 + 3
    assert run(tmp_path, "plan", extra=starve) == []


@pytest.mark.parametrize(
    ("rounds", "expected"),
    [
        ([{"accepted_games": 0}] * 3, True),
        ([{"accepted_games": 0}] * 2, False),
        ([{"accepted_games": 1}, *[{"accepted_games": 0}] * 2], False),
        ([{"accepted_games": 0, "sft_loss": 0.5}] * 3, False),  # goes on, so it has stopped for another reason
    ],
)
def test_a_run_with_examples_does_not_starve(rounds: list[dict[str, Any]], expected: bool, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rounds), encoding="utf-8")
    assert script("run").starved(tmp_path) is expected


def test_one_table_and_one_figure(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["table.py", "--results", str(done / "results")])
        script("table").main()
    table = capsys.readouterr().out
    for arm, seeds in (("warmup", 1), ("plan", 1), ("best", 2)):
        assert f"\n| {arm} | {seeds} | " in table
    assert "+0.0 (+0.0 to +0.0), p = 1.00" in table  # the same player
    assert re.search(r"\| plan \| accepted, error to benign \| \d+ to \d+ \|", table)
    assert re.search(r"\| plan \| INCORRECT earned \| [+-]\d\.\d\d \(\d+\) \|", table)
    assert "| plan | label noise, error mode | - |" in table  # the oracle decides none of them
    for figure in ("called INCORRECT, benign mode", "right words written"):
        assert re.search(rf"\| plan \| {figure} \| \d+ of \d+ \|", table)
    assert re.search(r"\| plan \| modes told apart \| p [=<] [\d.]+ \|", table)
    of_rounds = r"\| best \| 3, 3 \| 0, 0 \| \d\.\d\d, \d\.\d\d \| \d+ to \d+ \|"  # rounds, minutes, tokens
    assert re.search(of_rounds, table)
    folder = done / "results" / "sample"
    assert (folder / "table.md").read_text(encoding="utf-8").strip() == table.strip()
    for figure in ("curves.png", "gains.png"):
        assert (folder / figure).read_bytes().startswith(b"\x89PNG")


def test_the_frozen_opponents_notes_have_intervals_and_paired_tests(done: Path) -> None:
    module = script("table")
    folder = done / "results" / "sample"
    runs = {run.arm: [run] for run in module.read_runs(folder)}
    notes = [LabelledText(f"{n}{twin}", "", not twin, pair_id=n) for n in "abcd" for twin in ("", "-corrected")]
    games = [
        *({"note_id": f"{n}-error", "of_note": n, "incorrect_note": "x", "still_true": "unknown"} for n in "abc"),
        {"note_id": "d-benign", "of_note": "d", "incorrect_note": None, "still_true": "false"},
    ]
    right = {"a-corrected": "CORRECT", "b-corrected": "CORRECT", "a-error": "INCORRECT", "c-error": "INCORRECT"}
    said = [Prediction(name, verdict) for name, verdict in {**right, "d-benign": "CORRECT"}.items()]
    players = {
        "warmup": [replace(runs["warmup"][0], predictions=[], frozen=[Prediction("a-error", "CORRECT")])],
        "plan": [replace(runs["plan"][0], predictions=said[:2], frozen=said[2:])],
        "best": [replace(runs["best"][0], frozen=[])],
    }
    lines = module.on_frozen_notes(players, notes, games, "best")  # of 3 pairs a alone is right
    assert "decides 1 of their 4 labels, and 1 of these are wrong" in lines[0]
    assert not [line for line in lines if line.startswith("| best |")]  # it judged none of them
    plan = next(line for line in lines if line.startswith("| plan |"))
    assert plan.split(" | ")[1:3] == ["1", "33.3 (6.1 to 79.2)"]  # Wilson, 1 of 3
    assert plan.split(" | ")[3].startswith("+33.3 ") and plan.split(" | ")[3].endswith("p = 1.00")  # McNemar, 1 to 0
    assert [cell[:4] for cell in plan.split(" | ")[-3:-1]] == ["66.7", "100."]
    assert plan.endswith("| p = 0.33 |")  # Fisher, 2 of the 2 judged to 0 of 1: one way in three
    assert module.on_frozen_notes({"best": players["best"]}, notes, games, "best") == []


def test_a_table_of_some_seeds_is_shown_and_written_nowhere(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in (done / "results" / "sample").iterdir() if path.is_file()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["table.py", "--results", str(done / "results"), "--seeds", "1"])
        script("table").main()
    table = capsys.readouterr().out
    assert "\n| best | 1 | " in table and "\n| warmup | 1 | " in table and "\n| plan |" not in table
    assert before == {path: path.read_bytes() for path in (done / "results" / "sample").iterdir() if path.is_file()}


def test_what_is_kept_of_a_game_says_whether_the_assessor_wrote_the_words_that_were_taken_out() -> None:
    game = {
        "mode": "error",
        "edits": [{"original": "type 2", "modified": "type 1"}],
        "assessor_completion": "should_say: Type 2 diabetes\nfinal_answer: INCORRECT",
    }
    right_words = script("run").right_words
    assert right_words(game) is True
    assert right_words({**game, "assessor_completion": "should_say: type 1\nfinal_answer: CORRECT"}) is False
    assert right_words({**game, "mode": "benign"}) is None
    assert right_words({**game, "assessor_completion": None}) is None
    assert right_words({**game, "edits": [{"original": "", "modified": "not"}]}) is None


def test_shares_are_of_the_games_that_they_can_be_told_of() -> None:
    table = script("table")
    game = {"mode": "error", "verdict": "INCORRECT", "still_true": "true", "right_words": True}
    missed = {**game, "verdict": "CORRECT", "still_true": "false", "right_words": False}
    benign = {"mode": "benign", "verdict": None, "still_true": "unknown", "right_words": None}  # cannot be read
    games = [game, missed, benign]
    assert table.share(games, table.is_right) == "1 of 3"
    assert table.share(games, table.is_flagged, "benign") == "0 of 1"
    assert table.share(games, table.label_is_wrong) == "1 of 2"
    assert table.share([{**benign, "still_true": "false"}], table.label_is_wrong, "benign") == "1 of 1"
    assert table.share(games, table.label_is_wrong, "benign") == "-"
    assert table.share(games, table.flagged_in_right_words) == "1 of 1"


def test_of_games_that_nobody_judged_the_labels_are_told_and_no_verdicts() -> None:
    table = script("table")
    game = {
        "round": 1,
        "mode": "error",
        "verdict": None,
        "reward_assessor": None,
        "still_true": "false",
    }
    games = [{**game, "accepted": True}, {**game, "accepted": True, "still_true": "true"}, {**game, "accepted": False}]
    run = table.Run("A", 0, [], [], games, [])
    (accepted,) = [part for part in table.thirds(run) if part]
    assert len(accepted) == 2 and table.mix(accepted) == "2 to 0"
    assert table.share(accepted, table.label_is_wrong, "error") == "1 of 2"
    assert table.share(accepted, table.is_flagged) == table.share(accepted, table.is_right) == "-"
    assert table.told_apart(accepted) == table.earned(accepted, "INCORRECT") == "-"


def test_an_arm_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, "beast")
    assert stopped.value.code == 2 and "no arm 'beast'" in capsys.readouterr().err


def test_a_run_that_did_not_reach_its_end_is_not_judged(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, "plan", extra=("max_word_edits=0",))
    assert stopped.value.code == 2 and "max_word_edits" in capfd.readouterr().err
    assert not list(tmp_path.glob("results/sample/plan*"))


# -- figures that are free of bias -----------------------------------------------------------------------------


def test_an_arm_its_start_and_its_control_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Six pairs: the start orders 3 of them, A all with two seeds, and A says INCORRECT of everything."""
    rows = script("materials").larger_test((0, 6, 0))
    folder = tmp_path / "play"
    keep = script("run").keep
    keep(folder, {"test_notes.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode()})

    def said(ordered: int) -> bytes:
        lines = []
        for number, row in enumerate(rows):
            for twin, p in (("", 0.9), ("-corrected", 0.8 if number < ordered else 0.95)):
                lines.append({"text_id": row["note_id"] + twin, "verdict": "INCORRECT", "p_incorrect": p})
        return "".join(json.dumps(line) + "\n" for line in lines).encode()

    metrics = json.dumps({"round": 1, "seconds_update": 2.0, "tokens_per_second_update": 500_000.0}).encode()
    keep(folder / "few_pairs", {"predictions.jsonl": said(3)})
    keep(folder / "warmup", {"predictions.jsonl": said(6)})
    for name, ordered in (("A_seed0", 6), ("A_seed1", 6), ("A1_seed0", 3)):
        files = {
            "metrics.jsonl": metrics,
            "predictions.jsonl": said(ordered),
            "config.toml": b'adapter = "few_pairs"\n',
        }
        keep(folder / name, files)
    with pytest.MonkeyPatch.context() as patch:
        options = ["--experiment", "play", "--results", str(tmp_path), "--against", "A1", "--seeds", "0", "1"]
        patch.setattr(sys, "argv", ["table.py", *options])
        script("table").main()
    table = capsys.readouterr().out
    lines = {cells[1]: cells for line in table.splitlines() if (cells := line.split(" | ")) and len(cells) > 9}
    line = next(line for line in table.splitlines() if line.startswith("| A | 2 |"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[2].startswith("100.0 ") and cells[3].startswith("+0.0 ") and cells[4].startswith("+0.00 ")
    assert cells[6] == cells[8]  # against its start, few_pairs, and against A1, which is like it
    assert cells[6].startswith("+50.0 (") and cells[6].endswith("p = 0.25")  # 3 of 6 pairs differ: 2 of 8 swaps
    assert cells[7].startswith("+0.0 ") and cells[7].endswith("p = 1.00")
    assert "Free of bias: facts that nobody taught, 6 pairs." in table and "| 1.00 |" in table and lines
