"""Messages to token ids through a model's own chat template, whatever that template can and cannot do."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError

from medserl.errors import ModelError
from medserl.game.episode import Completion, Turn
from medserl.game.prompts import Message, Messages
from medserl.game.roles import Role


class ChatRenderer:
    """Renders prompts for one tokenizer.

    A template without a system role gets the system text at the head of the first user message. `thinking` is handed
    to templates that know the switch (Qwen3's `enable_thinking`); others ignore it.
    """

    def __init__(self, tokenizer: Any, thinking: bool = False) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise ModelError(
                f"{tokenizer.name_or_path}: the tokenizer has no chat template; "
                "use an instruction-tuned model, or add chat_template.jinja to its folder"
            )
        self._tokenizer = tokenizer
        self._thinking = thinking
        self._special = [token for token in tokenizer.all_special_tokens if len(token) > 1]
        self._has_system_role = self._accepts_system()
        self.token_ids = lru_cache(maxsize=8192)(self._token_ids_uncached)

    def text(self, messages: Messages) -> str:
        chat = [{"role": message["role"], "content": self._as_plain_text(message["content"])} for message in messages]
        if not self._has_system_role and chat[0]["role"] == "system":
            system = chat.pop(0)["content"]
            chat[0]["content"] = f"{system}\n\n{chat[0]['content']}"
        return self._apply(chat)

    def _token_ids_uncached(self, key: tuple[tuple[str, str], ...]) -> tuple[int, ...]:
        messages = tuple(Message(role=role, content=content) for role, content in key)
        return tuple(self._tokenizer(self.text(messages), add_special_tokens=False)["input_ids"])

    def ids(self, messages: Messages) -> tuple[int, ...]:
        """Token ids of the prompt, the header of the assistant's turn included."""
        return self.token_ids(tuple((message["role"], message["content"]) for message in messages))

    def reply_ids(self, text: str) -> tuple[int, ...]:
        """Token ids of what the assistant says after the prompt, as far as `text` goes."""
        return tuple(self._tokenizer(self._as_plain_text(text), add_special_tokens=False)["input_ids"])

    def _as_plain_text(self, content: str) -> str:
        """A note that spells a control token, such as the end of a turn, must not become one."""
        for token in self._special:
            content = content.replace(token, f"{token[0]} {token[1:]}")
        return content

    def _apply(self, chat: list[dict[str, str]]) -> str:
        return self._tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=True, enable_thinking=self._thinking
        )

    def _accepts_system(self) -> bool:
        probe = "a system text that must be seen"
        try:
            shown = self._apply([{"role": "system", "content": probe}, {"role": "user", "content": "x"}])
        except TemplateError:
            return False
        return probe in shown


def recited(
    chat: ChatRenderer, end_id: int, role: Role, prompts: Sequence[Messages], replies: Sequence[str]
) -> list[Turn]:
    """The replies as turns, `end_id` at the end of each; nobody sampled them, so there are no log-probabilities."""
    turns = []
    for messages, reply in zip(prompts, replies, strict=True):
        token_ids = (*chat.reply_ids(reply), end_id)
        completion = Completion(reply, chat.ids(messages), token_ids, (), "stop")
        turns.append(Turn(role, messages, completion))
    return turns


def stop_token_ids(generation_config: Any, tokenizer: Any) -> frozenset[int]:
    """Every token that ends a turn: the tokenizer's and the ones of the generation config (Llama 3 has several)."""
    ids = {tokenizer.eos_token_id}
    configured = generation_config.eos_token_id if generation_config else None
    ids.update(configured if isinstance(configured, list) else [configured])
    ids.discard(None)
    return frozenset(ids)


def check_context(prompts: Sequence[Sequence[int]], max_new_tokens: int, limit: int | None) -> None:
    """Raises ModelError where a prompt and its answer may not fit into the `limit` tokens of a model's context."""
    longest = max(map(len, prompts), default=0)
    if limit and longest + max_new_tokens > limit:
        raise ModelError(
            f"a note's prompt has {longest} tokens and may be answered with {max_new_tokens}, but the model's "
            f"context holds {limit}; leave such notes out, shorten them or use a model with a longer context"
        )
