"""A model's own chat template, rendered whatever it can and cannot do, the same on every day."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

from medserl.errors import ModelError

DATE = datetime(2024, 7, 26)
"""Today, to templates that print it (Llama 3, SmolLM3, gpt-oss): the day that Llama 3's own falls back to.

One day for all prompts ever: with the real one, resuming a run or an evaluation after midnight would ask other
prompts, a warm-up would be for yesterday's, and no figure could be made again.
"""

USER, REPLY = "Qx7 asks this.", "Qx7 answers that."
"""Words of a probe, found again in what the template makes of them."""

_CLOCK = "strftime_now"
_DATE_LETTERS = "aAbBcdDeFGhHIjklmMnpPrRsStTuUVwWxXyYzZ"
"""Codes of strftime, as Python's and the C library's manuals list them."""


class ChatTemplate:
    """Renders chats for one tokenizer. `thinking` is handed on to templates that know such a switch.

    Raises:
        ModelError: there is no template, it cannot be rendered, or it does not show what the user says.
    """

    def __init__(self, tokenizer: Any, thinking: bool = False) -> None:
        self.name = str(getattr(tokenizer, "name_or_path", "") or "the model")
        self._tokenizer = tokenizer
        self.switches = {"enable_thinking": thinking, "thinking": thinking}  # Qwen3 and SmolLM3; Granite and DeepSeek
        self.source = _source(tokenizer)
        if not self.source:
            raise ModelError(
                f"{self.name}: the tokenizer has no chat template; "
                "use an instruction-tuned model, or add chat_template.jinja to its folder"
            )
        self.dated = f"{_clock_that_stands()}{_default(tokenizer)}" if _CLOCK in self.source else None
        self.in_parts = self._wants_parts()
        self.has_system_role = self._shows({"role": "system", "content": REPLY}, {"role": "user", "content": USER})

    def render(self, chat: Sequence[dict[str, str]]) -> str:
        """The chat as text, up to where the assistant is to speak next."""
        try:
            return self._apply(chat, self.in_parts, True)
        except Exception as error:  # a template is a program, and may fail as any program
            raise self._broken(error) from error

    @cached_property
    def prompt(self) -> str:
        """A short prompt, to see how prompts end."""
        return self.render([{"role": "user", "content": USER}])

    @cached_property
    def after_reply(self) -> tuple[str, ...]:
        """What follows on the assistant's words: where they are the chat's last, and where the user goes on.

        Empty where the template has no place for them.
        """
        asked, answered = {"role": "user", "content": USER}, {"role": "assistant", "content": REPLY}
        found = []
        for chat in ([asked, answered], [asked, answered, asked]):
            try:
                _, shown, after = self._apply(chat, self.in_parts, False).rpartition(REPLY)
            except Exception:  # noqa: BLE001  # prompts render: only what follows a reply stays unknown
                continue
            if shown:
                found.append(after)
        return tuple(found)

    @cached_property
    def scaffold(self) -> str:
        """All that the template itself says around the words of a short chat."""
        system = [{"role": "system", "content": REPLY}] if self.has_system_role else []
        shown = self.render([*system, {"role": "user", "content": USER}])
        return "\n".join((shown, *self.after_reply)).replace(USER, "\n").replace(REPLY, "\n")

    def _apply(self, chat: Sequence[dict[str, str]], in_parts: bool, prompt: bool) -> str:
        messages: list[dict[str, Any]] = [dict(message) for message in chat]
        if in_parts:
            messages = [{**each, "content": [{"type": "text", "text": each["content"]}]} for each in messages]
        shown: str = self._tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=prompt,
            chat_template=self.dated,
            **self.switches,
        )
        return shown

    def _wants_parts(self) -> bool:
        """Whether the template takes a message's content as a list of parts alone, as some of multimodal models do."""
        asked = [{"role": "user", "content": USER}]
        failure: Exception | None = None
        for in_parts in (False, True):
            try:
                if USER in self._apply(asked, in_parts, True):
                    return in_parts
            except Exception as error:  # noqa: BLE001  # a template is a program, and may fail as any program
                failure = failure or error
        if failure:
            raise self._broken(failure) from failure
        raise ModelError(f"{self.name}: its chat template does not show what the user says")

    def _shows(self, *chat: dict[str, str]) -> bool:
        try:
            shown = self._apply(chat, self.in_parts, True)
        except Exception:  # noqa: BLE001  # it refuses the role, in whatever words
            return False
        return all(message["content"] in shown for message in chat)

    def _broken(self, error: Exception) -> ModelError:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        line = getattr(error, "lineno", None)
        where = f", line {line}" if line else ""
        return ModelError(f"{self.name}: its chat template cannot be rendered{where}: {reason}")


def _clock_that_stands() -> str:
    """A macro in place of the `strftime_now` that templates call: transformers hands no functions on to them."""
    known = {code: DATE.strftime(code) for code in ("%-d", "%-m", *(f"%{letter}" for letter in _DATE_LETTERS))}
    replaced = "".join(f".replace({code!r}, {text!r})" for code, text in known.items())
    return f"{{% macro {_CLOCK}(format) %}}{{{{ format{replaced}.replace('%%', '%') }}}}{{% endmacro %}}"


def _default(tokenizer: Any) -> str:
    template = tokenizer.chat_template
    return str(template.get("default", "")) if isinstance(template, dict) else str(template)


def _source(tokenizer: Any) -> str:
    """The template's own text; of several under names, all of them."""
    template = getattr(tokenizer, "chat_template", None)
    return "\n".join(template.values()) if isinstance(template, dict) else template or ""
