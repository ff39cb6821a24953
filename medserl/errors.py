"""Errors meant for people: each message is one line that says what, where, and what to do.

The command line prints such an error without a traceback and exits with code 2. Anything that is not a
`MedSeRLError` is a defect of ours and keeps its traceback.
"""


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
