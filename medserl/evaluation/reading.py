"""Unlabelled notes read by the Assessor, long ones in windows, with the probability of an error in each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

from medserl.evaluation.predict import COMPLETIONS_AT_ONCE, verdict_probabilities
from medserl.evaluation.windows import Window, windows
from medserl.game.episode import Turn
from medserl.game.parsing import Answer, parse_answer, with_each_verdict
from medserl.game.roles import Verdict
from medserl.game.text import HALF_A_CHARACTER
from medserl.rollout import VCFRolloutGenerator
from medserl.rounds.fitting import Ruler

T = TypeVar("T")


@dataclass(frozen=True)
class ShownText:
    """A note as the Assessor is shown it: its sentences, numbered from 0."""

    note_id: str
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Reading:
    """What the model said of one window of a note.

    `p_error` is P(INCORRECT) after its own words, None where these have no one place for a verdict. `answer` is what
    they point at, whichever verdict they give, the number of its sentence being that of the whole note.
    """

    verdict: Verdict | None
    p_error: float | None
    answer: Answer
    truncated: bool


def read_texts(rollout: VCFRolloutGenerator, texts: Sequence[ShownText]) -> list[list[Reading] | str]:
    """The readings of each text, one a window, or why it cannot be read."""
    plans = _plans(rollout, texts)
    asked = [
        (text, window)
        for text, plan in zip(texts, plans, strict=True)
        for window in ([] if isinstance(plan, str) else plan)
    ]
    said = iter([reading for batch in batched(asked, COMPLETIONS_AT_ONCE) for reading in _ask(rollout, batch)])
    return [plan if isinstance(plan, str) else list(islice(said, len(plan))) for plan in plans]


def worst_of(readings: Sequence[Reading]) -> Reading | None:
    """The reading with the highest `p_error`; None where none has one."""
    known = [reading for reading in readings if reading.p_error is not None]
    return max(known, key=lambda reading: reading.p_error or 0.0, default=None)


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of `size`, the last one shorter where they do not come out even."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


# -- windows ---------------------------------------------------------------------------------------------------


def _plans(rollout: VCFRolloutGenerator, texts: Sequence[ShownText]) -> list[list[Window] | str]:
    """The windows of each text, or why it cannot be read."""
    ruler = Ruler(rollout)
    plans: list[list[Window] | str] = [_unreadable(text) or [(0, len(text.sentences))] for text in texts]
    if ruler.context is None:
        return plans
    places = [place for place, plan in enumerate(plans) if not isinstance(plan, str)]
    needs = _tokens(ruler, [texts[place].sentences for place in places])
    for place, need in zip(places, needs, strict=True):
        if need > ruler.context:
            plans[place] = _plan(ruler, texts[place].sentences, ruler.context)
    return plans


def _unreadable(text: ShownText) -> str | None:
    if not any(sentence.strip() for sentence in text.sentences):
        return "no text"
    if any(HALF_A_CHARACTER.search(sentence) for sentence in text.sentences):
        return "half a character (an unpaired surrogate) in the text"
    return None


def _plan(ruler: Ruler, sentences: Sequence[str], context: int) -> list[Window] | str:
    def fits(start: int, end: int) -> bool:
        return _tokens(ruler, [sentences[start:end]])[0] <= context

    found = windows(len(sentences), fits)
    if isinstance(found, int):
        return f"sentence {found} alone is longer than the model's context of {context} tokens"
    return found


def _tokens(ruler: Ruler, shown: Sequence[Sequence[str]]) -> list[int]:
    """The most tokens that a turn on each of these may need."""
    return ruler.reading(["\n".join(each) for each in shown], shown) if shown else []


# -- asking ----------------------------------------------------------------------------------------------------


def _ask(rollout: VCFRolloutGenerator, asked: Sequence[tuple[ShownText, Window]]) -> list[Reading]:
    shown = [text.sentences[start:end] for text, (start, end) in asked]
    turns = rollout.read(["\n".join(each) for each in shown], seed=0, greedy=True, sentences=shown)
    chances = verdict_probabilities(rollout.engine, turns)
    return [
        Reading(turn.verdict, p, _answer(turn, sentences, first, rollout.prompts.task), turn.completion.truncated)
        for turn, p, sentences, (_, (first, _)) in zip(turns, chances, shown, asked, strict=True)
    ]


def _answer(turn: Turn, sentences: Sequence[str], first: int, task: str) -> Answer:
    """What a turn on the sentences from number `first` on points at: its words as if they said INCORRECT."""
    completion = turn.completion.text
    if turn.verdict != "INCORRECT":
        completion = (with_each_verdict(completion) or ("", ""))[1]
    found = parse_answer(completion, sentences, task)
    number = found.error_sentence_id
    return replace(found, error_sentence_id=None if number is None else number + first)
