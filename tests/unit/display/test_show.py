"""One game on a terminal."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from medserl.config import Settings
from medserl.display.game import highlighted, show_game, who_won
from medserl.engines.scripted import ScriptedEngine
from medserl.game.note import Note
from medserl.game.prompts import Messages, load_prompts
from medserl.game.setup import GameSetup
from medserl.rollout import VCFRolloutGenerator

NOTE = Note("n1", "He has [red]fever[/red]. He takes aspirin daily.")


def play(
    player: Callable[[Messages, random.Random], str], capsys: pytest.CaptureFixture[str], **changes: int
) -> tuple[str, str]:
    rollout = VCFRolloutGenerator(ScriptedEngine(player), load_prompts("term", "edit"), Settings(**changes))
    episode = rollout.play([GameSetup(NOTE, "error", "pharmacotherapy")], seed=0)[0]
    show_game(episode)
    return capsys.readouterr().out, who_won(episode)


def test_a_won_game_shows_edit_decision_words_and_winner(capsys: pytest.CaptureFixture[str]) -> None:
    shown, who = play(
        lambda messages, _: (
            "final_answer: CORRECT" if "final_answer" in messages[-1]["content"] else "1 He takes warfarin daily."
        ),
        capsys,
    )
    assert "warfarin" in shown
    assert "aspirin" in shown
    assert "VCF accepted" in shown
    assert "final_answer: CORRECT" in shown
    assert "[red]fever[/red]" in shown, "markup in a note is text"
    assert who == "The Assessor says CORRECT. Injector wins."


def test_answers_that_met_the_token_limit_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    def player(messages: Messages, _: random.Random) -> str:
        return "final_answer: CORRECT" if "final_answer" in messages[-1]["content"] else "1 He takes warfarin daily."

    shown, who = play(player, capsys, max_new_tokens_assessor=2)
    assert "VCF accepted" in shown and who.startswith("The Assessor's answer was cut at the token limit")
    shown, _ = play(player, capsys, max_new_tokens_injector=4)
    assert shown.count("rejected: truncated") == 3


def test_a_game_without_an_accepted_note(capsys: pytest.CaptureFixture[str]) -> None:
    shown, _ = play(lambda *_: "no.", capsys)
    assert shown.count("rejected: format") == 3
    assert "nobody won" in shown


def test_the_edit_is_marked() -> None:
    text = highlighted("He takes aspirin daily.", "He takes warfarin daily.")
    assert text.plain == "He takes aspirin warfarin daily."
    assert {str(span.style) for span in text.spans} == {"red strike", "bold green"}
