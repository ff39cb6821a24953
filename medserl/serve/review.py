"""What is reviewed: the notes, what the model found in each, and what the reviewer said; no web in it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal

from medserl.display.visible import visible
from medserl.errors import DataError
from medserl.game.note import ERROR_TYPES
from medserl.game.parsing import note_sentences, replace_sentence
from medserl.game.text import HALF_A_CHARACTER, split_sentences, too_long
from medserl.prediction.assessor import Finding
from medserl.serve.decisions import Decision, DecisionFile

Action = Literal["accept", "reject", "comment", "withdraw"]

MOST_COMMENT = 4_000
"""Characters of a comment."""
_EXCERPT = 120


@dataclass(frozen=True)
class Item:
    """A note under review. `finding` is None until it is judged, `threshold` that by which the finding was flagged.

    `sentences` are those of the source, where it has its own.
    """

    note_id: str
    text: str
    finding: Finding | None = None
    threshold: float | None = None
    sentences: tuple[str, ...] = ()

    @cached_property
    def pieces(self) -> list[str]:
        """The text in pieces: what stands before the first sentence, the sentence, what stands before the next, ..."""
        pieces, place = [], 0
        for span in split_sentences(self.text):
            pieces += [self.text[place : span.start], self.text[span.start : span.end]]
            place = span.end
        return [*pieces, self.text[place:]]

    @cached_property
    def sentence(self) -> int | None:
        """The number, in `pieces`, of the sentence that the finding points at: a source may number others."""
        if self.finding is None or self.finding.sentence is None:
            return None
        sentences, named = note_sentences(self.text), (self.finding.sentence_text or "").split()
        number = self.finding.sentence
        if number < len(sentences) and sentences[number].split() == named:
            return number
        alike = [n for n, sentence in enumerate(sentences) if named and _holds(sentence.split(), named)]
        return alike[0] if len(alike) == 1 else None

    @cached_property
    def correction(self) -> str | None:
        """How the sentence of `pieces` should read, as far as the finding says."""
        if self.finding is None or self.sentence is None:
            return None
        sentence, found = note_sentences(self.text)[self.sentence], self.finding
        if sentence.split() == (found.sentence_text or "").split():
            return found.correction
        if found.says and found.should_say and sentence.count(found.says) == 1:
            return sentence.replace(found.says, found.should_say)
        return None

    @property
    def suspicion(self) -> tuple[bool, bool, float]:
        """Sorts the most suspicious first: by P(error), then what has a verdict alone, last what was not judged."""
        found = self.finding
        if found is None or (found.p_error is None and found.verdict is None):
            return True, found is None, 0.0
        p_error = found.p_error if found.p_error is not None else float(found.verdict == "INCORRECT")
        return False, False, -p_error


def _holds(words: Sequence[str], part: Sequence[str]) -> bool:
    """Whether either of the two stands in the other, as a run of words."""
    shorter, longer = sorted((list(words), list(part)), key=len)
    return any(longer[i : i + len(shorter)] == shorter for i in range(len(longer) - len(shorter) + 1))


def pasted_id(text: str) -> str:
    """The id of a note that came without one: the same for the same text, so that no two notes share it."""
    return f"pasted-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def check_text(text: str, what: str) -> None:
    """Raises DataError where a text cannot be kept as it is."""
    if HALF_A_CHARACTER.search(text):
        raise DataError(f"{what} holds half a character (an unpaired surrogate)")


class Review:
    """The notes by their ids, and the file of decisions. Its methods may be called from any thread."""

    def __init__(self, items: Iterable[Item], decisions: DecisionFile) -> None:
        """Raises DataError where the file holds a decision on another text under the id of one of these notes."""
        self._decisions = decisions
        self._items: dict[str, Item] = {}
        self._lock = threading.RLock()
        self.threshold: str | None = None
        """The model's threshold in words, once it is known."""
        self.add(items)
        self._earlier()

    def _earlier(self) -> None:
        """Notes of the file that are not among these, such as pasted ones: shown too, so that none is lost."""
        for decision in self._decisions.rows():
            if decision.note_id not in self._items and decision.text is not None:
                self._items[decision.note_id] = Item(decision.note_id, decision.text)

    def __len__(self) -> int:
        return len(self._items)

    def unjudged(self, items: Iterable[Item]) -> list[Item]:
        """Those of the notes that nothing is known of yet."""
        return [item for item in items if self.item(item.note_id).finding is None]

    def __contains__(self, note_id: str) -> bool:
        return note_id in self._items

    def item(self, note_id: str) -> Item:
        """Raises DataError where there is no such note."""
        with self._lock:
            if note_id not in self._items:
                raise DataError(f"no note {note_id[:80]!r} here")
            return self._items[note_id]

    def checked(self, note_id: str | None, text: str) -> Item:
        """A note to be judged that a reviewer gave, under its id or one made of its text.

        Raises:
            DataError: it cannot be read, or another note has its id.
        """
        check_text(f"{note_id or ''}{text}", "the note")
        name = (note_id or "").strip() or pasted_id(text)
        if not text.strip():
            raise DataError(f"note {name[:80]!r} is empty")
        if why := too_long(text):
            raise DataError(f"note {name[:80]!r} {why}")
        with self._lock:
            there = self._items.get(name)
            if there is not None and there.text != text:
                raise DataError(f"there is another note {name[:80]!r} already; give this one another id")
        return Item(name, text)

    def add(self, items: Iterable[Item], threshold: str | None = None) -> None:
        """Take notes in, or what was found in them: all of them, or none. What was found stays, unless it is anew.

        Raises:
            DataError: another note, or a decision on another text, has the id of one of them.
        """
        with self._lock:
            new: dict[str, Item] = {}
            for item in items:
                there = new.get(item.note_id) or self._items.get(item.note_id)
                self._check(item, there)
                if there is None or there.finding is None or item.finding is not None:
                    new[item.note_id] = item
            self._items |= new
            self.threshold = threshold or self.threshold

    def _check(self, item: Item, there: Item | None) -> None:
        decided = self._decisions.of(item.note_id)
        if there is not None and there.text != item.text:
            raise DataError(f"two notes have the id {item.note_id[:80]!r}; ids must be unique")
        if decided is not None and decided.text != item.text:
            raise DataError(
                f"{self._decisions.path} holds a decision on another text under the id {item.note_id[:80]!r}; "
                "give --decisions another file"
            )

    # -- what is shown ------------------------------------------------------------------------------------------

    def listing(self) -> list[dict[str, Any]]:
        """One short row a note, the most suspicious first."""
        with self._lock:
            items = sorted(self._items.values(), key=lambda item: item.suspicion)
            return [self._row(item) for item in items]

    def _row(self, item: Item) -> dict[str, Any]:
        found, decided = item.finding, self._decisions.of(item.note_id)
        shown = (found.sentence_text if found else None) or item.text[: 2 * _EXCERPT]
        excerpt = " ".join(visible(shown).split())
        return {
            "note_id": item.note_id,
            "verdict": found.verdict if found else None,
            "p_error": found.p_error if found else decided.p_error if decided else None,
            "flagged": found.flagged if found else None,
            "reason": found.reason if found else None,
            "judged": found is not None,
            "excerpt": excerpt if len(excerpt) <= _EXCERPT else f"{excerpt[: _EXCERPT - 1]}…",
            "decision": decided.decision if decided else None,
            "comment": decided.comment if decided else "",
        }

    def detail(self, note_id: str) -> dict[str, Any]:
        """All that is known of a note. Raises DataError where there is no such note."""
        with self._lock:
            item, decided = self.item(note_id), self._decisions.of(note_id)
            return self._row(item) | {
                "text": item.text,
                "pieces": item.pieces,
                "shown": [visible(piece) for piece in item.pieces],
                "finding": asdict(item.finding) if item.finding else None,
                "sentence": item.sentence,
                "correction": item.correction,
                "threshold": item.threshold,
                "decided": decided.model_dump() if decided else None,
            }

    # -- what is decided ----------------------------------------------------------------------------------------

    def suggestion(self, note_id: str) -> tuple[int | None, str | None]:
        """The number of the sentence that the model points at, and how it should read, as far as it says."""
        item = self.item(note_id)
        return item.sentence, item.correction

    def decide(
        self,
        note_id: str,
        action: Action,
        *,
        comment: str | None = None,
        sentence: int | None = None,
        correction: str | None = None,
        error_type: str | None = None,
    ) -> dict[str, Any]:
        """Write a decision down and return the note's `detail`.

        Accepted, the note has an error: in the sentence of this number, which should read `correction`, as far as it is
        known. Without a `comment` an earlier one is kept.

        Raises:
            DataError: it cannot be: no such note or sentence, or a comment that is too long.
            OutputError: the file cannot be written, and nothing has changed.
        """
        check_text(f"{comment or ''}{correction or ''}", "the comment or the correction")
        if comment is not None and len(comment) > MOST_COMMENT:
            raise DataError(f"the comment has {len(comment):,} characters; it may have {MOST_COMMENT:,}")
        if error_type is not None and error_type not in ERROR_TYPES:
            raise DataError(f"error_type {error_type[:40]!r}: give one of {', '.join(ERROR_TYPES)}")
        with self._lock:
            item, before = self.item(note_id), self._decisions.of(note_id)
            said = comment if comment is not None else before.comment if before else ""
            if action == "withdraw":
                self._decisions.withdraw(note_id)
                return self.detail(note_id)
            if action == "comment":
                columns = _kept(before, item)
            elif action == "reject":
                columns = {"decision": action, "correct_note": item.text}
            else:
                columns = {"decision": action, **_accepted(item, sentence, correction), "error_type": error_type}
            self._decisions.record(
                Decision(
                    note_id=note_id,
                    comment=said,
                    p_error=item.finding.p_error if item.finding else before.p_error if before else None,
                    threshold=item.threshold if item.finding else before.threshold if before else None,
                    decided_at=datetime.now(UTC).isoformat(timespec="seconds"),
                    **columns,
                )
            )
            return self.detail(note_id)


