"""What a model's completion says: its answer, and its hidden thinking between `<think>` and `</think>`.

Models mark thinking with control tokens of their own, which decoding would drop or leave as they are. Here they are
read as tokens, so the rest of MedSeRL knows one form (`game.thinking`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from medserl.game.thinking import CLOSE, CLOSES, OPEN, OPENS
from medserl.models.control import ControlTokens

_ANSWER_CHANNEL = "final"
_GEMMA = {"<|channel>": OPEN, "<channel|>": CLOSE}


class Speech:
    """Reads the completions of one model. `prompt` is the text of any prompt: what matters is how it ends."""

    def __init__(self, tokenizer: Any, control: ControlTokens, prompt: str) -> None:
        self._tokenizer = tokenizer
        ids = control.ids
        marks = {text: _GEMMA.get(text.strip()) or _mark(text.strip()) for text in ids}
        self._marks = {ids[text]: mark for text, mark in marks.items() if mark}
        spelled = {mark: text.strip() for text, mark in marks.items() if mark}
        self._open, self._close = spelled.get(OPEN, OPEN), spelled.get(CLOSE, CLOSE)
        *_, last = [None, *OPENS.finditer(prompt)]
        self._opened = last is not None and not prompt[last.end() :].strip()
        self._channels = _Channels(tokenizer, ids, prompt) if {"<|channel|>", "<|message|>"} <= ids.keys() else None

    @property
    def never_ends(self) -> frozenset[int]:
        """Tokens that end a part of a completion, after which the model goes on."""
        return frozenset([self._channels.end]) if self._channels else frozenset()

    @property
    def opener(self) -> str:
        """What must be said first where nothing is thought: the end of an opened thought, the channel of answers."""
        if self._channels:
            return self._channels.opener
        return f"\n{self._close}\n\n" if self._opened else ""

    def text(self, token_ids: Sequence[int]) -> str:
        """The completion, without the token that ended it; thinking stands between `<think>` and `</think>`."""
        if self._channels:
            return self._channels.text(token_ids)
        parts = [OPEN if self._opened else ""]
        run: list[int] = []
        for token_id in token_ids:
            if token_id in self._marks:
                parts += [self._decode(run), self._marks[token_id]]
                run = []
            else:
                run.append(token_id)
        return "".join([*parts, self._decode(run)])

    def own_words(self, text: str) -> str:
        """A completion's text, or its beginning, as the model itself spells it after its prompt."""
        thought, closed, answer = text.rpartition(CLOSE)
        if not closed:
            return self.opener + text
        opening = self._open if thought.startswith(OPEN) and not self._opened else ""
        thought = thought.removeprefix(OPEN)
        if self._channels:
            return self._channels.spell(thought, answer)
        return f"{opening}{thought}{self._close}{answer}"

    def _decode(self, token_ids: Sequence[int]) -> str:
        return self._tokenizer.decode(token_ids, skip_special_tokens=True) if token_ids else ""


class _Channels:
    """The harmony format (gpt-oss): messages on channels, of which `final` alone is the answer.

    A message is `<|start|>role<|channel|>NAME<|message|>TEXT` and ends with `<|end|>`, `<|return|>` or `<|call|>`; the
    prompt says `<|start|>assistant` already, or more.
    """

    def __init__(self, tokenizer: Any, ids: dict[str, int], prompt: str) -> None:
        self._tokenizer = tokenizer
        self._channel, self._message = ids["<|channel|>"], ids["<|message|>"]
        self._start, self.end = ids.get("<|start|>", -1), ids.get("<|end|>", -1)
        self._ends = {self._start, self.end, ids.get("<|return|>", -1), ids.get("<|call|>", -1)}
        begun = prompt.rpartition("<|start|>")[2]
        self._begun = tokenizer(begun, add_special_tokens=False)["input_ids"]
        self.opener = "" if "<|message|>" in begun else f"<|channel|>{_ANSWER_CHANNEL}<|message|>"

    def text(self, token_ids: Sequence[int]) -> str:
        hidden: list[str] = []
        answers: list[str] = []
        for channel, body in self._messages([*self._begun, *token_ids]):
            name, is_answer = self._decode(channel), body is not None
            found = answers if is_answer and (not name or name.startswith(_ANSWER_CHANNEL)) else hidden
            found.append(self._decode(body or ()))
        if not hidden:
            return "\n".join(answers) if answers else self._decode(token_ids)  # the latter speaks without channels
        return OPEN + "\n".join(hidden) + (CLOSE + "\n".join(answers) if answers else "")

    def spell(self, thought: str, answer: str) -> str:
        between = f"<|end|><|start|>assistant<|channel|>{_ANSWER_CHANNEL}<|message|>"
        return f"<|channel|>analysis<|message|>{thought}{between}{answer}"

    def _messages(self, token_ids: Sequence[int]) -> Iterator[tuple[list[int], list[int] | None]]:
        """Channel and body of each message that has begun to name one of them; None for a body that never came."""
        channel: list[int] = []
        body: list[int] | None = None
        role: list[int] = []
        into = role
        for token_id in [*token_ids, self.end]:
            if token_id in self._ends:
                if into is not role:
                    yield channel, body
                channel, body, into = [], None, role
            elif token_id == self._channel:
                channel = into = []
            elif token_id == self._message:
                body = into = []
            else:
                into.append(token_id)

    def _decode(self, token_ids: Sequence[int]) -> str:
        return self._tokenizer.decode(token_ids, skip_special_tokens=True).strip() if token_ids else ""


def _mark(token: str) -> str | None:
    return OPEN if OPENS.fullmatch(token) else CLOSE if CLOSES.fullmatch(token) else None
