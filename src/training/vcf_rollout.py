"""Documented path: the game over a batch, through any engine. The code lives in `medserl.rollout`."""

from medserl.rollout import VCFRolloutGenerator

__all__ = ["VCFRolloutGenerator"]
