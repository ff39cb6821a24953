"""The words of the game: roles, modes, verdicts, and the truth that a mode fixes (docs/design.md)."""

from __future__ import annotations

from typing import Literal

Role = Literal["injector", "assessor"]
Mode = Literal["error", "benign"]
Verdict = Literal["CORRECT", "INCORRECT"]

ROLES: tuple[Role, ...] = ("injector", "assessor")
MODES: tuple[Mode, ...] = ("error", "benign")


def truth(mode: Mode) -> Verdict:
    """The verdict that is right for an accepted note of this mode."""
    return "INCORRECT" if mode == "error" else "CORRECT"
