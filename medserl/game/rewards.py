"""The payoff of one game (DESIGN, section 5). Each role-turn is a sample of its own: +1 and -1 are never added up."""

from __future__ import annotations

from dataclasses import dataclass

from medserl.game.roles import Mode, Verdict, truth


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
    if verdict is None:
        return Rewards(assessor=-1.0, injector=None)
    if verdict == truth(mode):
        return Rewards(assessor=1.0, injector=-1.0)
    return Rewards(assessor=-1.0, injector=1.0)
