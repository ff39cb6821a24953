"""The examples of the taught start say in the game's own words what gold pairs and neutral rewordings show."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from medserl.config import Settings
from medserl.data.readers import read_notes
from medserl.data.sample_paths import sample_path
from medserl.errors import ConfigError, DataError
from medserl.game.answers import injection_answer
from medserl.game.note import Note
from medserl.game.parsing import InjectorFormat, parse_injection, parse_verdict
from medserl.game.prompts import load_prompts
from medserl.game.vcf import apply_vcf
from medserl.models import load_model
from medserl.rollout import VCFRolloutGenerator
from medserl.rounds.auxiliary import SFTExample
from medserl.sft import WarmUp, epoch_examples, twins_of, warm_up

NOTES = read_notes(sample_path("train")).notes[:40]
SHORT = [Note(d, f"He has {d}. He rests.", f"He has {d}. He runs.") for d in ("a fever", "a cough", "pain", "a rash")]
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


def examples(epoch: int, seed: int = 0) -> list[SFTExample]:
    steps = epoch_examples(twins_of(NOTES), load_prompts("term", "edit"), 8, seed, epoch)
    return [example for step in steps for example in step]


def test_every_epoch_has_both_verdicts_on_every_pair_and_at_most_one_edit() -> None:
    for epoch in range(4):
        said = examples(epoch)
        verdicts = Counter(parse_verdict(each.answer) for each in said if each.role == "assessor")
        assert verdicts == {"CORRECT": len(NOTES), "INCORRECT": len(NOTES)}
        edited = Counter(each.note_id for each in said if each.role == "injector")
        assert len(edited) > 0.9 * len(NOTES) and set(edited.values()) == {1}  # not every note has a neutral rewording


def test_four_epochs_show_each_edit_in_both_modes() -> None:
    prompts = load_prompts("term", "edit")
    shown = {str(each.prompt) for epoch in range(4) for each in examples(epoch) if each.role == "injector"}
    for note in NOTES:
        assert str(prompts.injector(note.correct_note or "", "error", note.error_type)) in shown
    assert len(shown) > 1.9 * len(NOTES)


def test_an_assessor_that_reasons_is_taught_no_bare_verdict() -> None:
    """`full` asks for reasons first: an answer without any would train them away. The Injector is taught all edits."""
    prompts = load_prompts("full", "edit")
    epochs = [list(epoch_examples(twins_of(NOTES), prompts, 8, 0, epoch)) for epoch in range(4)]
    said = [each for epoch in epochs for step in epoch for each in step]
    assert {each.role for each in said} == {"injector"}
    shown = {str(each.prompt) for each in said}
    for note in NOTES:
        assert str(prompts.injector(note.correct_note or "", "error", note.error_type)) in shown


def test_pairs_without_an_edit_that_the_game_can_say_teach_a_reasoning_set_nothing(
    tiny_llama: Path, tmp_path: Path
) -> None:
    pairs = [Note("a", "He has fever.", "Other words, all of them, from the first to the very last of these.")]
    short = settings(tiny_llama).with_overrides(prompts=str(own_prompts(tmp_path)))
    with pytest.raises(DataError, match="nothing to teach"):
        warm_up(short, pairs, WarmUp(batch_size=2), tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def own_prompts(tmp_path: Path) -> Path:
    """Short prompts whose Assessor reasons."""
    kinds = ("diagnosis", "management", "treatment", "pharmacotherapy", "causalOrganism")
    types = "".join(f'{name} = "{name}"\n' for name in kinds)
    injector = 'max_new_tokens = 9\nerror = "$note e"\nbenign = "$note b"\n'
    file = tmp_path / "prompts.toml"
    file.write_text(
        f'system = "s"\n[error_types]\n{types}[assessor]\nmax_new_tokens = 9\nreasons = true\n'
        f'user = "$note final_answer"\n[injector.edit]\n{injector}[injector.note]\n{injector}'
    )
    return file


def test_examples_follow_from_the_seed_and_the_epoch() -> None:
    assert examples(0) == examples(0)
    assert examples(0) != examples(0, seed=1) and examples(0) != examples(1)


def test_a_step_holds_both_twins_of_its_pairs() -> None:
    for step in epoch_examples(twins_of(NOTES), load_prompts("term", "edit"), 8, 0, 0):
        judged = Counter(example.note_id for example in step if example.role == "assessor")
        assert set(judged.values()) == {2} and len(judged) <= 8


def test_notes_without_pairs_are_an_error() -> None:
    with pytest.raises(DataError, match="warm-up needs pairs"):
        twins_of([Note("a", "He has fever.")])


def settings(model: Path) -> Settings:
    return Settings(model=str(model), adapter="none", lora_rank=2, lora_alpha=4, device="cpu", prompts="term")


def test_warm_up_leaves_an_adapter_on_all_linear_layers_that_loads(tiny_llama: Path, tmp_path: Path) -> None:
    plan = WarmUp(steps=1, batch_size=2)
    folder = warm_up(settings(tiny_llama), SHORT, plan, tmp_path / "adapter")
    loaded = load_model(settings(tiny_llama).with_overrides(adapter=str(folder)), trainable=False)
    assert loaded.has_adapter
    assert any("down_proj" in name for name in loaded.model.peft_config["default"].target_modules)


def test_the_best_epoch_is_kept(tiny_llama: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="medserl")
    figures = iter([0.5, 0.75, 0.25])
    kept: list[bytes] = []
    weights = tmp_path / "adapter" / "adapter_model.safetensors"

    def judge(_: VCFRolloutGenerator) -> tuple[float, int]:
        kept.append(weights.read_bytes() if weights.exists() else b"")
        return next(figures), 4

    warm_up(settings(tiny_llama), SHORT, WarmUp(epochs=3, batch_size=2), tmp_path / "adapter", judge)
    assert len({*kept, weights.read_bytes()}) == 3  # nothing yet, after the first epoch, after the second
    assert weights.read_bytes() == kept[-1]
    assert "validation pairs ordered rightly: 75.0 % of 4" in caplog.text  # no count: a tie counts half


def test_the_loss_of_what_is_taught_falls(tiny_llama: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="medserl")
    warm_up(settings(tiny_llama), SHORT, WarmUp(epochs=4, batch_size=2, learning_rate=3e-2), tmp_path / "adapter")
    losses = [float(str(r.args[2])) for r in caplog.records if "loss" in r.msg and r.args]  # type: ignore[index]
    assert losses[-1] < losses[0]


def test_all_weights_are_not_warmed_up(tiny_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lora-rank above 0"):
        warm_up(settings(tiny_llama).with_overrides(lora_rank=0), NOTES, WarmUp(), tmp_path / "adapter")
