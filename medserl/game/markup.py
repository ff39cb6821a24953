"""Markup of control tokens in text: what chat templates put around turns and thoughts, and no clinician writes."""

from __future__ import annotations

import re
from collections import Counter

MARKUP = re.compile(
    r"<\|[^\s<>|]{1,64}\|?>|<[^\s<>|]{1,64}\|>"  # <|im_end|>, <|channel>, <channel|>
    r"|</?[A-Za-z][\w:.-]{0,63}/?>|<0x[0-9A-Fa-f]{2}>"  # </s>, <start_of_turn>, <seed:think>, a byte
    r"|\[/\w{1,32}\]"  # [/INST]
    r"|\[(?:INST|THINK|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|ARGS|CALL_ID"
    r"|PREFIX|MIDDLE|SUFFIX|IMG|IMG_BREAK|IMG_END|gMASK|sMASK|CLS|SEP|UNK|BOS|EOS)\]"
    r"|◁/?\w{1,32}▷|\[\|[^\s\[\]|]{1,64}\|\]"  # ◁think▷, [|endofturn|]
    r"|\]~!?b[\[\]]|\[e~\["  # MiniMax
)
"""Every form in which the chat templates of known families spell a control token. `<5 mg` and `[sic]` are none."""

_ASCII = str.maketrans("＜＞｜［］／", "<>|[]/")


def markup_in(text: str) -> Counter[str]:
    """The markup that a text holds, and how often; full-width signs count as what they look like."""
    return Counter(MARKUP.findall(text.translate(_ASCII)))


def without_markup(text: str) -> str:
    """The text with a blank inside every such form: `< think>`."""
    found = 1
    while found:
        text, found = MARKUP.subn(lambda match: f"{match[0][0]} {match[0][1:]}", text)
    return text


def brings_markup(original: str, modified: str) -> bool:
    """Whether `modified` holds markup that `original` does not, or not as often."""
    return bool(markup_in(modified) - markup_in(original))
