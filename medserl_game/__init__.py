"""`medserl-game` for verifiers, which finds an environment by the name of a top-level module. The code: `medserl.environment`."""

from medserl.environment import ChatHarness, MedSeRLEnv, MedSeRLTaskset

__all__ = ["ChatHarness", "MedSeRLEnv", "MedSeRLTaskset"]
