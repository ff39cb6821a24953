"""Where the sample notes are: in the repository's `data/`, or, with a wheel, built once in the cache."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Literal, get_args

from filelock import FileLock

from medserl import __version__
from medserl.errors import DataError
from medserl.files import cache_dir

LARGER_TEST = "medec_larger_test.jsonl"
"""A thousand test pairs more, for what 364 are too few to tell: built when wanted, never trained or chosen on."""

FURTHER_TRAIN = "medec_further_train_sample.jsonl"
"""Training pairs on the same facts in other words: what the shipped adapter is taught from besides the sample."""

UNTAUGHT = "medec_untaught_sample.jsonl"
REWORDED_TEST = "medec_reworded_test_sample.jsonl"
"""Correct notes of the facts that nobody is taught, for play to teach, and test pairs of these facts in other words."""

SampleSplit = Literal["train", "validation", "test"]

_REPOSITORY_DATA = Path(__file__).resolve().parents[2] / "data"


def sample_path(split: SampleSplit) -> Path:
    """The file of sample notes of a split.

    Raises:
        DataError: no such split, or the cache folder cannot be written.
    """
    if split not in get_args(SampleSplit):
        raise DataError(f"no sample notes called {split!r}; there are {', '.join(get_args(SampleSplit))}")
    name = f"medec_{split}_sample.jsonl"
    in_repository = _REPOSITORY_DATA / name
    return in_repository if in_repository.is_file() else _cached_corpus() / name


def is_sample(source: str) -> bool:
    """Whether a source of notes is the sample, by its name or by the name of one of its files."""
    return source == "sample" or Path(source).match("medec_*_sample.jsonl") or Path(source).name == LARGER_TEST


def _cached_corpus() -> Path:
    """The folder of the sample files of this version, built where it is not there yet."""
    folder = cache_dir() / f"sample-notes-{__version__}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                _build(folder)
    except OSError as error:
        raise DataError(
            f"{folder}: the sample notes cannot be written there ({error.strerror or error}); "
            "free some space, or set MEDSERL_CACHE to another folder"
        ) from None
    return folder


def _build(folder: Path) -> None:
    """Builds beside `folder` and renames at the end, so that a folder that is there is complete."""
    from medserl.data.corpus import write_corpus

    part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        write_corpus(part)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)  # nothing is left there unless building failed
