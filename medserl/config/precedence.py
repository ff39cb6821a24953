"""The settings of a command: which ones it reads, and where they come from.

They come from flags, then `MEDSERL_<SETTING>`, then the file of `--config`. Cyclopts puts them together, each source in
what the ones before it left open. Here is which sources there are, and what is refused in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cyclopts import App, ArgumentCollection, CycloptsError
from cyclopts.config import Dict, Env
from pydantic import BaseModel

from medserl.config import (
    PREFIX,
    DataSettings,
    GameSettings,
    ModelSettings,
    RolloutSettings,
    Settings,
    check_variables,
    read_config,
)

# -- which settings concern a command -----------------------------------------------------------------------


def _of(*sections: type[BaseModel]) -> set[str]:
    return {name for section in sections for name in section.model_fields}


_OF_A_TRAINED_MODEL = {"lora_rank", "lora_alpha", "lora_targets", "gradient_checkpointing"}
_OF_ROUNDS = {"rollout_batch_size", "max_epochs", "max_rounds"}
_SHOWN: Mapping[str, set[str]] = {
    "sft": (_of(ModelSettings, DataSettings, GameSettings, RolloutSettings) | {"eval_notes"}) - _OF_ROUNDS - {"engine"},
    "evaluate": (_of(ModelSettings, DataSettings, RolloutSettings) | {"prompts", "injector_format"})
    - _OF_A_TRAINED_MODEL
    - _OF_ROUNDS
    - {"max_new_tokens_injector"},
    "predict": (_of(ModelSettings) - _OF_A_TRAINED_MODEL)
    | {"note_column", "id_column", "prompts", "max_new_tokens_assessor", "generation_token_budget"},
    "serve": (_of(ModelSettings, GameSettings, RolloutSettings) | {"note_column", "id_column", "seed"})
    - _OF_A_TRAINED_MODEL
    - _OF_ROUNDS
    - {"edit_audit"},
    "play": (_of(ModelSettings, GameSettings, RolloutSettings) | {"seed"}) - _OF_A_TRAINED_MODEL - _OF_ROUNDS,
}


def concerns(command: str, setting: str) -> bool:
    """Whether the command reads the setting; the others are accepted, so that one file of settings serves them all."""
    return setting in _SHOWN.get(command, Settings.model_fields)


# -- where they come from ---------------------------------------------------------------------------------------

CONFIG_FLAG = "--config"
ENVIRONMENT = "environment"


def from_environment(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Raises ConfigError for a variable that begins as ours do and names no setting."""
    check_variables()
    Env(PREFIX, source=ENVIRONMENT, command=False, show=False)(app, commands, arguments)


def from_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Raises ConfigError for a file that is none, or that holds what is no setting."""
    for token in (token for argument in arguments if argument.name == CONFIG_FLAG for token in argument.tokens):
        settings = Dict(data=read_config(token.value), source=token.value, use_commands_as_keys=False)
        settings(app, commands, arguments)


def said_in(error: CycloptsError) -> str:
    """The variable or the file that the first wrong value is from; `settings` where it is a flag, or several are wrong
    together."""
    cause: Any = error.__cause__
    wrong = {".".join(map(str, each["loc"])) for each in cause.errors()[:1]}
    arguments = error.argument.children if error.argument else ()
    for token in (token for each in arguments if ".".join(each.keys) in wrong for token in each.tokens):
        if token.source == ENVIRONMENT:
            return str(token.keyword)
        if token.source != "cli":
            return str(token.source)
    return "settings"


SOURCES = (from_environment, from_file)
