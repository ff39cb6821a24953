"""The payoff of one game (docs/design.md). Each role-turn is a sample of its own: +1 and -1 are never added up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from medserl.game.roles import Mode, Verdict, truth

AssessorReward = Literal["verdict", "correction"]


@dataclass(frozen=True)
class Rewards:
    """Reward of each role's turn; `None` where the turn gives no training sample."""

    assessor: float | None
    injector: float | None


NO_GAME = Rewards(assessor=None, injector=None)
"""No note was accepted, so the Assessor never played and nobody won."""


def game_rewards(mode: Mode, verdict: Verdict | None) -> Rewards:
    """Rewards of a game whose note was accepted.

    Zero-sum whenever there is a verdict. Without one the Assessor loses, and the Injector has won nothing.
    """
    reward = assessor_reward(mode, verdict)
    return Rewards(reward, injector_reward([reward if verdict else None]))


def assessor_reward(mode: Mode, verdict: Verdict | None) -> float:
    return 1.0 if verdict == truth(mode) else -1.0


def with_words(reward: float, restored: bool) -> float:
    """The mean of a verdict's reward and of that for the words, 1 or -1: what `assessor_reward = correction` pays.

    Repair is rewarded beside detection, as in SSR (arXiv 2512.18552). Of two twins the words of one are restored where
    an answer differs from the note, of the other where it does not: so neither verdict, nor copying, pays by itself.
    """
    return (reward + (1.0 if restored else -1.0)) / 2


def injector_reward(rewards: Sequence[float | None]) -> float | None:
    """The Injector's reward for the Assessor's on several samples of its note, None being one without a verdict.

    The negative of their sum over the number of samples, between -1 and 1: to bait the Assessor into silence pays
    nothing. None where none gave a verdict.
    """
    given = [reward for reward in rewards if reward is not None]
    return -sum(given) / len(rewards) if given else None
