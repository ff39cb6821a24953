"""The frozen opponent: played once, stored whole, judged by whatever Assessor comes later."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from medserl.config import Settings
from medserl.data.readers import read_notes
from medserl.data.sample_paths import sample_path
from medserl.engines.scripted import ScriptedEngine
from medserl.errors import RunError
from medserl.evaluation.frozen import FrozenGame, FrozenOpponent, meet_frozen_opponent, play_frozen_games
from medserl.game.note import Note
from medserl.game.prompts import load_prompts
from medserl.rollout import VCFRolloutGenerator
from medserl.runs.runlog import FROZEN_GAMES, RunFolder

SETTINGS = Settings(engine="scripted", tensorboard=False, frozen_games=12)
NOTES = read_notes(sample_path("validation")).notes[:8]


def rollout(engine: ScriptedEngine | None = None, **changes: Any) -> VCFRolloutGenerator:
    settings = SETTINGS.with_overrides(**changes)
    prompts = load_prompts(settings.prompts, settings.injector_format)
    return VCFRolloutGenerator(engine or ScriptedEngine(), prompts, settings)


def assessor(says: Callable[[str], str]) -> VCFRolloutGenerator:
    """An Assessor that answers by what stands in its prompt."""
    return rollout(ScriptedEngine(lambda messages, rng: says(messages[-1]["content"])))


def silent_injector() -> ScriptedEngine:
    return ScriptedEngine(lambda messages, rng: "I would rather not.")


def game(note_id: str, mode: Any, modified: str, still_true: Any = None) -> FrozenGame:
    return FrozenGame(note_id, None, mode, None, "original", modified, still_true)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    folder = RunFolder.create(SETTINGS.with_overrides(output_dir=str(tmp_path / "run")))
    yield folder
    folder.close()


# -- playing


def test_each_note_is_played_in_both_modes_and_accepted_games_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "medserl"):
        games = play_frozen_games(rollout(), NOTES, 12, seed=0)
    assert {one.note_id for one in games} <= {note.note_id for note in NOTES[:6]}
    assert {one.mode for one in games} == {"error", "benign"}
    assert all((one.error_type is not None) == (one.mode == "error") for one in games)
    assert all(one.modified != one.original for one in games)
    assert f"frozen opponent: {len(games)} of 12 games accepted" in caplog.text


def test_games_depend_on_the_seed_alone() -> None:
    once, again = (play_frozen_games(rollout(), NOTES, 12, seed=3) for _ in range(2))
    assert once == again
    assert once != play_frozen_games(rollout(), NOTES, 12, seed=4)


def test_fewer_notes_give_fewer_games_and_notes_without_a_correct_text_none() -> None:
    lone = Note("lone", None, "Only the wrong text is known.")
    games = play_frozen_games(rollout(), [lone, *NOTES[:2]], 100, seed=0)
    assert 1 <= len(games) <= 4
    assert {one.note_id for one in games} <= {note.note_id for note in NOTES[:2]}


def test_the_fact_table_says_what_it_knows_of_an_edit() -> None:
    note = NOTES[0]
    number = note.sentences.index(note.error_sentence)
    wrong = rollout(ScriptedEngine(lambda messages, rng: f"{number} {note.error_sentence}"))
    told = play_frozen_games(wrong, [note], 2, seed=0)
    assert [(one.mode, one.still_true) for one in told] == [("error", "false"), ("benign", "false")]
    stranger = Note("mine", note.correct_note, fact_id="no such fact")
    assert [one.still_true for one in play_frozen_games(wrong, [stranger], 2, seed=0)] == [None, None]


# -- judging


def test_figures_by_mode_and_by_fact_by_hand() -> None:
    opponent = FrozenOpponent(
        [
            game("a", "error", "a is odd", "false"),
            game("a", "benign", "a is even", "false"),  # asked for no error, made one
            game("b", "error", "b is odd", "true"),  # asked for an error, made none
            game("b", "benign", "b is odd", "unknown"),
            game("c", "error", "c is mute"),
            *(game(f"d{i}", "benign", "d is even", "true") for i in range(5)),
        ]
    )
    answers = {"odd": "final_answer: INCORRECT", "even": "final_answer: CORRECT", "mute": "Hm."}
    figures = opponent.evaluate(
        assessor(lambda prompt: next(a for word, a in answers.items() if f"is {word}" in prompt))
    )
    assert figures == {
        "frozen_accuracy": 8 / 10,
        "frozen_pairwise_accuracy": 1 / 2,
        "frozen_recall": 2 / 3,
        "frozen_specificity": 6 / 7,
        "frozen_flag_rate": 3 / 10,
        "frozen_no_verdict_rate": 1 / 10,
        "frozen_fact_accuracy": 6 / 8,
        "frozen_fact_recall": 1 / 2,
        "frozen_fact_specificity": 5 / 6,
    }
    fewer = FrozenOpponent(opponent.games[:-1])
    assert len([key for key in fewer.evaluate(rollout()) if "fact" in key]) == 0


def test_notes_without_facts_have_no_figures_by_fact() -> None:
    figures = FrozenOpponent([game("a", "error", "x")]).evaluate(assessor(lambda _: "final_answer: INCORRECT"))
    assert figures["frozen_recall"] == 1.0
    assert figures["frozen_specificity"] is None
    assert not [key for key in figures if "fact" in key]


def test_an_opponent_without_games_has_no_figures() -> None:
    figures = FrozenOpponent([]).evaluate(rollout())
    assert figures["frozen_accuracy"] is None
    assert set(figures.values()) == {None}


# -- storing


def test_stored_games_are_read_again_and_never_replayed(run: RunFolder) -> None:
    first = meet_frozen_opponent(rollout(), NOTES, run, 0)
    assert first is not None and first.games
    again = meet_frozen_opponent(rollout(silent_injector()), NOTES, run, 3)
    assert again is not None
    assert again.games == first.games
    rows = [json.loads(line) for line in (run.path / FROZEN_GAMES).read_text(encoding="utf-8").splitlines()]
    assert [row["modified"] for row in rows] == [one.modified for one in first.games]


def test_a_policy_that_has_moved_is_no_frozen_opponent(run: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    assert meet_frozen_opponent(rollout(), NOTES, run, 2) is None
    assert "so there are no frozen_* figures" in caplog.text
    assert not (run.path / FROZEN_GAMES).exists()


def test_zero_games_switch_it_off(run: RunFolder) -> None:
    assert meet_frozen_opponent(rollout(frozen_games=0), NOTES, run, 0) is None
    assert not (run.path / FROZEN_GAMES).exists()


def test_without_a_run_folder_games_stay_in_memory() -> None:
    opponent = meet_frozen_opponent(rollout(), NOTES, None, 0)
    assert opponent is not None and opponent.games


@pytest.mark.parametrize(
    ("text", "message"), [('{"note_id": "a"}\n', "line 1 is no game"), ("{broken\n", "cannot be read")]
)
def test_broken_stored_games_get_one_line(run: RunFolder, text: str, message: str) -> None:
    (run.path / FROZEN_GAMES).write_text(text, encoding="utf-8")
    with pytest.raises(RunError, match=message) as caught:
        meet_frozen_opponent(rollout(), NOTES, run, 0)
    assert str(run.path / FROZEN_GAMES) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_new_run_forgets_the_games_of_one_that_was_killed_at_once(run: RunFolder) -> None:
    meet_frozen_opponent(rollout(), NOTES, run, 0)
    run.close()
    RunFolder.create(SETTINGS.with_overrides(output_dir=str(run.path))).close()
    assert not (run.path / FROZEN_GAMES).exists()


def test_games_are_written_whole_or_not_at_all(run: RunFolder) -> None:
    (run.path / ".frozen_opponent.jsonl.partial").mkdir()
    with pytest.raises(RunError, match="cannot be written"):
        meet_frozen_opponent(rollout(), NOTES, run, 0)
    assert not (run.path / FROZEN_GAMES).exists()
