"""Alternative replies to one prompt, compared token by token where they part; no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from medserl.game.episode import Completion, Turn
from medserl.game.prompts import Messages
from medserl.models.chat import ChatRenderer

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Alternatives:
    """Replies as tokens: what they share, the prompt first, and how each goes on."""

    context: Ids
    tails: tuple[Ids, ...]

    @property
    def room(self) -> int:
        """Tokens of the longest tail."""
        return max(map(len, self.tails))


def alternatives(chat: ChatRenderer, messages: Messages, replies: Sequence[str]) -> Alternatives:
    """The replies to a prompt in tokens. Each is cut into tokens whole, then what all begin with is taken off."""
    tokens = [chat.spoken_ids(reply) for reply in replies]
    shared = sum(1 for _ in takewhile(lambda each: len(set(each)) == 1, zip(*tokens, strict=False)))
    return Alternatives(chat.ids(messages) + tokens[0][:shared], tuple(ids[shared:] for ids in tokens))


def shares(logprobs: Sequence[float]) -> tuple[float, ...]:
    """Each alternative's part of the probability that all have together; sums to 1."""
    highest = max(logprobs)
    weights = [math.exp(logprob - highest) for logprob in logprobs]
    return tuple(weight / sum(weights) for weight in weights)


def probabilities_by_logprobs(
    chat: ChatRenderer,
    logprobs: Callable[[Sequence[Turn]], list[tuple[float, ...]]],
    prompts: Sequence[Messages],
    replies: Sequence[tuple[str, ...]],
) -> list[tuple[float, ...]]:
    """`InferenceEngine.reply_probabilities` by an engine's `logprobs`: each is read with its whole prompt again."""
    turns, counts = [], []
    for messages, texts in zip(prompts, replies, strict=True):
        choice = alternatives(chat, messages, texts)
        turns += [_turn(messages, choice.context, tail) for tail in choice.tails]
        counts.append(len(texts))
    sums = iter([sum(each) for each in logprobs(turns)])
    return [shares([next(sums) for _ in range(count)]) for count in counts]


def _turn(messages: Messages, context: Ids, tail: Ids) -> Turn:
    return Turn("assessor", messages, Completion("", context, tail, (), "stop"))
