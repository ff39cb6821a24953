"""The report names everything that a run learnt from, and forgets no setting that is to come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medserl.config import Settings
from medserl.reports.run_files import read_run
from medserl.reports.signals import SIGNAL_SETTINGS, is_play_alone, training_signals
from medserl.reports.summary import sentences
from tests.synthetic_run import write_run

NO_SIGNALS = {
    "model", "lora_alpha", "lora_targets", "device", "dtype", "load_in_4bit", "trust_remote_code",
    "gradient_checkpointing", "thinking", "engine", "prompt_data", "validation_data", "note_column",
    "incorrect_column", "id_column", "label_column", "seed", "prompts", "injector_format", "vcf_min_jaccard",
    "vcf_max_jaccard", "vcf_max_word_edits", "vcf_max_attempts", "assessor_samples", "adapters",
    "rollout_batch_size", "max_epochs", "max_rounds", "temperature", "top_p",
    "max_new_tokens_injector", "max_new_tokens_assessor", "generation_token_budget", "learning_rate",
    "lr_warmup_rounds", "lr_schedule", "kl_estimator", "clip_range", "advantage_normalization", "mini_batches",
    "max_grad_norm", "training_token_budget", "placement", "train_nodes", "train_gpus_per_node", "zero_stage",
    "adam_offload", "attention", "packing", "vllm_engines", "vllm_tensor_parallel", "vllm_gpu_memory", "vllm_context",
    "vllm_eager", "vllm_sleep", "weight_sync", "async_rollout", "output_dir", "resume", "eval_every", "eval_notes",
    "frozen_games", "save_every", "keep_checkpoints", "tensorboard", "wandb",
}  # fmt: skip
"""Settings that say how, on what and where, but not what is learnt from."""


def test_every_setting_is_a_signal_or_known_to_be_none() -> None:
    """A new setting fails here until somebody has decided: a signal is told by `reports/signals.py`."""
    assert not NO_SIGNALS & SIGNAL_SETTINGS
    assert set(Settings.model_fields) - NO_SIGNALS == SIGNAL_SETTINGS


OTHER_VALUES = {
    "roles_trained": "assessor",
    "policy_loss_weight": 0.25,
    "assessor_reward": "correction",
    "gold_fraction": 0.25,
    "sft_verdict_pairs": 7,
    "sft_edit_pairs": 7,
    "sft_games": 7,
    "judge_originals": True,
    "sft_loss_weight": 2.5,
    "kl_coef": 0.0,
    "kl_target": 0.05,
    "adapter": "outputs/mine",
    "lora_rank": 0,
    "edit_audit": "reject",
    "gold_data": "pairs.csv",
}
BESIDES = {"sft_loss_weight": {"sft_verdict_pairs": 3}, "gold_data": {"sft_verdict_pairs": 3}}


def test_each_signal_has_a_value_that_is_tried_here() -> None:
    assert OTHER_VALUES.keys() == SIGNAL_SETTINGS


@pytest.mark.parametrize("name", sorted(SIGNAL_SETTINGS))
def test_a_signal_changes_the_first_sentence(tmp_path: Path, name: str) -> None:
    def first_sentence(folder: str, **changes: object) -> str:
        run = write_run(tmp_path / folder, rounds=1, games=2, evaluation=False, **BESIDES.get(name, {}), **changes)
        return sentences(read_run(run))[0]

    before, after = first_sentence("default"), first_sentence("changed", **{name: OTHER_VALUES[name]})
    assert before != after
    value = OTHER_VALUES[name]
    if isinstance(value, int | float) and value and value is not True:
        shown = abs(100 * value) if name.endswith("_fraction") else abs(value)
        assert f"{shown:g}" in after


def test_play_is_credited_alone_only_where_nothing_else_taught() -> None:
    assert is_play_alone(Settings(kl_coef=0.1))
    for setting in ("sft_verdict_pairs", "sft_edit_pairs"):
        assert not is_play_alone(Settings(**{setting: 1}))
        assert not is_play_alone(Settings(policy_loss_weight=0.0, **{setting: 1}))
    assert is_play_alone(Settings(sft_games=1)), "what such an example says follows from the game alone"
    assert not is_play_alone(Settings(gold_fraction=0.5))
    assert len(training_signals(Settings(gold_fraction=0.5, sft_verdict_pairs=1, sft_edit_pairs=2, sft_games=3))) == 6


def test_what_the_sft_loss_did_is_not_called_self_play(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", sft_verdict_pairs=8)
    first, *others = sentences(read_run(run))
    assert first.startswith("Training made the model better at finding errors")
    assert "an auxiliary SFT loss towards the right verdicts on 8 gold pairs a round" in first
    assert "Self-play" not in first
    assert any("What play did of this, and what gold labels did" in sentence for sentence in others)


@pytest.mark.parametrize(("gold", "told"), [("sample", "of the sample"), ("kept/{0}.csv", "of {0}.csv")])
def test_where_gold_pairs_are_from_is_told(gold: str, told: str) -> None:
    signals = training_signals(Settings(gold_data=gold, gold_fraction=0.5, sft_verdict_pairs=1, sft_edit_pairs=2))
    assert sum(f"gold pairs {told} " in signal for signal in signals) == 3


def test_without_a_policy_loss_no_reward_is_credited() -> None:
    alone = Settings(policy_loss_weight=0.0, sft_games=3)
    told = "an auxiliary SFT loss towards the right verdicts on at most 3 errors of its own games a round"
    assert training_signals(alone) == [told]


@pytest.mark.parametrize(
    ("learnt", "told", "others"),
    [
        ({"policy_loss_weight": 0.0, "sft_games": 3}, "as Injector, on", "the auxiliary SFT loss alone updated"),
        ({"sft_games": 3}, "as Injector and as Assessor, on", "REINFORCE++ updated"),
    ],
)
def test_what_was_run_is_what_the_settings_ask_for(
    learnt: dict[str, Any], told: str, others: str, tmp_path: Path
) -> None:
    said = " ".join(sentences(read_run(write_run(tmp_path / "run", **learnt))))
    assert told in said and others in said and "gold labels" not in said


def test_where_no_game_is_played_gold_labels_are_not_set_against_play(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", policy_loss_weight=0.0, sft_verdict_pairs=8)
    first, *others = sentences(read_run(run))
    assert first.startswith("Training") and not any("What play did" in sentence for sentence in others)
