"""Strict readers of what a role wrote. Only a completion is ever parsed, never a prompt or a note."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rapidfuzz.distance import Levenshtein

from medserl.game.layout import laid_out_like
from medserl.game.markup import brings_markup
from medserl.game.roles import Verdict
from medserl.game.text import split_sentences
from medserl.game.thinking import answer_span, without_thinking
from medserl.game.vcf import MAX_WORD_EDITS

InjectorFormat = Literal["edit", "note"]

# ASCII: otherwise IGNORECASE lets the letter İ stand for an I.
_ANSWER_KEY = re.compile(r"final[_ ]answer", re.IGNORECASE | re.ASCII)
_ANSWER_LINE = re.compile(
    r"^[ \t>*_#`-]*final[_ ]answer[ \t*_`\"']*[:=][ \t*_`\"']*(CORRECT|INCORRECT)[ \t\r*_`\"'.]*$",
    re.IGNORECASE | re.MULTILINE | re.ASCII,
)


def _field(name: str, value: str) -> re.Pattern[str]:
    """A line `name: value` by itself, with the Markdown that models put around it."""
    return re.compile(
        rf"^[ \t>*_#`-]*{name}[ \t*_`]*[:=][ \t*_`]*({value})[ \t\r]*$", re.IGNORECASE | re.MULTILINE | re.ASCII
    )


_SENTENCE = _field("(?:error[_ ])?sentence", r"[\"'“]?\d{1,4}[*_`.\"'”]*")
_SAYS = _field("it[_ ]says", r"\S.*")
_SHOULD_SAY = _field("should[_ ]say", r"\S.*")
_CORRECTED = _field("corrected[_ ]sentence", r"\S.*")
_NUMBERED_SENTENCE = re.compile(r"(\d{1,4})[.):]?[ \t]+(\S[^\r\n]*)")


def parse_verdict(completion: str) -> Verdict | None:
    """The verdict, if the completion states `final_answer: CORRECT` or `final_answer: INCORRECT` exactly once.

    Prose, a second answer, or an answer with anything else on its line is no verdict.
    """
    text = without_thinking(completion)
    if len(_ANSWER_KEY.findall(text)) != 1:
        return None
    match = _ANSWER_LINE.search(text)
    if match is None:
        return None
    return "INCORRECT" if match.group(1).upper() == "INCORRECT" else "CORRECT"


def with_each_verdict(completion: str) -> tuple[str, str] | None:
    """The completion up to where it states its final answer, and there CORRECT, and there INCORRECT.

    Where it states none, the place is a line of its own at the end. None where there is no one place: several final
    answers, or hidden thinking that never ended.
    """
    start, end = answer_span(completion)
    if end < len(completion):
        return None
    stated = list(_ANSWER_KEY.finditer(completion, start))
    if len(stated) > 1:
        return None
    before = completion[: stated[0].start()] if stated else completion.rstrip()
    if before and not stated:
        before += "\n"
    return f"{before}final_answer: CORRECT", f"{before}final_answer: INCORRECT"


@dataclass(frozen=True)
class Answer:
    """What the Assessor answered: the flag, and of a note that it holds wrong the sentence and its correction (MEDEC's
    subtasks A, B and C), with the words that are wrong and those that should stand there. None: not answered."""

    verdict: Verdict | None
    error_sentence_id: int | None = None
    correction: str | None = None
    says: str | None = None
    should_say: str | None = None


def parse_answer(completion: str, sentences: Sequence[str], task: str = "") -> Answer:
    """What a completion answers about a note of these sentences, numbered from 0, to the words of a `task`.

    The verdict is that of `parse_verdict`. With an INCORRECT, the lines `sentence: NUMBER`, `it_says: WORDS` and
    `should_say: WORDS` count where there is exactly one of each, and a number where a sentence has it. The correction
    is that sentence with the words replaced; none where it does not say them. A prompt set of one's own may ask for
    `corrected_sentence: TEXT` instead. Words that only repeat the task are no answer.
    """
    verdict = parse_verdict(completion)
    if verdict != "INCORRECT":
        return Answer(verdict)
    shown = without_thinking(completion)
    stated = _only(_SENTENCE, shown)
    number = int(re.sub(r"\D", "", stated)) if stated else len(sentences)
    sentence = " ".join(sentences[number].split()) if number < len(sentences) else None
    says, should_say, corrected = (
        text and _own_words(text, sentence or "", task)
        for text in (_only(line, shown) for line in (_SAYS, _SHOULD_SAY, _CORRECTED))
    )
    if sentence and says and should_say and says != should_say and not corrected:
        corrected = _with_words(sentence, says, should_say)
    return Answer(verdict, number if sentence else None, corrected, says, should_say)


def stated_words(completion: str) -> str | None:
    """What the completion's one line `should_say: WORDS` states, whatever the verdict; None without one such line."""
    stated = _only(_SHOULD_SAY, without_thinking(completion))
    return _own_words(stated, "", "") if stated else None


