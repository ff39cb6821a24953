"""The payoff of one game (docs/design.md). Each role-turn is a sample of its own: +1 and -1 are never added up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from medserl.game.roles import Mode, Verdict, truth

InjectorReward = Literal["zero_sum", "peaked"]


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
    return Rewards(assessor_reward(mode, verdict), injector_reward(mode, [verdict]))


def assessor_reward(mode: Mode, verdict: Verdict | None) -> float:
    return 1.0 if verdict == truth(mode) else -1.0


def injector_reward(mode: Mode, verdicts: Sequence[Verdict | None], shape: InjectorReward = "zero_sum") -> float | None:
    """The Injector's reward where several Assessor samples judged its note; None where none gave a verdict.

    `zero_sum`: the mean of the zero-sum rewards over the verdicts, between -1 and 1.
    `peaked`: 1 - 2 |p - 1/2|, p being the share of right verdicts: 1 where the Assessor is right half of the time, 0
    where it always or never is, so that what is hopeless pays no more than what is plain (R-Zero's uncertainty
    reward, arXiv 2508.05004). The game is then no longer zero-sum.
    Either is scaled by the share of samples that gave a verdict: to bait the Assessor into silence pays nothing.
    """
    right = [verdict == truth(mode) for verdict in verdicts if verdict is not None]
    if not right:
        return None
    share = sum(right) / len(right)
    reward = 1 - 2 * share if shape == "zero_sum" else 1 - 2 * abs(share - 0.5)
    return reward * len(right) / len(verdicts)
