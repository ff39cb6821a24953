"""Past policies: who is seated where, what is kept, and that nothing is learnt from a past policy's turns."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from medserl.config import Settings
from medserl.engines.base import Sampling
from medserl.engines.scripted import ScriptedEngine
from medserl.game.episode import Completion, Episode
from medserl.game.prompts import Messages, load_prompts
from medserl.game.setup import GameSetup, PastPlayer
from medserl.rollout import VCFRolloutGenerator
from medserl.rounds.metrics import game_metrics
from medserl.rounds.past import PastPolicies, past_metrics
from medserl.rounds.sampler import sample_notes

GAMES = sample_notes(size=12)


class Keeper:
    """Writes down what it is told to keep and to drop."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def remember(self, name: str) -> None:
        self.told.append(("remember", name))

    def forget(self, name: str) -> None:
        self.told.append(("forget", name))


def past_of(names: Sequence[str] = (), **changes: Any) -> PastPolicies:
    past = PastPolicies(Keeper(), Settings(**changes))
    past.load_state_dict(names)
    return past


def players(games: Sequence[GameSetup]) -> list[PastPlayer]:
    return [game.past for game in games if game.past]


# -- seats ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fraction", "seats"), [(0.25, 3), (0.5, 6), (1.0, 12), (0.01, 0)])
def test_a_share_of_the_games_has_a_past_policy(fraction: float, seats: int) -> None:
    games = past_of(["past_0", "past_5"], past_fraction=fraction).seat(GAMES, 1)
    assert len(players(games)) == seats
    assert [(game.note, game.mode, game.error_type) for game in games] == [
        (game.note, game.mode, game.error_type) for game in GAMES
    ]


@pytest.mark.parametrize("fraction", [0.5, 0.25, 0.08])  # 6 games, 3, 1
def test_it_plays_either_role_equally_often(fraction: float) -> None:
    past = past_of(["past_0", "past_5"], past_fraction=fraction)
    seated = [player for number in range(1, 41) for player in players(past.seat(GAMES, number))]
    roles, names = Counter(player.role for player in seated), Counter(player.snapshot for player in seated)
    assert roles["injector"] == roles["assessor"] == len(seated) / 2
    assert set(names) == {"past_0", "past_5"} and min(names.values()) > len(seated) / 4


def test_the_seats_follow_from_seed_and_round() -> None:
    one, other = (past_of(["past_0", "past_5"], past_fraction=0.5) for _ in range(2))
    other.seat(GAMES, 1)
    assert one.seat(GAMES, 2) == other.seat(GAMES, 2) != other.seat(GAMES, 3)
    assert past_of(["past_0", "past_5"], past_fraction=0.5, seed=1).seat(GAMES, 2) != one.seat(GAMES, 2)


def test_without_a_past_everyone_is_of_today() -> None:
    assert past_of(past_fraction=1.0).seat(GAMES, 1) == GAMES
    assert players(past_of(["past_0"], past_fraction=0.0).seat(GAMES, 1)) == []


# -- the pool ------------------------------------------------------------------------------------------------


def test_the_pool_drops_the_oldest() -> None:
    past = past_of(past_fraction=0.5, past_every=2, past_pool=2)
    for number in range(8):
        past.after_round(number)
    assert past.names == ["past_4", "past_6"]
    assert past.engine.told == [
        ("remember", "past_0"),
        ("remember", "past_2"),
        ("remember", "past_4"),
        ("forget", "past_0"),
        ("remember", "past_6"),
        ("forget", "past_2"),
    ]


def test_a_round_is_kept_once_even_if_the_run_is_resumed_there() -> None:
    past = past_of(past_fraction=0.5, past_every=2)
    past.after_round(2)
    resumed = past_of(json.loads(json.dumps(past.state_dict())), past_fraction=0.5, past_every=2)
    resumed.after_round(2)
    assert resumed.names == ["past_2"] and resumed.engine.told == []


def test_nothing_is_kept_that_nobody_asked_for() -> None:
    past = past_of(past_fraction=0.0, past_every=1)
    for number in range(4):
        past.after_round(number)
    assert past.names == [] and past.engine.told == []


# -- games against the past ----------------------------------------------------------------------------------


