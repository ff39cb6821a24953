"""The prompts of both roles, read from one TOML file: `brief`, `full`, or a path of your own in the same form."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TypedDict

from medserl.errors import ConfigError
from medserl.game.parsing import InjectorFormat, number_sentences
from medserl.game.roles import Mode, Role

SHIPPED = ("brief", "full")


class Message(TypedDict):
    """One message of a chat, as every chat template takes it."""

    role: str
    content: str


Messages = tuple[Message, ...]


@dataclass(frozen=True)
class PromptSet:
    """Renders each role's messages. `form` is what the Injector is asked to write (DESIGN, section 9)."""

    form: InjectorFormat
    error_types: dict[str, str]
    assessor_system: str
    assessor_user: str
    injector_system: str
    injector_user: dict[Mode, str]
    assessor_tokens: int
    injector_tokens: int

    def assessor(self, note: str) -> Messages:
        """What the Assessor sees: the modified note, and nothing else of the game."""
        return _chat(self.assessor_system, self.assessor_user, note=note)

    def injector(self, note: str, mode: Mode, error_type: str | None) -> Messages:
        """What the Injector sees: the original note, its mode and, in error mode, the type of error to make."""
        shown = number_sentences(note) if self.form == "edit" else note
        named = self.error_types.get(error_type, error_type) if error_type else "medical"
        return _chat(self.injector_system, self.injector_user[mode], note=shown, error_type=named)

    def completion_tokens(self, role: Role, notes: Sequence[str]) -> int:
        """Room for a role's completion; one that holds a whole note needs about a token for three characters."""
        if role == "assessor":
            return self.assessor_tokens
        whole_note = max(map(len, notes), default=0) // 3 if self.form == "note" else 0
        return self.injector_tokens + whole_note


def load_prompts(name: str, form: InjectorFormat) -> PromptSet:
    """The prompt set called `name`, or the one in the TOML file at that path.

    Raises:
        ConfigError: there is no such set or file, or it lacks an entry or holds an unknown `$placeholder`.
    """
    where = files(__package__).joinpath(f"{name}.toml") if name in SHIPPED else Path(name)
    try:
        table = tomllib.loads(where.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"prompts: no file {name!r}; give one of {', '.join(SHIPPED)} or a TOML file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"prompts: {name}: {error}") from None
    try:
        injector = table["injector"][form]
        prompts = PromptSet(
            form=form,
            error_types=dict(table["error_types"]),
            assessor_system=table["assessor"]["system"],
            assessor_user=table["assessor"]["user"],
            injector_system=injector["system"],
            injector_user={"error": injector["error"], "benign": injector["benign"]},
            assessor_tokens=table["assessor"]["max_new_tokens"],
            injector_tokens=injector["max_new_tokens"],
        )
        prompts.assessor("probe")
        prompts.injector("probe", "error", "diagnosis")
        prompts.injector("probe", "benign", None)
    except KeyError as error:
        raise ConfigError(f"prompts: {name}: no entry or unknown placeholder {error}") from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"prompts: {name}: {error}; write a dollar sign as $$") from None
    return prompts


def _chat(system: str, user: str, **values: str) -> Messages:
    content = Template(user).substitute(values).strip()
    return ({"role": "system", "content": system}, {"role": "user", "content": content})
