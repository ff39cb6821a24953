"""Lessons: what a role should have answered, learnt as it stands in the same update as the games.

They come from gold pairs (`gold`) and, with `game_lessons`, from the games of the round themselves: a game knows what
its Injector changed, and by its mode what the verdict should be, so it can teach the Assessor as ELECTRA's generator
teaches its discriminator (arXiv 2003.10555, section 2). Such a lesson is only as true as the label; `edit_audit`
`reject` keeps labels honest.

A lesson is a turn as though the policy had just said the right thing, every token with the advantage `lesson_weight`:
at ratio 1 the gradient of the clipped loss is that of the negative log-likelihood, and a weight of 1 counts like a game
token one standard deviation above the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medserl.engines.base import Engine, WeightedTurn
from medserl.errors import ModelError
from medserl.game.answers import parting
from medserl.game.episode import Episode, Turn
from medserl.game.prompts import Messages, PromptSet
from medserl.game.roles import Mode, Role, truth


@dataclass(frozen=True)
class Lesson:
    """What a role should answer to a prompt. `weight` is beside `lesson_weight`, which all have."""

    role: Role
    note_id: str
    prompt: Messages
    answer: str
    weight: float = 1.0


def verdict_lesson(prompts: PromptSet, note_id: str, text: str, mode: Mode, twin: str, weight: float = 1.0) -> Lesson:
    """What the Assessor should say of a text that is true as games in `mode` are, and that parts from `twin`: where it
    does, what should stand there, what stands there, and the verdict."""
    answer = prompts.gold_answer(truth(mode), parting(text, twin, is_error=mode == "error"))
    return Lesson("assessor", note_id, prompts.assessor(text), answer, weight)


def game_lessons(episodes: Sequence[Episode], most: int, prompts: PromptSet) -> list[Lesson]:
    """The verdicts on the notes of the first `most` accepted games, and on the originals of those in error mode.

    An accepted error makes a pair like a physician's. A benign edit keeps the Assessor from taking every edit for an
    error: whatever its note says at that place is right. Both verdicts weigh alike in the sum, or the rarer one would
    be unlearnt; without a game in error mode there is one verdict only, and no lesson.
    """
    accepted = [(e, e.modified) for e in episodes if e.modified is not None][:most]
    errors = sum(episode.mode == "error" for episode, _ in accepted)
    if not errors:
        return []
    half = (errors + len(accepted)) / 2
    weights: dict[Mode, float] = {"error": half / errors, "benign": half / len(accepted)}
    lessons = []
    for episode, modified in accepted:
        texts: list[tuple[str, Mode, str]] = [(modified, episode.mode, episode.original)]
        if episode.mode == "error":
            texts.append((episode.original, "benign", modified))
        lessons += [
            verdict_lesson(prompts, episode.note_id, text, mode, twin, weights[mode]) for text, mode, twin in texts
        ]
    return lessons


def weighted(engine: Engine, lessons: Sequence[Lesson], lesson_weight: float) -> list[WeightedTurn]:
    """The lessons as turns for the update, without a reference: a KL in the loss has no say.

    Raises:
        ModelError: a lesson is longer than the model's context.
    """
    turns = []
    for role in dict.fromkeys(lesson.role for lesson in lessons):
        mine = [lesson for lesson in lessons if lesson.role == role]
        recited = engine.recite(role, [lesson.prompt for lesson in mine], [lesson.answer for lesson in mine])
        for lesson, turn in zip(mine, recited, strict=True):
            _check_context(lesson, turn, engine.context)
            weights = (lesson_weight * lesson.weight,) * len(turn.completion.token_ids)
            turns.append(WeightedTurn(turn, None, weights, lesson.note_id))
    return turns


def _check_context(lesson: Lesson, turn: Turn, limit: int | None) -> None:
    tokens = len(turn.completion.prompt_ids) + len(turn.completion.token_ids)
    if limit and tokens > limit:
        raise ModelError(
            f"note {lesson.note_id!r}: what the {lesson.role} should learn from it has {tokens} tokens, but the "
            f"model's context holds {limit}; leave the note out, shorten it or use a model with a longer context"
        )
