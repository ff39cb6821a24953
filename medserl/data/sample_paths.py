"""Where the sample notes are: in the repository's `data/`, or, with a wheel, built once in the cache."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import get_args

from filelock import FileLock

from medserl import __version__
from medserl.data.sample_names import SampleSplit
from medserl.errors import DataError
from medserl.files import cache_dir

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
    from medserl.data.corpus import write_corpus  # only where it is built: the fact table is large

    part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        write_corpus(part)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)  # nothing is left there unless building failed
