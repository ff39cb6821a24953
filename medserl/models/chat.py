"""Messages to token ids through a model's own chat template, and a model's tokens back to what it says."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from medserl.errors import ModelError
from medserl.game.episode import Completion, Turn
from medserl.game.prompts import Messages
from medserl.game.roles import Role
from medserl.models.control import ControlTokens
from medserl.models.spoken import Speech
from medserl.models.template import ChatTemplate

log = logging.getLogger("medserl")

REMEMBERED_CHARACTERS = 2_000_000
"""Characters of the prompts whose tokens are kept, about 25 MB with them: the retries of a round of many notes."""


class ChatRenderer:
    """Renders prompts for one tokenizer, and reads completions.

    A template without a system role gets the system text at the head of the first user message. `thinking` is handed
    to templates that know the switch (Qwen3's `enable_thinking`); others ignore it.

    Raises:
        ModelError: there is no template, it does not work, or no token ends a turn.
    """

    def __init__(self, tokenizer: Any, thinking: bool = False) -> None:
        self._tokenizer = tokenizer
        self._template = ChatTemplate(tokenizer, thinking)
        self._control = ControlTokens(tokenizer, self._template)
        self._speech = Speech(tokenizer, self._control, self._template.prompt)
        self.end_id = self._end_of_turn()
        self._remembered: dict[tuple[tuple[str, str], ...], tuple[int, ...]] = {}
        self._remembered_characters = 0

    def text(self, messages: Messages) -> str:
        """The prompt as text. A note that spells a control token, such as the end of a turn, does not say it."""
        chat = [
            {"role": message["role"], "content": self._control.as_plain_text(message["content"])}
            for message in messages
        ]
        if not self._template.has_system_role and chat[0]["role"] == "system" and len(chat) > 1:
            system = chat.pop(0)["content"]
            chat[0]["content"] = f"{system}\n\n{chat[0]['content']}"
        return self._template.render(chat)

    def ids(self, messages: Messages) -> tuple[int, ...]:
        """Token ids of the prompt, the header of the assistant's turn included."""
        key = tuple((message["role"], message["content"]) for message in messages)
        if key not in self._remembered:
            characters = sum(len(content) for _, content in key)
            if self._remembered_characters + characters > REMEMBERED_CHARACTERS:
                self._remembered, self._remembered_characters = {}, 0
            self._remembered[key] = self._encode(self.text(messages))
            self._remembered_characters += characters
        return self._remembered[key]

    def prompt_length(self, messages: Messages) -> int:
        """Tokens of the prompt, which is not kept: for measuring many notes of which few are played at a time."""
        return len(self._encode(self.text(messages)))

    def reply_ids(self, text: str) -> tuple[int, ...]:
        """Token ids of the answer `text` after the prompt, as far as it goes.

        Where a prompt opens a thought, they close it first; where answers have a channel, they name it.
        """
        return self._encode(self._speech.opener + self._control.as_plain_text(text))

    def spoken_ids(self, text: str) -> tuple[int, ...]:
        """Token ids of what `completion_text` gave, or of its beginning: the model's own words, thinking included."""
        return self._encode(self._speech.own_words(text))

    def completion_text(self, token_ids: Sequence[int]) -> str:
        """What a completion says, without the token that ended it. Thinking stands between `<think>` and `</think>`."""
        return self._speech.text(token_ids)

    def stop_ids(self, generation_config: Any = None) -> frozenset[int]:
        """Every token that ends a turn: the template's own, the tokenizer's and the generation config's, if given."""
        configured = generation_config.eos_token_id if generation_config else None
        given = configured if isinstance(configured, list | tuple) else [configured]
        ids = {self.end_id, self._tokenizer.eos_token_id, *(each for each in given if isinstance(each, int))}
        if any(not isinstance(each, int | None) for each in given):
            raise ModelError(f"{self._template.name}: its generation_config.json has no ids in eos_token_id: {given}")
        return frozenset(ids - {None} - self._speech.never_ends)

    def _end_of_turn(self) -> int:
        """The control token that the template sets after a reply; the tokenizer's end of text where it sets none.

        A base model with a chat template may name an `eos_token` that no turn ever ends with.
        """
        found = (self._control.first_of(after) for after in self._template.after_reply)
        ends = [each for each in found if each is not None and each not in self._speech.never_ends]
        if ends:
            return int(ends[0])
        if self._tokenizer.eos_token_id is None:
            raise ModelError(
                f"{self._template.name}: no token ends a turn, in the chat template or as eos_token; "
                "set eos_token in tokenizer_config.json"
            )
        _tell_of_end(self._template.name, str(self._tokenizer.eos_token))
        return int(self._tokenizer.eos_token_id)

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])


@lru_cache(maxsize=32)
def _tell_of_end(name: str, token: str) -> None:
    """Once for a model: what ends its turns is a guess."""
    log.warning("%s: its chat template shows no end of a reply, so a turn ends with the eos_token, %s", name, token)


def target_turns(chat: ChatRenderer, role: Role, prompts: Sequence[Messages], replies: Sequence[str]) -> list[Turn]:
    """The replies as turns, each ended as a turn ends; nobody sampled them, so there are no log-probabilities."""
    turns = []
    for messages, reply in zip(prompts, replies, strict=True):
        token_ids = (*chat.reply_ids(reply), chat.end_id)
        turns.append(Turn(role, messages, Completion(reply, chat.ids(messages), token_ids, (), "stop")))
    return turns


def stop_token_ids(generation_config: Any, tokenizer: Any) -> frozenset[int]:
    """Every token that ends a turn: the chat template's, the tokenizer's and those of the generation config."""
    return ChatRenderer(tokenizer).stop_ids(generation_config)


def check_context(prompts: Sequence[Sequence[int]], rooms: Sequence[int], limit: int | None) -> None:
    """Raises ModelError where a prompt and its answer, of as many tokens as its room, may not fit into the `limit`
    tokens of a model's context."""
    needs = [(len(prompt), room) for prompt, room in zip(prompts, rooms, strict=True)]
    longest, room = max(needs, key=sum, default=(0, 0))
    if limit and longest + room > limit:
        raise ModelError(
            f"a note's prompt has {longest} tokens and may be answered with {room}, but the model's "
            f"context holds {limit}; leave such notes out, shorten them or use a model with a longer context"
        )
