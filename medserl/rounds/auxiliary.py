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
    """What a role should answer to a prompt. `weight` is beside `sft_loss_weight`, which all have."""

    role: Role
    note_id: str
    prompt: Messages
    answer: str
    weight: float = 1.0


def verdict_example(
    prompts: PromptSet, note_id: str, text: str, mode: Mode, twin: str, weight: float = 1.0
) -> SFTExample:
    """What the Assessor should say of a text that is true as games in `mode` are, and that parts from `twin`: where it
    does, what should stand there, what stands there, and the verdict."""
    answer = prompts.gold_answer(truth(mode), parting(text, twin, is_error=mode == "error"))
    return SFTExample("assessor", note_id, prompts.assessor(text), answer, weight)


def examples_of_games(episodes: Sequence[Episode], most: int, prompts: PromptSet) -> list[SFTExample]:
    """The verdicts on the notes of the first `most` accepted games, and on the originals of those in error mode.

    An accepted error makes a pair like a physician's. A benign edit keeps the Assessor from taking every edit for an
    error: whatever its note says at that place is right. Both verdicts weigh alike in the sum, or the rarer one would
    be unlearnt; without a game in error mode there is one verdict only, and no example.
    """
    accepted = [(e, e.modified) for e in episodes if e.modified is not None][:most]
    errors = sum(episode.mode == "error" for episode, _ in accepted)
    if not errors:
        return []
    half = (errors + len(accepted)) / 2
    weights: dict[Mode, float] = {"error": half / errors, "benign": half / len(accepted)}
    examples = []
    for episode, modified in accepted:
        texts: list[tuple[str, Mode, str]] = [(modified, episode.mode, episode.original)]
        if episode.mode == "error":
            texts.append((episode.original, "benign", modified))
        examples += [
            verdict_example(prompts, episode.note_id, text, mode, twin, weights[mode]) for text, mode, twin in texts
        ]
    return examples


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
            weights = (sft_loss_weight * example.weight,) * len(turn.completion.token_ids)
            turns.append(WeightedTurn(turn, None, weights, example.note_id))
    return turns


def _check_context(example: SFTExample, turn: Turn, limit: int | None) -> None:
    tokens = len(turn.completion.prompt_ids) + len(turn.completion.token_ids)
    if limit and tokens > limit:
        raise ModelError(
            f"note {example.note_id!r}: what the {example.role} should learn from it has {tokens} tokens, but the "
            f"model's context holds {limit}; leave the note out, shorten it or use a model with a longer context"
        )
