"""Errors meant for people: each message is one line that says what, where, and what to do.

The command line prints such an error without a traceback and exits with code 2. Anything that is not a
`MedSeRLError` is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Sequence


class MedSeRLError(Exception):
    """Base of every error that a user can mend."""


class ConfigError(MedSeRLError):
    """A setting, flag or configuration file that cannot be used."""


class DataError(MedSeRLError):
    """A file of notes, or a row of one, that cannot be used."""


class ModelError(MedSeRLError):
    """A model, tokenizer or adapter that cannot be found, loaded or fitted to the data."""


class RunError(MedSeRLError):
    """A run that cannot start, go on, be written or be resumed."""


class OutputError(RunError):
    """A file or folder that cannot be written."""


def first_line(error: BaseException) -> str:
    """What another library's error says, in one line; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def listed(names: Sequence[str], most: int = 3) -> str:
    """Names for a message: `'a', 'b', 'c' and 4 more`, long ones cut."""
    shown = ", ".join(repr(shorten(name)) for name in names[:most])
    return (shown or "none") + (f" and {len(names) - most} more" if len(names) > most else "")


def shorten(text: str, most: int = 60) -> str:
    """The text, or its beginning and three dots."""
    return text if len(text) <= most else f"{text[: most - 3]}..."
