"""Warm-up: both roles are taught from pairs of notes, in the very prompts and tokens of the game, before they play.

    Assessor                incorrect note -> the prompt set's answer with INCORRECT
    Assessor                correct note   -> the same with CORRECT
    Injector, error mode    correct note   -> the gold error
    Injector, benign mode   correct note   -> a clinically neutral rewording (knowledge/neutral.toml)
    either                  the correct note's own next words, where its wrong twin parts from it

The answers are learnt as the trainer learns its examples (`rounds.auxiliary`): the negative log-likelihood of their
tokens. Twins share a row of the update, so what they have in common is read once. A policy that tells no right note
from a wrong one gives self-play nothing but a bias to move, so this goes on until the order of unseen pairs gets no
better.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medserl.config import Settings
from medserl.display.progress import counting
from medserl.engines.base import Engine, WeightedTurn
from medserl.errors import ConfigError, DataError
from medserl.game.answers import injection_answer
from medserl.game.note import ERROR_TYPES, Note
from medserl.game.prompts import PromptSet, load_prompts
from medserl.game.roles import MODES, Mode
from medserl.game.setup import GameSetup
from medserl.knowledge.neutral import apply_neutral_edit
from medserl.models import POLICY, shipped_warmup
from medserl.models.lora_targets import UPPER_LINEAR
from medserl.rollout import VCFRolloutGenerator, derive_seed
from medserl.rounds.auxiliary import SFTExample, target_turns_of, verdict_example
from medserl.rounds.fitting import tell_left_out
from medserl.rounds.metrics import game_metrics
from medserl.sharing.card import write_card
from medserl.sharing.card_facts import warm_up_facts

log = logging.getLogger("medserl")

OWN_WORDS = 6
"""Tokens of the correct note that are learnt as text, from where its twin parts from it: what the findings before them
lead to. Only what is true is learnt so."""

RISING_STEPS = 20
SORTED_TOGETHER = 8
"""Steps whose pairs are sorted by length, so that little is padded."""

PairJudge = Callable[[VCFRolloutGenerator], tuple[float, int]]
"""How well the policy tells unseen twins apart: the share of pairs that it orders rightly, and of how many."""


@dataclass(frozen=True)
class WarmUp:
    """How long and how fast: passes over the pairs, or so many steps if that is less, pairs a step, peak rate."""

    epochs: int = 4
    batch_size: int = 16
    learning_rate: float = 1e-3
    steps: int | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError where nothing could be learnt so."""
        for flag, value in (("epochs", self.epochs), ("batch-size", self.batch_size), ("steps", self.steps)):
            if value is not None and value < 1:
                raise ConfigError(f"--{flag} {value}: give 1 or more")
        if not 0 < self.learning_rate <= 1:
            raise ConfigError(f"--sft-learning-rate {self.learning_rate}: give a rate above 0, at most 1")


@dataclass(frozen=True)
class Twins:
    """A pair of notes to learn from."""

    note_id: str
    correct: str
    incorrect: str
    error_type: str | None

    def verdicts(self, prompts: PromptSet) -> list[SFTExample]:
        """What the Assessor should say of either twin."""
        return [
            verdict_example(prompts, self.note_id, self.incorrect, "error", self.correct),
            verdict_example(prompts, self.note_id, self.correct, "benign", self.incorrect),
        ]

    def edit(self, prompts: PromptSet, mode: Mode, rng: random.Random) -> list[SFTExample]:
        """What the Injector should do in `mode`; empty where the game has no way to say it."""
        error_type = self.error_type or rng.choice(ERROR_TYPES)
        if mode == "error":
            modified, prompt = self.incorrect, prompts.injector(self.correct, mode, error_type)
        else:
            modified = (apply_neutral_edit(self.correct, rng) or (self.correct,))[0]
            prompt = prompts.injector(self.correct, mode, None)
        answer = injection_answer(self.correct, modified, prompts.form)
        return [SFTExample("injector", self.note_id, prompt, answer)] if answer else []


