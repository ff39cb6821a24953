"""Reading MEDEC's own files, where they are."""

from __future__ import annotations

from collections import Counter

from medserl.data.readers import read_notes
from medserl.game.note import ERROR_TYPES


def letters(text: str) -> str:
    return "".join(text.split())


def test_medec_training_pairs(medec_dir):
    loaded = read_notes(medec_dir / "medec_ms_train_pairs.jsonl")
    assert len(loaded.notes) == 1219
    assert loaded.skipped == ()
    assert all(note.is_pair for note in loaded.notes)
    assert {note.error_type for note in loaded.notes} == set(ERROR_TYPES)


def test_medec_validation_set(medec_dir):
    path = medec_dir / "MEDEC-MS-ValidationSet-with-GroundTruth-and-ErrorType.csv"
    loaded = read_notes(path)
    pairs = [note for note in loaded.notes if note.is_pair]
    assert (len(loaded.notes), len(pairs), loaded.skipped) == (574, 319, ())
    assert Counter(note.error_type for note in pairs) == {
        **{"management": 168, "diagnosis": 86, "pharmacotherapy": 27, "treatment": 25},
        "causalOrganism": 13,
    }
    for note in pairs:
        assert note.sentences[note.error_sentence_id].split() == note.error_sentence.split()
    # But for spaces, the sentences put together are the text; in one note MEDEC's two forms differ by a sign.
    differing = [
        n for n in loaded.notes if letters("".join(n.sentences)) != letters(n.incorrect_note or n.correct_note)
    ]
    assert len(differing) == 1
