"""What the files of the sample notes, and of more notes of the same kind, are called."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

LARGER_TEST = "medec_larger_test.jsonl"
"""A thousand test pairs more, for what 364 are too few to tell: built when wanted, never trained or chosen on."""

FURTHER_TRAIN = "medec_further_train_sample.jsonl"
"""Training pairs on the same facts in other words: what the shipped adapter is taught from besides the sample."""

UNTAUGHT = "medec_untaught_sample.jsonl"
REWORDED_TEST = "medec_reworded_test_sample.jsonl"
"""Correct notes of the facts that nobody is taught, for play to teach, and test pairs of these facts in other words."""

SampleSplit = Literal["train", "validation", "test"]


def is_sample(source: str) -> bool:
    """Whether a source of notes is the sample, by its name or by the name of one of its files."""
    return source == "sample" or Path(source).match("medec_*_sample.jsonl") or Path(source).name == LARGER_TEST
