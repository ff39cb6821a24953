"""What is fixed before a game begins."""

from __future__ import annotations

from dataclasses import dataclass

from medserl.game.note import Note
from medserl.game.roles import Mode, Role


@dataclass(frozen=True)
class PastPlayer:
    """One of the roles is played by a policy of an earlier round, which the engine keeps under the name `snapshot`."""

    role: Role
    snapshot: str


@dataclass(frozen=True)
class GameSetup:
    """A note to play on, the mode, and in error mode the type of error that the Injector is asked for.

    Both roles are played by the policy of the round, unless `past` says otherwise of one.
    """

    note: Note
    mode: Mode
    error_type: str | None = None
    past: PastPlayer | None = None

    def snapshot(self, role: Role) -> str | None:
        """The past policy that plays this role; None for the one of the round."""
        return self.past.snapshot if self.past and self.past.role == role else None

    @property
    def original(self) -> str:
        """The correct note that is played on."""
        if self.note.correct_note is None:
            raise ValueError(f"note {self.note.note_id} has no correct text, so it cannot be played on")
        return self.note.correct_note
