"""What is fixed before a game begins."""

from __future__ import annotations

from dataclasses import dataclass

from medserl.game.note import Note
from medserl.game.roles import Mode


@dataclass(frozen=True)
class GameSetup:
    """A note to play on, the mode, and in error mode the type of error that the Injector is asked for."""

    note: Note
    mode: Mode
    error_type: str | None = None

    @property
    def original(self) -> str:
        """The correct note that is played on."""
        if self.note.correct_note is None:
            raise ValueError(f"note {self.note.note_id} has no correct text, so it cannot be played on")
        return self.note.correct_note
