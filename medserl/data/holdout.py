"""Holding some of the training notes out of training, so that a run can be judged on notes it has not learnt from."""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence

from medserl.game.note import Note

HELD_OUT_SHARE = 0.1
FEWEST, MOST = 5, 64
"""Notes held out: a tenth, within these bounds."""
FEWEST_TO_SPLIT = 20
"""With fewer notes than this none is held out: neither part would be worth having."""


def text_key(text: str) -> bytes:
    """The same for texts that differ in case, white space, punctuation and signs alone: a digest, as notes are many."""
    letters = re.sub(r"[\W_]+", "", text.casefold()) or text
    return hashlib.blake2b(letters.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def split_notes(notes: Sequence[Note], seed: int) -> tuple[tuple[Note, ...], tuple[Note, ...]]:
    """(training notes, held-out notes), the same for the same notes and seed, each in the order of the file.

    Pairs are held out where there are some, else notes of both labels, else any. What belongs together stays together:
    twins, texts that are alike but for case and signs, the notes of one patient, the rows of one id. Notes that cannot
    be trained on, having no correct text, are held out before all others. Nothing is held out of too few notes.
    """
    groups = _groups(notes)
    playable = sum(note.correct_note is not None for note in notes)
    wanted = min(MOST, max(FEWEST, round(HELD_OUT_SHARE * len(notes))))
    if playable < FEWEST_TO_SPLIT:
        return tuple(notes), ()
    rng = random.Random(f"{seed}/held out")
    order = rng.sample(groups, len(groups))
    chosen: set[int] = set()
    for quota, wants in _quotas(notes, wanted):
        got = 0
        for group in order:
            fits = len(group) <= max(FEWEST, wanted // 2)  # one patient's many notes are no sample
            if got < quota and fits and chosen.isdisjoint(group) and any(wants(notes[i]) for i in group):
                chosen.update(group)
                got += len(group)
    held_out = tuple(note for i, note in enumerate(notes) if i in chosen)
    return tuple(note for i, note in enumerate(notes) if i not in chosen), held_out


def _quotas(notes: Sequence[Note], wanted: int) -> list[tuple[int, Callable[[Note], bool]]]:
    """How many notes to hold out of which kind; a few pairs are left to learn from."""
    pairs = sum(note.is_pair for note in notes)
    if pairs >= 2 * FEWEST:
        return [(min(wanted, pairs // 2), lambda note: note.is_pair)]
    wrong = sum(note.correct_note is None for note in notes)
    if wrong:
        half = min(wrong, (wanted + 1) // 2)
        return [(half, lambda note: note.correct_note is None), (half, lambda note: note.correct_note is not None)]
    return [(wanted, lambda note: True)]


def _groups(notes: Sequence[Note]) -> list[list[int]]:
    """The notes' places, put together where something ties them, in the order of their first note."""
    parent = list(range(len(notes)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[Hashable, int] = {}
    ids = Counter(note.note_id for note in notes)
    for i, note in enumerate(notes):
        for tie in _ties(note, ids):
            one, other = root(first.setdefault(tie, i)), root(i)
            parent[max(one, other)] = min(one, other)
    groups = defaultdict(list)
    for i in range(len(notes)):
        groups[root(i)].append(i)
    return list(groups.values())


def _ties(note: Note, ids: Counter[str]) -> Iterator[Hashable]:
    """What ties a note to others: its texts, its patient, its id as it was before `#2` told it apart."""
    for text in (note.correct_note, note.incorrect_note):
        if text is not None:
            yield "text", text_key(text)
    if note.patient is not None:
        yield "patient", note.patient
    before = re.sub(r"#\d+\Z", "", note.note_id)
    yield "id", before if before in ids else note.note_id
