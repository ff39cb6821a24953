"""What a clinical note is to MedSeRL: its text, and, where a physician or a fact table made one, its wrong twin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ERROR_TYPES = ("diagnosis", "management", "treatment", "pharmacotherapy", "causalOrganism")
"""MEDEC's five error types, as the benchmark spells them."""

ErrorType = Literal["diagnosis", "management", "treatment", "pharmacotherapy", "causalOrganism"]


@dataclass(frozen=True)
class Note:
    """One clinical note.

    `correct_note` is what the Injector starts from. `incorrect_note` is the same note with one gold error in it.
    At least one of the two is present; a row with both is a *pair*, the two texts being *twins*. `None` stands for
    "not known" throughout. `sentences` are the numbered sentences of the published text, where the source has them.
    `labelled` is False where nobody says whether `correct_note` is correct: play takes it for correct, and nothing can
    be scored on it. `patient` is whose note it is, as the source names them.
    """

    note_id: str
    correct_note: str | None
    incorrect_note: str | None = None
    error_type: str | None = None
    error_sentence: str | None = None
    corrected_sentence: str | None = None
    error_sentence_id: int | None = None
    sentences: tuple[str, ...] = ()
    fact_id: str | None = None
    split: str | None = None
    labelled: bool = True
    patient: str | None = None

    @property
    def is_pair(self) -> bool:
        return self.correct_note is not None and self.incorrect_note is not None
