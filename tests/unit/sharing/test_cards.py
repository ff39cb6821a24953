"""What a card may say of a model, and what becomes of one that cannot be written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medserl.config import Settings
from medserl.errors import ModelError
from medserl.sharing import card
from medserl.sharing.card_facts import FACTS_FILE, notes_of, warm_up_facts
from medserl.sharing.evaluated import find_evaluation

SAMPLE, OWN = "invented patients", "a file of whoever trained this"


@pytest.mark.parametrize(
    ("source", "name", "licence"),
    [
        ("sample", SAMPLE, "Apache-2.0"),
        ("/x/y/medec_train_sample.jsonl", SAMPLE, "Apache-2.0"),
        ("/x/y/medec_train.jsonl", "MEDEC", "CC BY 4.0"),
        ("MEDEC-MS/MEDEC-Full-TrainingSet-with-ErrorType.csv", "MEDEC", "CC BY 4.0"),
        ("/home/somebody/ward 3/notes.xlsx", f"notes.xlsx, {OWN}", "not recorded"),
        (r"C:\Users\somebody\notes.csv", f"notes.csv, {OWN}", "not recorded"),
        ("/srv/saved?split=train", f"saved, {OWN}", "not recorded"),
        ("/srv/medecine/notes.csv", f"notes.csv, {OWN}", "not recorded"),
        ("hf:acme/notes?split=train", "acme/notes", "see its page"),
    ],
)
def test_notes_are_named_and_never_located(source: str, name: str, licence: str) -> None:
    (told,) = notes_of(Settings(prompt_data=source))
    assert name in told.name and licence in told.licence
    assert not any(part in told.name for part in ("/x", "somebody", "srv", "ward", "\\"))


def evaluation(run: Path, systems: dict[str, Any], accuracy: float, place: str = "eval", finished: str = "1") -> None:
    record = {
        "finished": finished,
        "systems": systems,
        "texts": {"n": 50, "sample": True, "notes": {"in_both": 0}},
        "files": {"judged": {"name": "test.jsonl"}},
    }
    table = [
        {"system": name, "group": group, "figure": "accuracy", "value": value, "low": 0.1, "high": 0.9, "n": 50}
        for name in systems
        for group, value in (("all", accuracy), ("error_type=diagnosis", 0.0))
    ]
    (run / place).mkdir(parents=True)
    (run / place / "evaluation.json").write_text(json.dumps(record), encoding="utf-8")
    (run / place / "table.json").write_text(json.dumps(table), encoding="utf-8")


def test_figures_are_of_the_newest_evaluation_of_that_very_checkpoint(tmp_path: Path) -> None:
    run = tmp_path / "run"
    mine, older = run / "checkpoints" / "round_2", run / "checkpoints" / "round_1"
    evaluation(run, {"trained": {"adapter": str(mine), "model": "x"}}, 0.5)
    evaluation(run, {"trained": {"adapter": f"/elsewhere/{'/'.join(mine.parts[-3:])}"}}, 0.6, "eval/moved", "2")
    evaluation(run, {"other": {"adapter": "/elsewhere/run2/checkpoints/round_2"}}, 0.9, "eval/other", "3")
    evaluation(run, {"tf": {"file": "said.jsonl"}, "base": {"adapter": "none", "model": "x"}}, 0.9, "eval/base", "4")
    found = find_evaluation(mine, run)
    assert found is not None
    assert [(row.name, row.mine) for row in found.rows] == [("accuracy", "60.0 (10.0 to 90.0)")]
    assert (found.n, found.data, found.sample) == (50, "test.jsonl", True)
    assert find_evaluation(older, run) is None
    assert find_evaluation(mine, None) is None


def test_a_checkpoint_is_kept_where_its_card_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gone(*_: object) -> None:
        raise ModelError("model 'x': no such folder")

    monkeypatch.setattr(card, "run_facts", gone)
    (tmp_path / "adapter_config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "README.md").write_text("More Information Needed", encoding="utf-8")
    card.write_run_card(tmp_path, Settings(), 3)
    assert "round 3: its checkpoint has no card: model 'x': no such folder" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["adapter_config.json"]


def test_a_warm_up_tells_what_it_went_on_from_and_what_that_had_learnt(tmp_path: Path) -> None:
    first, plain = tmp_path / "ward 3" / "first", tmp_path / "plain"
    first.mkdir(parents=True)
    plain.mkdir()
    fresh = warm_up_facts(Settings(adapter="none"), 910, 228, 16)
    (first / FACTS_FILE).write_text(fresh.model_dump_json(), encoding="utf-8")
    assert fresh.start == "the model without an adapter"
    assert warm_up_facts(Settings(adapter=str(plain)), 5, 1, 16).start == "the adapter plain"
    start = warm_up_facts(Settings(adapter=str(first)), 3640, 228, 16).start
    learnt = "supervised fine-tuning on the right answers of both roles to 910 pairs"
    assert start.startswith(f"the adapter first, which had learnt from {learnt}")
    assert "228 steps of 16 pairs" in start and "ward" not in start


def test_an_engine_that_writes_no_model_gets_no_card(tmp_path: Path) -> None:
    card.write_run_card(tmp_path, Settings(), 1)
    assert list(tmp_path.iterdir()) == []
