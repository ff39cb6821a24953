"""The trainer with gold turns, judged originals and auxiliary SFT losses, beside the policy loss or alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from medserl.data.readers import read_notes
from medserl.data.sample_paths import sample_path
from medserl.engines.base import Sampling
from medserl.engines.scripted import ScriptedEngine
from medserl.errors import ConfigError, RunError
from medserl.game.episode import Completion
from medserl.game.note import Note
from medserl.game.prompts import Messages
from medserl.rounds.clock import PhaseClock
from medserl.trainer import MedSeRLTrainer
from tests.ingredients import BASE, Recording, build, one_round

# -- examples alone -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("roles", ["both", "assessor"])
def test_without_a_policy_loss_a_round_costs_the_edits_and_the_examples_made_of_them(roles: str) -> None:
    engine, alone = Recording(), {"policy_loss_weight": 0.0, "sft_games": 16, "roles_trained": roles}
    metrics = one_round(engine, **alone)
    asked = [call for call in engine.calls if not call.startswith("generate injector")]
    assert metrics["accepted_error_share"] == 1.0
    assert asked == ["target_turns", f"update {2 * min(metrics['accepted_games'], 16)}"]
    assert all(turn.old_logprobs is None for turn in engine.trained)
    plain = one_round(kl_coef=0.0)
    assert metrics["samples"] == 0 and metrics["vcf_acceptance_rate"] == plain["vcf_acceptance_rate"]
    # What rests on verdicts, rewards or a ratio is not there; a share of nothing would be a number that is wrong.
    told = {name for name, value in metrics.items() if value is not None}
    assert {name for name, value in plain.items() if value is not None} - told == {
        *("assessor_accuracy", "assessor_recall", "assessor_specificity", "assessor_flag_rate", "no_verdict_rate"),
        *("injector_win_rate_error", "injector_win_rate_benign", "tokens_per_completion_assessor", "mean_reward"),
        *("reward_assessor", "reward_injector", "advantage_assessor", "advantage_injector", "clip_fraction"),
        *("logprob_gap", "logprob_gap_rms", "logprob_gap_max", "tokens_per_second_assess"),
        *(name for name in plain if name.startswith("no_variance_")),
        "label_undecided_benign",  # no game is benign
    }


def test_where_no_example_is_made_of_games_none_is_played(caplog: pytest.LogCaptureFixture) -> None:
    engine = Recording()
    history = build(engine=engine, policy_loss_weight=0.0, sft_verdict_pairs=3, rounds=4).train()
    assert engine.calls == ["target_turns", "update 6"] * 4
    assert [row["games"] for row in history] == [0] * 4 and "accepted no note" not in caplog.text


def test_examples_alone_starve_where_the_injector_does() -> None:
    engine = Recording()
    engine.player = lambda messages, rng: "no."
    with pytest.raises(RunError, match="no note was accepted in 3 rounds in a row"):
        build(engine=engine, policy_loss_weight=0.0, sft_games=3, rounds=4).train()
    assert engine.updates == 0


def test_the_weight_scales_the_policy_loss_and_no_example() -> None:
    engines = Recording(), Recording()
    for engine, weight in zip(engines, (1.0, 0.25), strict=True):
        one_round(engine, policy_loss_weight=weight, sft_verdict_pairs=2)
    assert len(engines[0].trained) == len(engines[1].trained)
    for whole, part in zip(*(engine.trained for engine in engines), strict=True):
        factor = 1.0 if whole.old_logprobs is None else 0.25
        assert part.advantages == pytest.approx([factor * each for each in whole.advantages])


# -- gold ----------------------------------------------------------------------------------------------------


def test_gold_turns_are_learnt_from_and_judged_apart() -> None:
    engine, plain = Recording(), one_round(kl_coef=0.0)
    metrics = one_round(engine, gold_fraction=0.25, kl_coef=0.0)
    own, gold = plain["samples"], engine.trained[plain["samples"] :]
    assert metrics["samples"] == len(engine.trained) == own + len(gold)
    assert len(gold) == 6  # 3 pairs: 16 games x 0.25 / 0.75 is 5.3 turns
    right = [turn.reward == 1.0 for turn in gold]
    assert metrics["gold_accuracy"] == sum(right) / 6
    assert metrics["gold_pairwise_accuracy"] == sum(map(all, zip(right[::2], right[1::2], strict=True))) / 3
    games = [name for name in plain if name.startswith(("assessor_", "injector_", "reward_", "vcf_", "label_"))]
    assert games and {name: metrics[name] for name in games} == {name: plain[name] for name in games}


def test_the_original_of_each_accepted_error_is_judged_and_learnt_from() -> None:
    engine, plain = Recording(), one_round(kl_coef=0.0)
    trainer = build(engine=engine, judge_originals=True, kl_coef=0.0)
    played = trainer.play(trainer.sampler.next_batch(), 1, PhaseClock())
    metrics = trainer.update(played, PhaseClock())
    errors = [episode for episode in played.episodes if episode.accepted and episode.mode == "error"]
    assert [each.turn.messages for each in played.originals] == [
        trainer.rollout.prompts.assessor(episode.original) for episode in errors
    ]
    learnt = engine.trained[plain["samples"] :]
    assert [(turn.note_id, turn.turn.role) for turn in learnt] == [(each.note_id, "assessor") for each in errors]
    assert [turn.reward for turn in learnt] == [{"CORRECT": 1.0}.get(each.verdict, -1.0) for each in played.originals]
    assert metrics["samples"] == plain["samples"] + len(errors)
    right = sum(each.verdict == "CORRECT" for each in played.originals)
    assert metrics["original_specificity"] == right / len(errors)
    games = [name for name in plain if name.startswith(("assessor_", "injector_", "reward_", "vcf_", "label_"))]
    assert {name: metrics[name] for name in games} == {name: plain[name] for name in games}


@pytest.mark.parametrize("verdict", ["CORRECT", "INCORRECT"])
def test_no_constant_verdict_pays_where_originals_are_judged(verdict: str) -> None:
    class Constant(Recording):
        def generate(self, prompts: Sequence[Messages], sampling: Sampling) -> list[Completion]:
            said = super().generate(prompts, sampling)
            if sampling.role == "injector":
                return said
            return [replace(each, text=f"final_answer: {verdict}") for each in said]

    trainer = build(engine=Constant(), judge_originals=True)
    played = trainer.play(trainer.sampler.next_batch(), 1, PhaseClock())
    errors = [episode for episode in played.episodes if episode.accepted and episode.mode == "error"]
    rewards = [episode.rewards.assessor for episode in errors] + [each.sample().reward for each in played.originals]
    assert errors and sum(reward or 0 for reward in rewards) == 0


def test_gold_turns_are_a_figure_alone_where_the_assessor_is_not_trained() -> None:
    engine = Recording()
    metrics = one_round(engine, gold_fraction=0.25, roles_trained="injector")
    assert metrics["gold_accuracy"] is not None
    assert {turn.turn.role for turn in engine.trained} == {"injector"}


def test_examples_join_the_update_and_nothing_else() -> None:
    engine, plain = Recording(), one_round()
    metrics = one_round(engine, sft_verdict_pairs=3, sft_loss_weight=0.5)
    examples = engine.trained[metrics["samples"] :]
    assert metrics["samples"] == plain["samples"] and len(examples) == 6
    assert [turn.turn.completion.text.splitlines()[-1] for turn in examples] == [
        "final_answer: INCORRECT",
        "final_answer: CORRECT",
    ] * 3
    assert all(set(turn.advantages) == {0.5} for turn in examples)
    assert metrics["advantage_assessor"] == plain["advantage_assessor"]  # of games alone
    assert [call for call in engine.calls if not call.startswith("generate")] == [
        f"logprobs reference {plain['samples']}",
        "target_turns",
        f"update {plain['samples'] + 6}",
    ]


def test_the_rounds_own_games_are_examples_too() -> None:
    engine, plain = Recording(), one_round()
    trainer = build(engine=engine, sft_games=9, roles_trained="assessor")
    played = trainer.play(trainer.sampler.next_batch(), 1, PhaseClock())
    metrics = trainer.update(played, PhaseClock())
    taught = [episode for episode in played.episodes if episode.accepted and episode.mode == "error"][:9]
    examples = engine.trained[metrics["samples"] :]
    assert taught and any(episode.accepted and episode.mode == "benign" for episode in played.episodes)
    assert [turn.turn.completion.text.splitlines()[-1] for turn in examples] == [
        *("final_answer: INCORRECT", "final_answer: CORRECT")
    ] * len(taught)
    assert metrics["sft_loss"] > 0 and "sft_loss" not in plain


def test_examples_go_on_where_no_game_is_accepted(caplog: pytest.LogCaptureFixture) -> None:
    engine = Recording()
    engine.player = lambda messages, rng: "no."
    history = build(engine=engine, sft_verdict_pairs=3, rounds=4).train()
    assert [row["optimizer_steps"] for row in history] == [1] * 4 and engine.updates == 4
    assert [row["samples"] for row in history] == [0] * 4 and all(row["sft_loss"] is not None for row in history)
    assert caplog.text.count("accepted no note") == 4


def test_gold_without_pairs_is_refused_before_the_run() -> None:
    notes = [Note(note.note_id, note.correct_note) for note in read_notes(sample_path("train")).notes[:20]]
    with pytest.raises(ConfigError, match="gold_fraction, sft_verdict_pairs and sft_edit_pairs need"):
        MedSeRLTrainer(BASE, ScriptedEngine(), notes, sft_verdict_pairs=1)


def test_correct_notes_are_played_on_and_the_samples_pairs_are_learnt_beside() -> None:
    correct = [Note(f"own-{i}", f"He has fever. He takes drug {i} daily. He is well.") for i in range(16)]
    engine = Recording()
    MedSeRLTrainer(
        BASE, engine, correct, None, None, max_rounds=1, sft_games=16, sft_verdict_pairs=3, gold_data="sample"
    ).train()
    pairs = {note.note_id for note in read_notes(sample_path("train")).notes}
    played = {turn.note_id for turn in engine.trained if turn.note_id.startswith("own-")}
    gold = [turn.note_id for turn in engine.trained if turn.note_id in pairs]
    assert played and len(gold) == 6 and len(set(gold)) == 3
    assert {turn.note_id for turn in engine.trained} == played | set(gold)


@pytest.mark.parametrize("taught", ["sft_verdict_pairs", "sft_games"])
def test_bare_answers_are_not_taught_to_an_assessor_that_reasons(taught: str) -> None:
    with pytest.raises(ConfigError, match="teach bare answers, and prompts 'full' ask the Assessor to reason"):
        build(prompts="full", **{taught: 1})
    build(prompts="full", sft_edit_pairs=1)
