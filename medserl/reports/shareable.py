"""A run's files without what nobody else may read: no notes' ids, and files by name, without their folders."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medserl.models.base_names import is_hub_name, last_part
from medserl.reports.run_files import RunFiles

_ABSOLUTE = re.compile(r"(?:~|(?<![\w.])[A-Za-z]:)?[\\/](?:[^\\/\n]+[\\/])+")
"""The folders of an absolute path inside a sentence: `split of /home/her/ward 3/notes.csv (12 notes)`."""
_HUB_SOURCE = "hf:"
_MODEL = "model"


def without_notes(run: RunFiles) -> RunFiles:
    """The same run, its settings and records fit to be handed on.

    Its games are still those of the run, for the figures that are counted from them: a page must not show them. Lists
    in the records, as the ids of the notes held out, become their length; paths become names.
    """
    paths = {str(value) for value in run.settings.values() if isinstance(value, str) and _is_path(value)}
    folders = sorted(paths, key=len, reverse=True)  # a path that begins another comes after it
    return replace(
        run,
        path=Path(run.path.resolve().name),
        settings={name: _setting(name, value) for name, value in run.settings.items()},
        provenance=_plain(run.provenance, folders),
        cross_play=run.cross_play,  # counts, names of run folders, and the notes' file without its folder
        evaluation=_plain(run.evaluation, folders),
        other_evaluations=tuple(_words(line, folders) for line in run.other_evaluations),
    )


def _setting(name: str, value: Any) -> Any:
    if not isinstance(value, str) or not _is_path(value) or (name == _MODEL and is_hub_name(value)):
        return value
    return last_part(value)


def _is_path(value: str) -> bool:
    return ("/" in value or "\\" in value) and not value.startswith(_HUB_SOURCE)


def _plain(tree: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    return {name: _value(name, value, paths) for name, value in tree.items()}


def _value(name: str, value: Any, paths: Sequence[str]) -> Any:
    if isinstance(value, Mapping):
        return _plain(value, paths)
    if isinstance(value, list):
        return f"{len(value):,} entries"
    if not isinstance(value, str):
        return value
    if " " not in value or value in paths:
        return _setting(name, value)
    return _words(value, paths)


def _words(sentence: str, paths: Sequence[str]) -> str:
    for path in paths:
        sentence = sentence.replace(path, last_part(path))
    return _ABSOLUTE.sub("", sentence)
