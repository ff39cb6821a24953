"""`medserl-game`, as verifiers finds it: by the name of a top-level module. The code lives in `medserl.environment`."""

from medserl.environment import ChatHarness, MedSeRLEnv, MedSeRLTaskset

__all__ = ["ChatHarness", "MedSeRLEnv", "MedSeRLTaskset"]
