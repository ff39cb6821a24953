"""Notes that name a side: each pair's error is that the right one has become the left."""

from __future__ import annotations

from medserl.game.note import Note

TEXTS = (
    "A man has fever. His right lung is dull. He is given amoxicillin.",
    "A woman of 54 years has a cough. Her right leg is red and warm.",
    "A boy has a sore throat. His right ear hurts. He does not sleep.",
    "A girl fell on her right hand. It is swollen. An x-ray is taken.",
    "A man has a headache. His right eye is red. The lamp hurts him.",
    "A woman has a rash. It is on her right arm. She feels well.",
)
NOTES = [Note(f"n{i}", text, text.replace("right", "left")) for i, text in enumerate(TEXTS)]
