"""What tests of `medserl serve` review: ten invented notes with findings, and a judge that follows a script."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from medserl.config import Settings
from medserl.engines.scripted import ScriptedEngine
from medserl.errors import ModelError
from medserl.evaluation.thresholds import Threshold
from medserl.game.episode import Episode
from medserl.game.note import Note
from medserl.game.prompts import load_prompts
from medserl.game.roles import Mode
from medserl.game.setup import GameSetup
from medserl.prediction.assessor import Finding
from medserl.prediction.findings import JudgedNote, write_findings
from medserl.rollout import VCFRolloutGenerator

FIRST, LAST = "A {age}-year-old man comes to the clinic because of cough.", "He is told to come back in a week."
WRONG, RIGHT = "His pneumonia is treated with {drug} by mouth.", "amoxicillin"
DRUGS = (
    *("furosemide", "warfarin", "insulin", "metformin", "lithium"),
    *("digoxin", "heparin", "omeprazole", "aspirin", "amiodarone"),
)


def text_of(number: int) -> str:
    return " ".join((FIRST.format(age=40 + number), WRONG.format(drug=DRUGS[number]), LAST))


def finding_of(number: int, threshold: float = 0.5) -> Finding:
    """The n-th note is suspicious by 0.95, 0.88, ...; the sentence with the drug is pointed at."""
    sentence, p_error = WRONG.format(drug=DRUGS[number]), round(0.95 - 0.07 * number, 2)
    return Finding(
        f"note {number}",
        "INCORRECT" if p_error >= 0.5 else "CORRECT",
        p_error,
        p_error >= threshold,
        sentence=1,
        sentence_text=sentence,
        says=DRUGS[number],
        should_say=RIGHT,
        correction=sentence.replace(DRUGS[number], RIGHT),
    )


def write_ten(path: Path, count: int = 10) -> Path:
    """A file as `medserl predict` writes it, the least suspicious first."""
    notes = [Note(f"note {number}", text_of(number), labelled=False) for number in range(count)]
    judged = [JudgedNote(note, finding_of(number), 0.5) for number, note in enumerate(notes)]
    write_findings(path, judged[::-1])
    return path


class ScriptedJudge:
    """Finds `drug` suspicious in any note that names one; fails, waits or is overwhelmed where a note says so."""

    threshold = Threshold(0.6, 0.8, 0.7, 40, "validation.jsonl")

    def __init__(self, wait: Callable[[], object] = lambda: None) -> None:
        self.wait = wait
        self.judged: list[str] = []
        self.closed = False

    def judge(self, notes: Sequence[Note | str]) -> list[Finding]:
        return [self._one(note) for note in notes if isinstance(note, Note)]

    def _one(self, note: Note) -> Finding:
        text = note.correct_note or ""
        if "WAIT" in text:
            self.wait()
        if "FAIL" in text:
            raise ModelError("the model cannot read this")
        if "BREAK" in text:
            raise RuntimeError(f"a defect, with words of the note: {text}")
        self.judged.append(note.note_id)
        if "LONG" in text:
            return Finding(note.note_id, None, None, None, reason="sentence 3 does not fit into the model's context")
        suspicious = any(drug in text for drug in DRUGS)
        return Finding(note.note_id, "INCORRECT" if suspicious else "CORRECT", 0.9 if suspicious else 0.1, suspicious)

    def play(self, note: Note | str, mode: Mode = "error", error_type: str | None = None) -> Episode:
        assert isinstance(note, Note)
        self._one(note)
        settings = Settings(engine="scripted")
        rollout = VCFRolloutGenerator(ScriptedEngine(), load_prompts("term", "edit"), settings)
        return rollout.play([GameSetup(note, mode, error_type)], seed=1)[0]

    def close(self) -> None:
        self.closed = True
