"""Notes are measured before the first is played: what the context cannot hold is left out by name and count."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from medserl import commands, start
from medserl.config import Settings
from medserl.engines.scripted import ScriptedEngine
from medserl.errors import DataError
from medserl.evaluation.options import EvaluationOptions
from medserl.game.note import Note
from medserl.game.prompts import Messages, load_prompts
from medserl.rollout import VCFRolloutGenerator
from medserl.rounds.fitting import Ruler, fitting_notes, fitting_places

SHORT, LONG = "He has fever. He takes aspirin.", "He has fever. He takes aspirin. " * 900


class Small(ScriptedEngine):
    """A context of 2,000 words."""

    def __init__(self) -> None:
        super().__init__()
        self.context = 2000
        self.measured: list[int] = []

    def prompt_lengths(self, prompts: Sequence[Messages]) -> list[int]:
        self.measured.append(len(prompts))
        return super().prompt_lengths(prompts)


def rollout(engine: Any = None, **settings: Any) -> VCFRolloutGenerator:
    chosen = Settings(engine="scripted", **settings)
    return VCFRolloutGenerator(engine or Small(), load_prompts(chosen.prompts, chosen.injector_format), chosen)


def test_notes_that_do_not_fit_are_left_out_by_name_and_count(caplog: pytest.LogCaptureFixture) -> None:
    notes = [Note("a", SHORT), Note("long one", LONG), Note("b", SHORT, LONG), Note("c", None, LONG), Note("d", SHORT)]
    assert [note.note_id for note in fitting_notes(rollout(), notes, "training notes")] == ["a", "d"]
    (line,) = caplog.messages
    assert line.startswith("training notes: 3 notes are left out, as they may need more tokens than the 2000")
    assert "'long one' (" in line and "'b' (" in line


def test_none_that_fits_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(DataError, match=r"no note fits into the model's context of 2000 tokens; 'x' may need \d+"):
        fitting_notes(rollout(), [Note("x", LONG)], "training notes")


def test_without_a_known_context_nothing_is_measured() -> None:
    engine = Small()
    engine.context = None
    assert len(fitting_notes(rollout(engine), [Note("x", LONG)], "training notes")) == 1
    assert engine.measured == []


def test_short_notes_are_not_measured_and_long_ones_a_few_at_a_time() -> None:
    engine = Small()
    engine.context = 20_000
    fitting_notes(rollout(engine), [Note(str(i), SHORT) for i in range(500)], "training notes")
    assert sum(engine.measured) == 0
    fitting_notes(rollout(engine), [Note(str(i), LONG) for i in range(500)], "training notes")
    assert max(engine.measured) <= 3 * 64 and sum(engine.measured) == 3 * 500


@pytest.mark.parametrize("form", ["edit", "note"])
def test_what_is_needed_covers_every_turn_of_the_game(form: str) -> None:
    """No prompt of either role, mode and error type with its room is longer than what was measured."""
    player = rollout(injector_format=form)
    note = Note("a", SHORT * 20)
    (need,) = Ruler(player).longest([note])
    for role, prompt in [
        ("assessor", player.prompts.assessor(note.correct_note)),
        ("injector", player.prompts.injector(note.correct_note, "benign", None)),
        ("injector", player.prompts.injector(note.correct_note, "error", "pharmacotherapy")),
    ]:
        assert player.engine.prompt_lengths([prompt])[0] + player.rooms(role, [note.correct_note])[0] <= need


def test_texts_to_judge_that_do_not_fit_are_passed_over_by_name(caplog: pytest.LogCaptureFixture) -> None:
    texts = [SHORT, LONG, SHORT]
    assert fitting_places(rollout(), texts, ["a", "b", "c"], [(), (), ()], "base") == [0, 2]
    assert "base: 1 notes are left out" in caplog.text and "'b' (" in caplog.text


def test_a_long_note_neither_stops_a_run_nor_its_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "create_engine", lambda settings, **_: Small())
    notes = tmp_path / "own.jsonl"
    rows = [{"id": f"n{i}", "text": LONG if i == 5 else f"{SHORT} Drug {i}."} for i in range(12)]
    notes.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = Settings(
        engine="scripted", prompt_data=str(notes), rollout_batch_size=4, max_epochs=2, max_rounds=3,
        tensorboard=False, output_dir=str(tmp_path / "run"),
    )  # fmt: skip
    run = commands.train(settings)
    commands.train(Settings(resume=str(run), max_rounds=6))
    played = [json.loads(line)["note_id"] for line in (run / "episodes.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(played) == 22 and set(played) == {f"n{i}" for i in range(12)} - {"n5"}


def test_an_evaluation_shows_how_many_texts_were_too_long_to_be_judged(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("medserl.evaluation.systems.create_inference_engine", lambda settings: Small())
    notes = tmp_path / "own.csv"
    rows = [f"n{i},{LONG if i == 3 else SHORT} Drug {i}.,{i % 2}" for i in range(8)]
    notes.write_text("\n".join(["id,text,error_flag", *rows]), encoding="utf-8")
    options = EvaluationOptions(data=str(notes), compare=("base",), output=tmp_path / "eval")
    commands.evaluate(Settings(engine="scripted"), options)
    assert "'n3' (" in caplog.text
    said = " ".join(capsys.readouterr().out.split())
    why = "1 because the note is too long for the model."
    assert f"base: no verdict on 1 of 8 texts, which counts as wrong: {why}" in said
