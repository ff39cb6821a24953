"""Documented path: the zero-sum reward by role, and the same as an OpenRLHF-style `reward_func`."""

from medserl.game.parsing import parse_verdict
from medserl.game.reward_func import reward_func
from medserl.game.rewards import Rewards, game_rewards

__all__ = ["Rewards", "game_rewards", "parse_verdict", "reward_func"]
