"""Games against past policies, so that play does not chase its own latest habit (fictitious self-play, as in AlphaStar,
Nature 575, 2019). Of a share of the games one role is played by a snapshot of the policy; only the other role learns.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from medserl.config import Settings
from medserl.engines.base import Snapshots
from medserl.game.episode import Episode
from medserl.game.roles import ROLES, truth
from medserl.game.setup import GameSetup, PastPlayer
from medserl.rounds.metrics import Figures, share


class PastPolicies:
    """Keeps the policy of every `past_every`-th round, at most `past_pool` of them, and seats them in games."""

    def __init__(self, engine: Snapshots, settings: Settings) -> None:
        self.engine, self.settings = engine, settings
        self.names: list[str] = []

    def seat(self, games: Sequence[GameSetup], round_number: int) -> list[GameSetup]:
        """The games of a round, `past_fraction` of them with a past policy in either role, equally often."""
        seated = list(games)
        if not self.names:
            return seated
        rng = random.Random(f"{self.settings.seed}/past/{round_number}")
        chosen = rng.sample(range(len(seated)), round(self.settings.past_fraction * len(seated)))
        # Rounds begin with either role in turn, so that an odd number of games favours neither.
        for turn, i in enumerate(chosen, start=round_number):
            seated[i] = replace(seated[i], past=PastPlayer(ROLES[turn % len(ROLES)], rng.choice(self.names)))
        return seated

    def after_round(self, round_number: int) -> None:
        """Keep the policy as it is now, if it is the round for it; 0 is the policy that training starts from."""
        if not self.settings.past_fraction or round_number % self.settings.past_every:
            return
        name = f"past_{round_number}"
        if name in self.names:
            return
        self.engine.remember(name)
        self.names.append(name)
        if len(self.names) > self.settings.past_pool:
            self.engine.forget(self.names.pop(0))

    def state_dict(self) -> list[str]:
        return list(self.names)

    def load_state_dict(self, state: Sequence[str]) -> None:
        """The engine has loaded its snapshots itself."""
        self.names = list(state)


def past_metrics(episodes: Sequence[Episode]) -> Figures:
    """How the policy does in games against past ones; nothing where there are none."""
    played = [episode for episode in episodes if episode.accepted and episode.past_role]
    if not played:
        return {}
    return {
        "past_games": len(played),
        "assessor_accuracy_past": share(e.verdict == truth(e.mode) for e in played if e.past_role == "injector"),
        "injector_win_rate_past": share(e.fooled for e in played if e.past_role == "assessor"),
    }
