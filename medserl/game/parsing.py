"""Strict readers of what a role wrote. Only a completion is ever parsed, never a prompt or a note."""

from __future__ import annotations

import re
from typing import Literal

from medserl.game.roles import Verdict
from medserl.game.text import split_sentences

InjectorFormat = Literal["edit", "note"]

# ASCII: otherwise IGNORECASE lets the letter İ stand for an I.
_ANSWER_KEY = re.compile(r"final[_ ]answer", re.IGNORECASE | re.ASCII)
_ANSWER_LINE = re.compile(
    r"^[ \t>*_#`-]*final[_ ]answer[ \t*_`\"']*[:=][ \t*_`\"']*(CORRECT|INCORRECT)[ \t\r*_`\"'.]*$",
    re.IGNORECASE | re.MULTILINE | re.ASCII,
)
_NOTE = re.compile(r"<note>(.*?)</note>", re.DOTALL)
_NUMBERED_SENTENCE = re.compile(r"(\d{1,4})[.):]?[ \t]+(\S[^\r\n]*)")


def visible(completion: str) -> str:
    """The completion without hidden thinking. Thinking that never ended leaves nothing to see."""
    _, opened, after = completion.rpartition("</think>")
    if opened:
        return after
    return completion.split("<think>", 1)[0]


def parse_verdict(completion: str) -> Verdict | None:
    """The verdict, if the completion states `final_answer: CORRECT` or `final_answer: INCORRECT` exactly once.

    Prose, a second answer, or an answer with anything else on its line is no verdict.
    """
    text = visible(completion)
    if len(_ANSWER_KEY.findall(text)) != 1:
        return None
    match = _ANSWER_LINE.search(text)
    if match is None:
        return None
    return "INCORRECT" if match.group(1).upper() == "INCORRECT" else "CORRECT"


def parse_injection(completion: str, original: str, form: InjectorFormat) -> str | None:
    """The modified note that an Injector's completion stands for, or None where it holds none.

    `note`: the text of the one `<note>...</note>`. `edit`: one line, the number of a sentence of `original` and its
    new text, which is put in that sentence's place.
    """
    text = visible(completion).strip()
    if form == "note":
        notes = _NOTE.findall(text)
        return notes[0].strip() or None if len(notes) == 1 else None
    match = _NUMBERED_SENTENCE.fullmatch(text)
    if match is None:
        return None
    number, sentence = int(match.group(1)), match.group(2).rstrip()
    return replace_sentence(original, number, sentence)


def replace_sentence(note: str, number: int, sentence: str) -> str | None:
    """`note` with its sentence `number` (counted from 0, as MEDEC does) replaced; None where there is none such."""
    spans = split_sentences(note)
    if not 0 <= number < len(spans):
        return None
    span = spans[number]
    return note[: span.start] + sentence + note[span.end :]


def number_sentences(note: str) -> str:
    """The note as numbered lines, one sentence a line: what the Injector sees in the `edit` form."""
    return "\n".join(
        f"{i} {' '.join(note[span.start : span.end].split())}" for i, span in enumerate(split_sentences(note))
    )
