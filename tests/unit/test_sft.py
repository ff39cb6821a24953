"""Warm-up examples say in the game's own words what the gold pairs and neutral rewordings show."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from medserl.config import Settings
from medserl.data.notes import Note
from medserl.data.readers import load_notes
from medserl.data.sample_paths import sample_path
from medserl.errors import DataError
from medserl.game.parsing import InjectorFormat, parse_injection, parse_verdict
from medserl.game.prompts import load_prompts
from medserl.game.vcf import apply_vcf
from medserl.models import load_model
from medserl.sft import WarmUp, build_examples, injection_answer, warm_up

NOTES = load_notes(sample_path("train")).notes[:40]
FORMS: list[InjectorFormat] = ["edit", "note"]


@pytest.mark.parametrize("form", FORMS)
def test_injections_parse_back_to_the_gold_note(form: InjectorFormat) -> None:
    for note in NOTES:
        assert note.correct_note is not None
        assert note.incorrect_note is not None
        answer = injection_answer(note.correct_note, note.incorrect_note, form)
        assert answer is not None
        modified = parse_injection(answer, note.correct_note, form)
        assert modified is not None
        assert modified.split() == note.incorrect_note.split()
        assert apply_vcf(note.correct_note, modified).passed


def test_roles_and_verdicts_are_even() -> None:
    examples = build_examples(NOTES, load_prompts("brief", "edit"), seed=0)
    verdicts = Counter(parse_verdict(example.completion) for example in examples)
    assert verdicts["CORRECT"] == verdicts["INCORRECT"] == len(NOTES)
    assert verdicts[None] == 2 * len(NOTES)


def test_examples_follow_from_the_seed() -> None:
    prompts = load_prompts("brief", "edit")
    assert build_examples(NOTES, prompts, 1) == build_examples(NOTES, prompts, 1)
    assert build_examples(NOTES, prompts, 1) != build_examples(NOTES, prompts, 2)


def test_notes_without_pairs_are_an_error() -> None:
    with pytest.raises(DataError, match="warm-up needs pairs"):
        build_examples([Note("a", "He has fever.")], load_prompts("brief", "edit"), 0)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
def test_warm_up_leaves_an_adapter_that_loads(tiny_llama: Path, tmp_path: Path) -> None:
    """One step of TRL's real trainer; the warnings are TRL's own."""
    settings = Settings(model=str(tiny_llama), adapter="none", lora_rank=2, lora_alpha=4, device="cpu")
    folder = warm_up(settings, NOTES, WarmUp(steps=1, batch_size=2, learning_rate=1e-3), tmp_path / "adapter")
    assert (folder / "adapter_model.safetensors").is_file()
    loaded = load_model(settings.with_overrides(adapter=str(folder)), trainable=False)
    assert loaded.has_adapter
