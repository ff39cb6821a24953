"""Where the settings of a command come from: flags, then `MEDSERL_<SETTING>`, then the file of `--config`.

Cyclopts puts them together, each source in what the ones before it left open. Here is which sources there are, and
what is refused in them.
"""

from __future__ import annotations

from typing import Any

from cyclopts import App, ArgumentCollection, CycloptsError
from cyclopts.config import Dict, Env

from medserl.config import PREFIX, check_variables, read_config

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
