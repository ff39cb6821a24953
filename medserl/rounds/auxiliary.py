"""The auxiliary SFT loss: what a role should have answered, learnt as it stands in the same update as the games.

Examples come from gold pairs (`gold_pairs`) and, with `sft_games`, from the games of the round themselves: a game knows
what its Injector changed, and by its mode what the verdict should be, so it can teach the Assessor as ELECTRA's
generator teaches its discriminator (arXiv 2003.10555, section 2). Such an example is only as true as the label;
`edit_audit` `reject` keeps labels honest.

An example becomes a turn as though the policy had just said the right thing, every token with the advantage
`sft_loss_weight`: at ratio 1 the gradient of the clipped loss is that of the negative log-likelihood, and a weight of 1
counts like a game token one standard deviation above the mean.
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
class SFTExample:
    """What a role should answer to a prompt."""

    role: Role
    note_id: str
    prompt: Messages
    answer: str


def verdict_example(prompts: PromptSet, note_id: str, text: str, mode: Mode, twin: str) -> SFTExample:
    """What the Assessor should say of a text that is true as games in `mode` are, and that parts from `twin`: where it
    does, what should stand there, what stands there, and the verdict."""
    answer = prompts.gold_answer(truth(mode), parting(text, twin, is_error=mode == "error"))
    return SFTExample("assessor", note_id, prompts.assessor(text), answer)


def examples_of_games(episodes: Sequence[Episode], most: int, prompts: PromptSet) -> list[SFTExample]:
    """The right verdicts on the first `most` accepted games in error mode, and on the originals of these.

    Such a game makes a pair like a physician's: what was taken out should stand there. A benign game makes none. Which
    harmless words it changed cannot be known from the note, and most of the loss would go to guessing them
    (docs/experiments.md).
    """
    errors = [(e, e.modified) for e in episodes if e.mode == "error" and e.modified is not None]
    return [
        example
        for e, modified in errors[:most]
        for example in (
            verdict_example(prompts, e.note_id, modified, "error", e.original),
            verdict_example(prompts, e.note_id, e.original, "benign", modified),
        )
    ]


def target_turns_of(engine: Engine, examples: Sequence[SFTExample], sft_loss_weight: float) -> list[WeightedTurn]:
    """The examples as turns for the update, without a reference: a KL in the loss has no say.

    Raises:
        ModelError: an example is longer than the model's context.
    """
    turns = []
    for role in dict.fromkeys(example.role for example in examples):
        mine = [example for example in examples if example.role == role]
        said = engine.target_turns(role, [example.prompt for example in mine], [example.answer for example in mine])
        for example, turn in zip(mine, said, strict=True):
            _check_context(example, turn, engine.context)
            weights = (sft_loss_weight,) * len(turn.completion.token_ids)
            turns.append(WeightedTurn(turn, None, weights, example.note_id))
    return turns


def _check_context(example: SFTExample, turn: Turn, limit: int | None) -> None:
    tokens = len(turn.completion.prompt_ids) + len(turn.completion.token_ids)
    if limit and tokens > limit:
        raise ModelError(
            f"note {example.note_id!r}: what the {example.role} should learn from it has {tokens} tokens, but the "
            f"model's context holds {limit}; leave the note out, shorten it or use a model with a longer context"
        )
