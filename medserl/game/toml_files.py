"""TOML files of a user's: settings, prompt sets."""

from __future__ import annotations

import tomllib
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from medserl.errors import ConfigError


def read_toml(file: Path | Traversable, what: str) -> dict[str, Any]:
    """The file's table; a byte order mark is skipped. `what` names the file in messages.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: it cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(file.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(f"{what}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{what}: byte {error.start + 1} is not UTF-8; save the file as UTF-8") from None
    except RecursionError:
        raise ConfigError(f"{what}: nested too deeply") from None
    except ValueError as error:  # no TOML, or a number of more digits than Python reads
        raise ConfigError(f"{what}: {error}") from None