class Signed(ScriptedEngine):
    """Every completion is signed with the name of the policy that wrote it."""

    def __init__(self, assessor: str = "final_answer: INCORRECT") -> None:
        super().__init__(lambda messages, rng: self._signed(messages, rng, assessor))
        self.writer = ""

    def generate(self, prompts: Sequence[Messages], sampling: Sampling) -> list[Completion]:
        self.writer = sampling.snapshot or "today"
        return super().generate(prompts, sampling)

    def _signed(self, messages: Messages, rng: random.Random, assessor: str) -> str:
        if "final_answer" in messages[-1]["content"]:
            return f"{self.writer} says\n{assessor}"
        shown = next(line for line in messages[-1]["content"].split("\n") if line.startswith("0 "))
        return f"{shown} {self.writer.capitalize()}"


def played(past: PastPlayer | None, engine: ScriptedEngine | None = None, **changes: Any) -> Episode:
    engine = engine or Signed()
    for name in ("old", "older"):
        engine.remember(name)
    rollout = VCFRolloutGenerator(engine, load_prompts("term", "edit"), Settings(engine="scripted", **changes))
    game = GameSetup(GAMES[0].note, "error", "diagnosis", past)
    beside = [GAMES[1], GameSetup(GAMES[2].note, "benign", None, PastPlayer("injector", "older"))]
    return rollout.play([game, *beside], seed=3)[0]


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize(
    ("past", "injector", "assessor"),
    [
        (None, "today", "today"),
        (PastPlayer("injector", "old"), "old", "today"),
        (PastPlayer("assessor", "older"), "today", "older"),
    ],
)
def test_each_role_is_played_by_who_is_seated(
    past: PastPlayer | None, injector: str, assessor: str, samples: int
) -> None:
    episode = played(past, assessor_samples=samples)
    assert episode.past_role == (past.role if past else None)
    assert episode.accepted and episode.accepted.turn.completion.text.endswith(injector.capitalize())
    turns = [episode.assessor, *(reading.turn for reading in episode.more_readings)]
    assert len(turns) == samples
    assert all(turn and turn.completion.text.startswith(f"{assessor} says\n") for turn in turns)


@pytest.mark.parametrize("past_role", ["injector", "assessor"])
def test_only_the_turns_of_today_are_learnt_from(past_role: str) -> None:
    learns = {"injector": "assessor", "assessor": "injector"}[past_role]
    episode = played(PastPlayer(past_role, "old"), assessor_samples=2)
    whole = played(None, assessor_samples=2).samples()
    samples = episode.samples()
    assert {sample.turn.role for sample in samples} == {learns}
    assert len(samples) == sum(sample.turn.role == learns for sample in whole)


def test_what_a_past_policy_says_does_not_depend_on_the_other_games() -> None:
    """A call for each policy, seeded by its name: the games of today are as they would be without it."""
    alone, beside = ScriptedEngine(), ScriptedEngine()
    beside.remember("old")
    prompts, settings = load_prompts("term", "edit"), Settings(engine="scripted")
    games = GAMES[:6]
    mixed = [*games, *(GameSetup(g.note, g.mode, g.error_type, PastPlayer("injector", "old")) for g in GAMES[6:])]
    today = VCFRolloutGenerator(alone, prompts, settings).inject(games, seed=1)
    assert VCFRolloutGenerator(beside, prompts, settings).inject(mixed, seed=1)[:6] == today


def test_past_metrics() -> None:
    right, wrong = Signed(), Signed("final_answer: CORRECT")
    injector, assessor = PastPlayer("injector", "old"), PastPlayer("assessor", "old")
    games = [played(injector, right), played(injector, wrong), played(assessor, wrong), played(None, wrong)]
    assert past_metrics(games) == {
        "past_games": 3,
        "assessor_accuracy_past": 0.5,
        "injector_win_rate_past": 1.0,
    }
    assert past_metrics(games[3:]) == {}
    assert past_metrics(games[:1])["injector_win_rate_past"] is None
    figures = game_metrics(games)  # of the last one alone: the policy against itself
    assert (figures["accepted_games"], figures["assessor_accuracy"], figures["injector_win_rate_error"]) == (4, 0, 1)
    assert game_metrics(games[:3])["assessor_accuracy"] is None
