"""A model's control tokens: which they are, and how a note that spells one is kept from saying it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from medserl.game.markup import MARKUP
from medserl.models.template import ChatTemplate

_SIGNS = re.compile(r"[<>\[\]{}|｜◁▷]")
_ROLE_WORDS = re.compile(r"(?:#+ ?)?\b[A-Z]\w*(?: [A-Z]\w*){0,3}:")
"""`USER:`, `### Response:`, as templates without control tokens begin a turn."""


class ControlTokens:
    """The special tokens of a tokenizer, those of its other added ones that are no plain words or white space
    (`<think>`, but no run of blanks), and the markup that the chat template spells as ordinary text.
    """

    def __init__(self, tokenizer: Any, template: ChatTemplate) -> None:
        self._tokenizer = tokenizer
        self.ids = _added_control_tokens(tokenizer, template.source)
        self._known = frozenset(self.ids.values())
        self._markup = _any_of({*self.ids, *MARKUP.findall(template.source + template.scaffold)}, re.IGNORECASE)
        self._role_words = _any_of(_ROLE_WORDS.findall(template.scaffold))

    def __contains__(self, token_id: int) -> bool:
        return token_id in self._known

    def first_of(self, text: str) -> int | None:
        """The control token that the text begins with, white space aside."""
        for token_id in self._tokenizer(text.lstrip(), add_special_tokens=False)["input_ids"]:
            if token_id in self:
                return int(token_id)
            if self._tokenizer.decode([token_id]).strip():
                return None
        return None

    def as_plain_text(self, text: str) -> str:
        """The text with a blank inside whatever would become, or looks like, a control token: `< |im_end|>`.

        Breaking one may bring another to light, so this goes on until none is left.
        """
        text = self._role_words.sub(lambda found: f"{found[0][:-1]} :", text)
        found = 1
        while found:
            text, found = self._markup.subn(lambda match: _broken(match[0]), text)
        while spans := self._spans(text):
            for start, end in reversed(spans):
                text = text[:start] + _broken(text[start:end]) + text[end:]
        return text

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """Where the tokenizer finds control tokens, once its normalizer has made something else of the text.

        To a tokenizer without one, and to those outside of the Rust library, the spelling is all. The token of unknown
        words stands for any that is not known: it alone need not be spelled.
        """
        if getattr(getattr(self._tokenizer, "backend_tokenizer", None), "normalizer", None) is None:
            return []
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        places = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        said = self._known - {self._tokenizer.unk_token_id}
        return [(start, end) for token_id, (start, end) in places if token_id in said]


def _added_control_tokens(tokenizer: Any, source: str) -> dict[str, int]:
    """Ids by spelling. A token of a single character cannot be broken, and is none."""
    found = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    for token_id, token in getattr(tokenizer, "added_tokens_decoder", {}).items():
        spelling = token.content.strip()
        in_template = spelling in source and not re.fullmatch(r"[\w\s]*", spelling)
        if token.special or in_template or _SIGNS.search(spelling):
            found[token.content] = token_id
    return {text: token_id for text, token_id in found.items() if len(text.strip()) > 1}


def _any_of(texts: Iterable[str], flags: int = 0) -> re.Pattern[str]:
    """A pattern of them all, the longest first; of none, one that is found nowhere."""
    ordered = sorted({text.strip() for text in texts}, key=lambda text: (-len(text), text))
    return re.compile("|".join(map(re.escape, ordered)) or r"(?!)", flags)


def _broken(token: str) -> str:
    spelling = token.lstrip()
    return f"{token[: len(token) - len(spelling)]}{spelling[:1]} {spelling[1:]}" if len(spelling) > 1 else ""
