"""The prompts of both roles, read from one TOML file: `term`, `full`, or a path of your own."""

from __future__ import annotations

import reprlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, TypedDict

from medserl.errors import ConfigError
from medserl.game.answers import Difference
from medserl.game.markup import without_markup
from medserl.game.parsing import InjectorFormat, asked_for, note_sentences, number_sentences, numbered_lines
from medserl.game.roles import MODES, Mode, Role, Verdict
from medserl.game.toml_files import read_toml

SHIPPED = ("term", "full")

PLAIN_ANSWER = "final_answer: $verdict"


class Message(TypedDict):
    """One message of a chat, as every chat template takes it."""

    role: str
    content: str


Messages = tuple[Message, ...]


@dataclass(frozen=True)
class PromptSet:
    """Renders each role's messages. `form` is what the Injector is asked to write (docs/design.md, "Answers").

    All turns on a note begin alike: `system` is the message of both roles, and the note, as its numbered sentences,
    stands before the task in every shipped set, so that an engine can read it once for all of them.
    The Assessor is asked the same wherever it reads: in the game, in evaluation and of notes that nobody knows.
    """

    form: InjectorFormat
    error_types: dict[str, str]
    system: str
    assessor_user: str
    assessor_tokens: int
    injector_user: dict[Mode, str]
    injector_tokens: int
    answer: str = PLAIN_ANSWER
    reasons: bool = False
    """Whether the Assessor reasons in its own words before it answers: a supervised term on answers alone would
    train that away."""

    def assessor(self, note: str, sentences: Sequence[str] = ()) -> Messages:
        """What the Assessor sees: the modified note, and nothing else of the game.

        `sentences` are those of the source, such as MEDEC's own, else the note is split here.
        """
        return self._chat(self.assessor_user, note=numbered_lines(sentences or note_sentences(note)))

    @property
    def task(self) -> str:
        """What the Assessor is asked, without the note."""
        return Template(self.assessor_user).substitute(note="").strip()

    @property
    def subtasks(self) -> str:
        """Which of MEDEC's subtasks that asks: `A`, `AB` or `ABC`."""
        return asked_for(f"{self.task}\n{self.answer.strip()}")

    def gold_answer(self, verdict: Verdict, difference: Difference) -> str:
        """What the Assessor should reply, where it is known. It quotes no markup: `<think>` would begin a thought."""
        says, words = without_markup(difference.says), without_markup(difference.should_say)
        known = {"sentence": difference.sentence, "says": says, "words": words}
        return Template(self.answer).substitute(verdict=verdict, **known).strip()

    def injector(self, note: str, mode: Mode, error_type: str | None) -> Messages:
        """What the Injector sees: the original note, its mode and, in error mode, the type of error to make."""
        named = self.error_types.get(error_type, error_type) if error_type else "medical"
        return self._chat(self.injector_user[mode], note=number_sentences(note), error_type=named)

    def completion_tokens(self, role: Role) -> int:
        """Room for a role's completion: the Assessor's whole, the Injector's besides the words of the note."""
        return self.assessor_tokens if role == "assessor" else self.injector_tokens

    def repeated(self, note: str) -> tuple[str, ...]:
        """The texts of which an Injector's completion is one, but for a few words: a numbered sentence, or the note."""
        return tuple(number_sentences(note).split("\n")) if self.form == "edit" else (f"<note>{note}</note>",)

    def _chat(self, user: str, **values: str) -> Messages:
        content = Template(user).substitute(values).strip()
        return ({"role": "system", "content": self.system}, {"role": "user", "content": content})


def load_prompts(name: str, form: InjectorFormat) -> PromptSet:
    """The prompt set called `name`, or the one in the TOML file at that path.

    Raises:
        ConfigError: there is no such set or file; it lacks an entry, holds an unknown `$placeholder`, leaves the note
            out of a prompt, or the verdict out of the answer.
    """
    where = files(__package__).joinpath(f"{name}.toml") if name in SHIPPED else Path(name)
    try:
        table = read_toml(where, f"prompts: {name}")
    except FileNotFoundError:
        raise ConfigError(f"prompts: no file {name!r}; give one of {', '.join(SHIPPED)} or a TOML file") from None
    try:
        prompts = _prompt_set(table, form)
        _try_out(prompts)
    except KeyError as error:
        raise ConfigError(f"prompts: {name}: no entry or unknown placeholder {error}") from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"prompts: {name}: {error}") from None
    return prompts


_PROBE = "Probe of a note."


def _try_out(prompts: PromptSet) -> None:
    """Raises KeyError or ValueError where a prompt or an answer is not as the game needs it."""
    shown = {"assessor": prompts.assessor(_PROBE)}
    shown |= {f"injector ({mode})": prompts.injector(_PROBE, mode, "diagnosis") for mode in MODES}
    for which, messages in shown.items():
        if _PROBE not in messages[-1]["content"]:
            raise ValueError(f"the prompt of the {which} never shows the note; write $note where it belongs")
    difference = Difference(0, "probe", "probe")
    if prompts.gold_answer("CORRECT", difference) == prompts.gold_answer("INCORRECT", difference):
        raise ValueError("assessor.answer is the same for both verdicts; write $verdict in it")


def _prompt_set(table: Mapping[str, Any], form: InjectorFormat) -> PromptSet:
    """Raises KeyError with the dotted path of an entry that is missing, TypeError for one of another type."""
    injector = f"injector.{form}"
    return PromptSet(
        form=form,
        error_types={name: _text(table, f"error_types.{name}") for name in _entry(table, "error_types")},
        system=_text(table, "system"),
        assessor_user=_text(table, "assessor.user"),
        assessor_tokens=_room(table, "assessor.max_new_tokens"),
        injector_user={mode: _text(table, f"{injector}.{mode}") for mode in MODES},
        injector_tokens=_room(table, f"{injector}.max_new_tokens"),
        answer=_text(table, "assessor.answer") if "answer" in _entry(table, "assessor") else PLAIN_ANSWER,
        reasons=_entry(table, "assessor").get("reasons") is True,
    )


def _text(table: Any, path: str) -> str:
    value = _entry(table, path)
    if not isinstance(value, str):
        raise TypeError(f"{path}: expected string, not {reprlib.repr(value)}")
    try:
        Template(value).substitute(defaultdict(str))
    except ValueError as error:
        raise ValueError(f"{path}: {error}; write a dollar sign as $$") from None
    return value


def _room(table: Any, path: str) -> int:
    value = _entry(table, path)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise TypeError(f"{path}: expected a number of tokens, not {reprlib.repr(value)}")
    return value


def _entry(table: Any, path: str) -> Any:
    for name in path.split("."):
        if not isinstance(table, Mapping) or name not in table:
            raise KeyError(path)
        table = table[name]
    return table
