"""Which of the notes that judge a model it may have been trained on: a figure on these is not held out, and says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medserl.data.holdout import text_key
from medserl.game.note import Note


@dataclass(frozen=True)
class Seen:
    """How many notes judge, on how many the model was trained, and the ids of those that are among both."""

    judged: int
    training: int
    ids: tuple[str, ...]

    def sentence(self, source: str) -> str:
        """Whether figures on the judged notes are held-out ones; `source` names the training notes."""
        if not self.ids:
            return f"held-out: none of the {self.judged:,} judged notes is among the {self.training:,} of {source}."
        named = ", ".join(self.ids[:3]) + (", ..." if len(self.ids) > 3 else "")
        return (
            f"not held-out: {len(self.ids):,} of the {self.judged:,} judged notes are among the {self.training:,} "
            f"of {source} ({named})."
        )

    def record(self) -> dict[str, int]:
        """The counts, for a run's or an evaluation's records."""
        return {"judged": self.judged, "training": self.training, "in_both": len(self.ids)}


def seen_in(judged: Sequence[Note], training: Sequence[Note]) -> Seen:
    """The judged notes of which a text, of either twin, is that of a training note but for case, space and signs."""
    known = {key for note in training for key in _keys(note)}
    return Seen(len(judged), len(training), tuple(note.note_id for note in judged if known & _keys(note)))


def _keys(note: Note) -> set[bytes]:
    texts = (text for text in (note.correct_note, note.incorrect_note) if text is not None)
    return {text_key(text) for text in texts}
