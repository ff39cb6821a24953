"""Notes that fit: all are measured before the first is played or judged, so that none ends a run in a later round.

A note fits where its prompts, in both roles and modes and for both twins, leave room for what may be said about it in
the model's context. What a prompt is rendered to is counted and forgotten, a few notes at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from medserl.errors import DataError
from medserl.game.note import ERROR_TYPES, Note
from medserl.game.prompts import Messages
from medserl.game.roles import MODES, Role
from medserl.rollout import ROOM_FOR_A_WORD, VCFRolloutGenerator

log = logging.getLogger("medserl")

SPARE = 32
"""Tokens kept free for a verdict that is weighed after what the model said."""
_AT_ONCE = 64
_NAMED = 10


class Ruler:
    """How many tokens of context a note needs with one engine and prompt set."""

    def __init__(self, rollout: VCFRolloutGenerator) -> None:
        self.rollout = rollout
        self.context = rollout.engine.context
        self._added = ROOM_FOR_A_WORD * rollout.settings.vcf_max_word_edits

    def longest(self, notes: Sequence[Note]) -> list[int]:
        """The most tokens that a turn on each note may need, of either role."""
        if not notes:
            return []
        prompts, rooms, owners = [], [], []
        for place, note in enumerate(notes):
            for text in filter(None, (note.correct_note, note.incorrect_note)):
                prompts.append(self.rollout.prompts.assessor(text))
                rooms.append(self._room("assessor", text) + self._added)  # the Injector may have made it longer
                owners.append(place)
            if note.correct_note:
                room = self._room("injector", note.correct_note)
                for each in self._injector_prompts(note.correct_note):
                    prompts.append(each)
                    rooms.append(room)
                    owners.append(place)
        needs = [0] * len(notes)
        for place, length, room in zip(owners, self.rollout.engine.prompt_lengths(prompts), rooms, strict=True):
            needs[place] = max(needs[place], length + room)
        return needs

    def reading(self, texts: Sequence[str], sentences: Sequence[Sequence[str]]) -> list[int]:
        """The most tokens that the Assessor's turn on each text may need."""
        assessor = self.rollout.prompts.assessor
        prompts = [assessor(text, shown) for text, shown in zip(texts, sentences, strict=True)]
        room = self.rollout.rooms("assessor", texts[:1])[0] + SPARE
        return [length + room for length in self.rollout.engine.prompt_lengths(prompts)]

    def surely_fits(self, note: Note) -> bool:
        """Whether a note is so short that it need not be measured: no token is shorter than a byte."""
        if self.context is None:
            return True
        texts = [text for text in (note.correct_note, note.incorrect_note) if text]
        around = max(_size(prompt) for prompt in [*self._injector_prompts("x"), self.rollout.prompts.assessor("x")])
        room = max(self._room("assessor", "x"), self._room("injector", "x"))
        longest = max(len(text.encode("utf-8", "surrogatepass")) for text in texts)
        return 2 * longest + around + room + self._added + 256 <= self.context

    def _injector_prompts(self, text: str) -> list[Messages]:
        longest = max(ERROR_TYPES, key=len)
        return [self.rollout.prompts.injector(text, mode, longest if mode == "error" else None) for mode in MODES]

    def _room(self, role: Role, text: str) -> int:
        return self.rollout.rooms(role, [text])[0] + SPARE


def _size(prompt: Messages) -> int:
    return sum(len(message["content"].encode()) for message in prompt)


def fitting_notes(rollout: VCFRolloutGenerator, notes: Iterable[Note], use: str) -> list[Note]:
    """The notes that fit; the others are named in the log. `use` says what they are for.

    Raises:
        DataError: none of them fits.
    """
    ruler = Ruler(rollout)
    kept: list[Note] = []
    left_out: list[tuple[str, int]] = []
    notes = list(notes)
    for start in range(0, len(notes), _AT_ONCE):
        few = notes[start : start + _AT_ONCE]
        unsure = [note for note in few if not ruler.surely_fits(note)]
        needs = dict(zip((note.note_id for note in unsure), ruler.longest(unsure), strict=True))
        for note in few:
            need = needs.get(note.note_id, 0)
            if ruler.context is not None and need > ruler.context:
                left_out.append((note.note_id, need))
            else:
                kept.append(note)
    tell_left_out(left_out, ruler.context, use)
    if left_out and not kept:
        raise DataError(
            f"{use}: no note fits into the model's context of {ruler.context} tokens; {left_out[0][0]!r} may need "
            f"{left_out[0][1]}: shorten the notes, or use a model with a longer context"
        )
    return kept


def fitting_places(
    rollout: VCFRolloutGenerator,
    texts: Sequence[str],
    ids: Sequence[str],
    sentences: Sequence[Sequence[str]],
    use: str,
) -> list[int]:
    """The places of the texts that the Assessor can read in the model's context; the log names the others by `ids`."""
    ruler = Ruler(rollout)
    if ruler.context is None:
        return list(range(len(texts)))
    kept: list[int] = []
    left_out: list[tuple[str, int]] = []
    for start in range(0, len(texts), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        for place, need in enumerate(ruler.reading(texts[part], sentences[part]), start):
            if need > ruler.context:
                left_out.append((ids[place], need))
            else:
                kept.append(place)
    tell_left_out(left_out, ruler.context, use)
    return kept


def tell_left_out(left_out: Sequence[tuple[str, int]], context: int | None, use: str) -> None:
    """Name in the log what may need more tokens than the context has, if there is any: (id, tokens) each."""
    if left_out:
        named = ", ".join(f"{note_id!r} ({need})" for note_id, need in left_out[:_NAMED])
        more = f" and {len(left_out) - _NAMED} more" if len(left_out) > _NAMED else ""
        log.warning(
            "%s: %d notes are left out, as they may need more tokens than the %d of the model's context: %s%s",
            use, len(left_out), context, named, more,
        )  # fmt: skip
