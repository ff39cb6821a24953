"""Warm-up: supervised fine-tuning (TRL) that teaches a model both roles' formats before it plays.

Out of gold pairs come four kinds of examples, in the very prompts of the game:

    Injector, error mode    correct note   -> the gold error
    Injector, benign mode   correct note   -> a clinically neutral rewording (data/neutral.toml)
    Assessor                incorrect note -> the prompt set's answer with INCORRECT
    Assessor                correct note, as it is or neutrally reworded -> the same with CORRECT

A policy that had never seen the formats would be rejected by the VCF every time (DESIGN, section 8).
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medserl.config import Settings
from medserl.data.neutral import apply_neutral_edit
from medserl.data.notes import ERROR_TYPES, Note
from medserl.errors import DataError
from medserl.game.gold import injection_answer, right_words
from medserl.game.parsing import parse_verdict
from medserl.game.prompts import Messages, PromptSet, load_prompts
from medserl.game.setup import GameSetup
from medserl.models import POLICY
from medserl.rollout import VCFRolloutGenerator, derive_seed
from medserl.round_metrics import game_metrics

log = logging.getLogger("medserl")


@dataclass(frozen=True)
class WarmUp:
    """How long and how fast to warm up."""

    steps: int = 100
    batch_size: int = 8
    learning_rate: float = 5e-4


@dataclass(frozen=True)
class Example:
    """One prompt and the completion to learn."""

    prompt: Messages
    completion: str


def build_examples(notes: Sequence[Note], prompts: PromptSet, seed: int) -> list[Example]:
    """Examples of both roles, equally many of each, shuffled by `seed`.

    Raises:
        DataError: no pair among the notes passes the VCF, so there is nothing to learn the formats from.
    """
    rng = random.Random(seed)
    examples: list[Example] = []
    for note in notes:
        if note.correct_note is not None and note.incorrect_note is not None:
            examples += _examples_of(note.correct_note, note.incorrect_note, note.error_type, prompts, rng)
    if not examples:
        raise DataError("warm-up needs pairs (a correct and an incorrect note) whose edit passes the VCF: found none")
    rng.shuffle(examples)
    return examples


def _examples_of(
    correct: str, incorrect: str, error_type: str | None, prompts: PromptSet, rng: random.Random
) -> list[Example]:
    """Four examples of one pair; none where the gold edit is larger than the game allows."""
    error_answer = injection_answer(correct, incorrect, prompts.form)
    neutral = apply_neutral_edit(correct, rng)
    if error_answer is None or neutral is None:
        return []
    benign_answer = injection_answer(correct, neutral[0], prompts.form)
    if benign_answer is None:
        return []
    sound = rng.choice([correct, neutral[0]])
    words = right_words(correct, incorrect)
    return [
        Example(prompts.injector(correct, "error", error_type or rng.choice(ERROR_TYPES)), error_answer),
        Example(prompts.injector(correct, "benign", None), benign_answer),
        Example(prompts.assessor(incorrect), prompts.gold_answer("INCORRECT", words)),
        Example(prompts.assessor(sound), prompts.gold_answer("CORRECT", words)),
    ]


def warm_up(settings: Settings, notes: Sequence[Note], plan: WarmUp, output: Path) -> Path:
    """Train an adapter on the notes' examples and save it to `output`, an ordinary PEFT folder."""
    from datasets import Dataset
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    from medserl.models import attention_for_training, load_model

    prompts = load_prompts(settings.prompts, settings.injector_format)
    examples = build_examples(notes, prompts, settings.seed)
    wanted = plan.steps * plan.batch_size
    rows = [_row(examples[i % len(examples)]) for i in range(wanted)]
    log.info("warm-up: %d steps of %d, %d different examples", plan.steps, plan.batch_size, len(examples))
    loaded = load_model(settings)
    trainer = SFTTrainer(
        model=loaded.model,
        processing_class=loaded.tokenizer,
        train_dataset=Dataset.from_list(rows),
        args=SFTConfig(
            output_dir=str(output.parent / f".{output.name}.trl"),
            max_steps=plan.steps,
            per_device_train_batch_size=plan.batch_size,
            learning_rate=plan.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=max(1, plan.steps // 20),
            logging_steps=max(1, plan.steps // 10),
            completion_only_loss=True,
            max_length=None,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to="none",
            seed=settings.seed,
            use_cpu=settings.device == "cpu",
            bf16=False,
            dataloader_pin_memory=False,
        ),
    )
    with attention_for_training(loaded.model):
        trainer.train()
    save_adapter(loaded.model, output)
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


def _row(example: Example) -> dict[str, Any]:
    return {
        "prompt": [dict(message) for message in example.prompt],
        "completion": [{"role": "assistant", "content": example.completion}],
    }


def format_skill(rollout: VCFRolloutGenerator, games: Sequence[GameSetup], seed: int) -> dict[str, float | None]:
    """What warm-up is for, measured by playing: VCF acceptance (first try, all tries) and the verdict parse rate."""
    episodes = rollout.play(games, derive_seed(seed, "format skill"))
    figures = game_metrics(episodes)
    turns = rollout.read([game.original for game in games], derive_seed(seed, "verdicts"))
    parsed = [parse_verdict(turn.completion.text) is not None for turn in turns]
    return {
        "vcf_first_attempt_rate": figures["vcf_first_attempt_rate"],
        "vcf_acceptance_rate": figures["vcf_acceptance_rate"],
        "verdict_parse_rate": sum(parsed) / len(parsed),
    }