def twins_of(notes: Sequence[Note]) -> list[Twins]:
    """The pairs among the notes.

    Raises:
        DataError: there is none, so there is nothing to learn from.
    """
    twins = [
        Twins(note.note_id, note.correct_note, note.incorrect_note, note.error_type)
        for note in notes
        if note.correct_note is not None and note.incorrect_note is not None
    ]
    if not twins:
        raise DataError("warm-up needs pairs (a correct and an incorrect note): found none")
    return twins


def _that_fit(twins: Sequence[Twins], rollout: VCFRolloutGenerator) -> list[Twins]:
    """The pairs of which every example fits into the model's context; the log names the others.

    Raises:
        DataError: none of them fits.
    """
    engine, prompts, use = rollout.engine, rollout.prompts, "pairs to warm up on"
    if engine.context is None:
        return list(twins)
    kept, left_out = [], []
    for each in twins:
        edits = (example for mode in MODES for example in each.edit(prompts, mode, random.Random(each.note_id)))
        examples = [*each.verdicts(prompts), *edits]
        lengths = engine.prompt_lengths([example.prompt for example in examples])
        answers = engine.count_tokens([example.answer for example in examples])
        need = max(map(sum, zip(lengths, answers, strict=True))) + 1  # the token that ends the turn
        if need <= engine.context:
            kept.append(each)
        else:
            left_out.append((each.note_id, need))
    tell_left_out(left_out, engine.context, use)
    if not kept:
        raise DataError(f"{use}: none of {len(twins)} fits into the model's context of {engine.context} tokens")
    return kept


def epoch_examples(
    twins: Sequence[Twins], prompts: PromptSet, batch_size: int, seed: int, epoch: int
) -> Iterator[list[SFTExample]]:
    """The examples of each step of an epoch: both verdicts on every pair and one edit of it.

    In one epoch of four that is the error, else a neutral rewording: these are a table to learn by heart. Where the
    Assessor reasons (`PromptSet.reasons`) it is taught nothing: a verdict without reasons would train those away.
    """
    rng = random.Random(f"{seed}/{epoch}")
    order = rng.sample(range(len(twins)), len(twins))
    steps = []
    size = batch_size * SORTED_TOGETHER
    for start in range(0, len(order), size):
        together = sorted(order[start : start + size], key=lambda i: len(twins[i].correct))
        few = [together[i : i + batch_size] for i in range(0, len(together), batch_size)]
        steps += rng.sample(few, len(few))
    for step in steps:
        examples = [] if prompts.reasons else [example for i in step for example in twins[i].verdicts(prompts)]
        for i in step:
            mode: Mode = "benign" if (i + epoch) % 4 else "error"
            examples += twins[i].edit(prompts, mode, rng)
        if examples:
            yield examples


def own_words(judged: Sequence[WeightedTurn]) -> list[WeightedTurn]:
    """The correct note's next tokens where its twin parts from it, for each two turns that judge an incorrect note and
    its correct twin, in this order."""
    turns = []
    for incorrect, correct in zip(judged[::2], judged[1::2], strict=True):
        said = correct.turn.completion
        ids, twin = said.prompt_ids, incorrect.turn.completion.prompt_ids
        place = next((i for i, (a, b) in enumerate(zip(ids, twin, strict=False)) if a != b), len(ids))
        words = ids[place : place + OWN_WORDS]
        if place and words:
            read = replace(said, prompt_ids=ids[:place], token_ids=words)
            turns.append(replace(correct, turn=replace(correct.turn, completion=read), advantages=(1.0,) * len(words)))
    return turns


def step_turns(engine: Engine, examples: Sequence[SFTExample]) -> list[WeightedTurn]:
    """What a step learns: its examples, and the correct notes' own words."""
    turns = target_turns_of(engine, examples, 1.0)
    return turns + own_words([turn for turn in turns if turn.turn.role == "assessor"])


