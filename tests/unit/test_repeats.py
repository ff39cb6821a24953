"""Repeated edits: counted in the round and in the rounds before it, charged for where a penalty says so."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from medserl.game.episode import Attempt, Completion, Episode, Turn
from medserl.game.rewards import Rewards, game_rewards
from medserl.game.vcf import apply_vcf
from medserl.rounds.repeats import RepeatPenalty

NOTE = "A man has fever and a cough with green sputum. The right lung is dull. He is given amoxicillin."
OTHER = "A woman of 54 years has a right knee that is swollen and warm, and she cannot walk on it today."
LEFT, VIRAL = ("right", "left"), ("green", "clear")


def game(edit: tuple[str, str] | None, note: str = NOTE, verdict: str | None = "CORRECT") -> Episode:
    """A game whose accepted edit is this one; None: the only attempt was rejected."""
    modified = note.replace(*edit) if edit else note
    vcf = apply_vcf(note, modified)
    assert vcf.passed == (edit is not None)
    turn = Turn("injector", (), Completion("", (1,), (2,), (-0.5,), "stop"))
    rewards = game_rewards("error", verdict) if edit else Rewards(None, None)
    return Episode("n", note, "error", None, (Attempt(turn, modified, vcf),), rewards=rewards)


def injector_rewards(penalty: RepeatPenalty, *games: Episode) -> list[float | None]:
    charged, _ = penalty.charge(games)
    return [episode.rewards.injector for episode in charged]


def test_the_second_of_a_round_is_a_repeat_in_whatever_note() -> None:
    games = [game(LEFT), game(LEFT, OTHER), game(VIRAL), game(("Right", "LEFT"), OTHER.replace("right", "Right"))]
    charged, rate = RepeatPenalty(0.75, 5).charge(games)
    assert [episode.rewards.injector for episode in charged] == [1.0, 0.25, 1.0, 0.25]
    assert rate == 0.5
    for before, after in zip(games, charged, strict=True):
        assert replace(after, rewards=before.rewards) == before  # nothing but the reward
        assert after.rewards.assessor == -1.0


def test_back_again_is_another_edit() -> None:
    left = OTHER.replace("right", "left")
    assert injector_rewards(RepeatPenalty(0.5, 5), game(LEFT, OTHER), game(("left", "right"), left)) == [1.0, 1.0]


def test_a_round_remembers_as_many_rounds_as_the_window() -> None:
    penalty = RepeatPenalty(0.5, 2)
    rewards = [injector_rewards(penalty, game(edit)) for edit in (LEFT, VIRAL, LEFT, VIRAL, VIRAL)]
    assert rewards == [[1.0], [1.0], [0.5], [0.5], [0.5]]
    penalty.charge([])
    penalty.charge([])
    assert injector_rewards(penalty, game(VIRAL)) == [1.0]  # three rounds ago


def test_a_window_of_0_is_the_round_itself() -> None:
    penalty = RepeatPenalty(0.5, 0)
    assert injector_rewards(penalty, game(LEFT), game(LEFT)) == [1.0, 0.5]
    assert injector_rewards(penalty, game(LEFT)) == [1.0]


def test_a_penalty_of_0_counts_and_charges_nothing() -> None:
    games = [game(LEFT), game(LEFT), game(VIRAL)]
    charged, rate = RepeatPenalty(0.0, 5).charge(games)
    assert all(after is before for after, before in zip(charged, games, strict=True))
    assert rate == pytest.approx(1 / 3)


def test_only_accepted_edits_count() -> None:
    penalty = RepeatPenalty(0.5, 5)
    games = [game(None), game(None)]
    assert penalty.charge(games) == (games, None)  # of no edits, the share is not 0
    assert penalty.charge([game(None), game(LEFT), game(LEFT)])[1] == 0.5


def test_a_game_without_a_verdict_has_no_reward_to_charge_and_counts() -> None:
    charged, rate = RepeatPenalty(0.5, 5).charge([game(LEFT), game(LEFT, verdict=None)])
    assert charged[1].rewards == Rewards(-1.0, None)
    assert rate == 0.5


def test_a_lost_game_costs_more() -> None:
    assert injector_rewards(RepeatPenalty(0.5, 5), game(LEFT), game(LEFT, verdict="INCORRECT")) == [1.0, -1.5]


def test_the_edits_of_a_past_injector_are_not_the_policys() -> None:
    """A snapshot repeats what it was taken for: that says nothing of the Injector that learns."""
    past = replace(game(LEFT), past_role="injector")
    opponent = replace(game(LEFT), past_role="assessor")
    charged, rate = RepeatPenalty(0.5, 5).charge([past, past, opponent, game(LEFT)])
    assert [episode.rewards.injector for episode in charged] == [1.0, 1.0, 1.0, 0.5]
    assert rate == 0.5  # one of the two that are its own


def test_the_state_goes_through_json() -> None:
    penalty = RepeatPenalty(0.5, 2)
    for edit in (VIRAL, LEFT, None):
        penalty.charge([game(edit)])
    state = json.loads(json.dumps(penalty.state_dict()))
    resumed = RepeatPenalty(0.5, 2)
    resumed.charge([game(VIRAL)])  # what it knew before is not kept
    resumed.load_state_dict(state)
    assert resumed.state_dict() == penalty.state_dict()
    for _ in range(2):
        games = [game(VIRAL), game(LEFT)]
        assert resumed.charge(games) == penalty.charge(games)
    penalty.load_state_dict(state)
    assert injector_rewards(penalty, game(VIRAL), game(LEFT)) == [1.0, 0.5]