def holds_words(text: str, words: str) -> bool:
    """Whether the text holds the words as whole ones, whatever their case."""
    return bool(partition_words(text, words)[1])


def asked_for(words: str) -> str:
    """Which of MEDEC's subtasks a question and the answer to it are about, by the lines that they name: `A`, `AB` or
    `ABC`."""
    if not re.search(r"^(error_)?sentence:", words, re.MULTILINE):
        return "A"
    named = [re.search(rf"^{name}:", words, re.MULTILINE) for name in ("it_says", "should_say", "corrected_sentence")]
    return "ABC" if named[2] or all(named[:2]) else "AB"


def _only(line: re.Pattern[str], text: str) -> str | None:
    """What the line states, if the text holds exactly one such."""
    found = line.findall(text)
    return found[0] if len(found) == 1 else None


def _own_words(text: str, sentence: str, task: str) -> str | None:
    """One line without white space, quotes and Markdown around it; None for nothing, NA, and the task's own words."""
    plain = " ".join(text.split()).strip("*_` ")
    for opening, closing in ('""', "''", "“”"):
        if plain.startswith(opening) and plain.endswith(closing) and len(plain) > 1:
            plain = plain[1:-1].strip()
    if plain.upper() in ("", "NA", "N/A"):
        return None
    repeats = partition_words(" ".join(task.split()), plain)[1] and not partition_words(sentence, plain)[1]
    return None if repeats else plain


def _with_words(sentence: str, says: str, should_say: str) -> str | None:
    """The sentence with the words that it says replaced where they first stand; None where they do not."""
    before, found, after = partition_words(sentence, says)
    return f"{before}{should_say}{after}" if found else None


def partition_words(sentence: str, words: str) -> tuple[str, str, str]:
    """`sentence` before, at and after the first place where it holds `words` as whole words, whatever their case."""
    match = re.search(rf"(?<!\w){re.escape(words)}(?!\w)", sentence, re.IGNORECASE)
    if match is None:
        return sentence, "", ""
    return sentence[: match.start()], match.group(), sentence[match.end() :]


def parse_injection(completion: str, original: str, form: InjectorFormat) -> str | None:
    """The modified note that an Injector's completion stands for, or None where it holds none.

    `note`: the text of the one `<note>...</note>`. `edit`: one line, the number of a sentence of `original` and its
    new text, which is put in that sentence's place. An edit that brings markup of control tokens into the note, to
    close a turn inside it, say, is none; nor is one that breaks off into a thought.
    """
    start, end = answer_span(completion)
    if end < len(completion):
        return None
    text = completion[start:].strip()
    modified = _whole_note(text, original) if form == "note" else _with_new_sentence(text, original)
    return None if modified is None or brings_markup(original, modified) else modified


def _whole_note(text: str, original: str) -> str | None:
    """The note that was written; on the lines of the original, if it is that note with an edit."""
    note = _only_note(text)
    if note is None or Levenshtein.distance(original.split(), note.split()) > 2 * MAX_WORD_EDITS:
        return note
    return laid_out_like(original.strip(), note)


def _only_note(text: str) -> str | None:
    """What stands between `<note>` and the next `</note>`, if there is something, and one such pair alone."""
    _, opened, rest = text.partition("<note>")
    note, closed, after = rest.partition("</note>")
    another = "</note>" in after.partition("<note>")[2]
    return note.strip() or None if opened and closed and not another else None


def _with_new_sentence(text: str, original: str) -> str | None:
    match = _NUMBERED_SENTENCE.fullmatch(text)
    return replace_sentence(original, int(match.group(1)), match.group(2).rstrip()) if match else None


def replace_sentence(note: str, number: int, sentence: str) -> str | None:
    """`note` with its sentence `number` (counted from 0, as MEDEC does) replaced; None where there is none such.

    All else stays to the byte, and so do the line breaks inside the sentence.
    """
    spans = split_sentences(note)
    if not 0 <= number < len(spans):
        return None
    span = spans[number]
    return note[: span.start] + laid_out_like(note[span.start : span.end], sentence) + note[span.end :]


def note_sentences(note: str) -> tuple[str, ...]:
    """The sentences of a note whose source does not number them, as our own splitter finds them."""
    return tuple(note[span.start : span.end] for span in split_sentences(note))


def number_sentences(note: str) -> str:
    """The note as numbered lines, one sentence a line: what the Injector sees in the `edit` form."""
    return numbered_lines(note_sentences(note))


def numbered_lines(sentences: Sequence[str]) -> str:
    """`0 First sentence`, `1 Second sentence`, ... on a line each, as MEDEC's field `Sentences` has them."""
    return "\n".join(f"{i} {' '.join(sentence.split())}" for i, sentence in enumerate(sentences))
