"""MedSeRL: one language model learns to find medical errors in clinical notes by playing against itself."""

__version__ = "0.1.0"