def _kept(before: Decision | None, item: Item) -> Mapping[str, Any]:
    """The columns of an earlier decision, to which a comment is added; or of none."""
    if before is None:
        return {"decision": None, "commented_note": item.text}
    return before.model_dump(exclude={"note_id", "comment", "p_error", "threshold", "decided_at"})


def _accepted(item: Item, sentence: int | None, correction: str | None) -> dict[str, Any]:
    """Columns of a note with an error; a pair where a correction is known that changes a word."""
    columns: dict[str, Any] = {"incorrect_note": item.text}
    if sentence is None:
        if correction and correction.strip():
            raise DataError("say which sentence the correction is of (sentence: its number, from 0)")
        return columns
    sentences = note_sentences(item.text)
    if not 0 <= sentence < len(sentences):
        raise DataError(f"the note has no sentence {sentence}; they are numbered from 0 to {len(sentences) - 1}")
    columns |= {"error_sentence_id": sentence, "error_sentence": sentences[sentence]}
    words = " ".join((correction or "").split())
    if not words or words.split() == sentences[sentence].split():
        return columns
    corrected = replace_sentence(item.text, sentence, words)
    if corrected is None or (why := too_long(corrected)):
        raise DataError(f"the corrected note {why}" if corrected else f"the note has no sentence {sentence}")
    return columns | {"correct_note": corrected, "corrected_sentence": words}