def warm_up(
    settings: Settings, notes: Sequence[Note], plan: WarmUp, output: Path, judge: PairJudge | None = None
) -> Path:
    """Teach an adapter both roles and save it to `output`, an ordinary PEFT folder. It goes on from the adapter of the
    settings; of `auto`, from the one shipped for the model if there is one.

    After each epoch `judge` looks at the policy; the best epoch's adapter is what remains. Without one it is the last.
    """
    from medserl.engines import create_engine

    if not settings.lora_rank:
        raise ConfigError("warm-up teaches a LoRA adapter: give --lora-rank above 0")
    twins = twins_of(notes)
    if settings.adapter == "auto":
        settings = settings.with_overrides(adapter=str(shipped_warmup(settings) or "none"))
    if settings.lora_targets == "auto" and settings.adapter == "none":
        settings = settings.with_overrides(lora_targets=UPPER_LINEAR)  # attention alone learns half as much
    prompts = load_prompts(settings.prompts, settings.injector_format)
    engine: Any = create_engine(settings.with_overrides(engine="local", kl_coef=0.0, mini_batches=1, temperature=1.0))
    rollout = VCFRolloutGenerator(engine, prompts, settings)
    twins = _that_fit(twins, rollout)
    total = min(plan.epochs * -(-len(twins) // plan.batch_size), plan.steps or 2**31)
    if prompts.reasons:
        log.info("prompts %s: the Assessor reasons, so the warm-up teaches the Injector alone", settings.prompts)
    log.info("warm-up: %d pairs, %d steps of %d pairs", len(twins), total, plan.batch_size)
    best = -1.0
    with counting("warm-up", total) as steps:
        for epoch in range(plan.epochs):
            losses: list[float] = []
            for few in epoch_examples(twins, prompts, plan.batch_size, settings.seed, epoch):
                if steps.done == total:
                    break
                rate = plan.learning_rate * min(1.0, (steps.done + 1) / RISING_STEPS) * (1 - steps.done / total)
                losses.append(engine.update(step_turns(engine, few), learning_rate=rate).sft_loss)
                steps.advance()
            if not losses and not steps.done:
                raise DataError(f"{len(twins)} pairs to warm up on: nothing to teach, no edit of theirs can be said")
            if not losses:
                break
            figure, pairs = judge(rollout) if judge else (None, 0)
            told = "" if figure is None else f", validation pairs ordered rightly: {100 * figure:.1f} % of {pairs}"
            log.info("warm-up, epoch %d of %d: loss %.3f%s", epoch + 1, plan.epochs, sum(losses) / len(losses), told)
            if figure is None or figure >= best:
                best = figure if figure is not None else best
                save_adapter(engine.model, output)
                write_card(output, warm_up_facts(settings, len(twins), steps.done, plan.batch_size))
    return output


def save_adapter(model: Any, output: Path) -> None:
    """Write the adapter in bfloat16: half the size, and no more precise than the weights that it is added to."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    output.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor.to("cpu").bfloat16()
        for name, tensor in get_peft_model_state_dict(model, adapter_name=POLICY, save_embedding_layers=False).items()
    }
    save_file(weights, output / "adapter_model.safetensors")
    config = model.peft_config[POLICY]
    config.inference_mode = True
    config.save_pretrained(output)


def format_skill(rollout: VCFRolloutGenerator, games: Sequence[GameSetup], seed: int) -> dict[str, float | None]:
    """What warm-up is for, measured by playing: VCF acceptance (first try, all tries) and the verdict parse rate."""
    episodes = rollout.play(games, derive_seed(seed, "format skill"))
    figures = game_metrics(episodes)
    turns = rollout.read([game.original for game in games], derive_seed(seed, "verdicts"))
    parsed = [turn.verdict is not None for turn in turns]
    return {
        "vcf_first_attempt_rate": figures["vcf_first_attempt_rate"],
        "vcf_acceptance_rate": figures["vcf_acceptance_rate"],
        "verdict_parse_rate": sum(parsed) / len(parsed),
    }
