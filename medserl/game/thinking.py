"""What of a completion is its answer, and what hidden thinking: the forms in which models write the latter.

Engines know a model's own control tokens and hand thinking on between `<think>` and `</think>`
(`engines.spoken`). The other forms are read here for models to which they are plain text.
"""

from __future__ import annotations

import re

OPEN, CLOSE = "<think>", "</think>"

_NAME = r"(?:\w{1,16}:)?(?:think|thinking|thoughts?|reasoning|reflection|scratchpad)"
OPENS = re.compile(
    rf"<{_NAME}>|\[THINK\]|◁think▷|<\|(?:begin_of_thought|start_thinking|inner_prefix)\|>|<unused94>(?:thought)?"
    r"|<\|channel\|?>\s?(?:thought|analysis|commentary)\b"
    r"|Here is my thought process:",  # Granite 3.2
    re.IGNORECASE | re.ASCII,
)
CLOSES = re.compile(
    rf"</{_NAME}>|\[/THINK\]|◁/think▷|<\|(?:end_of_thought|end_thinking|inner_suffix)\|>|<unused95>|<channel\|>"
    r"|<\|channel\|>\s?final\s?<\|message\|>|Here is my response:",
    re.IGNORECASE | re.ASCII,
)


def answer_span(completion: str) -> tuple[int, int]:
    """Where the answer stands: after the last thought that was closed, and before one that never is."""
    start = max((closed.end() for closed in CLOSES.finditer(completion)), default=0)
    opened = OPENS.search(completion, start)
    return start, opened.start() if opened else len(completion)


def without_thinking(completion: str) -> str:
    """The completion without hidden thinking. Thinking that never ended leaves nothing after it to see."""
    start, end = answer_span(completion)
    return completion[start:end]
