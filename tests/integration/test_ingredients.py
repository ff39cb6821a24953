"""The trainer with what keeps the game teaching: each shows in the metrics, costs nothing when off, and resumes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from medserl.config import Settings
from medserl.data.readers import load_notes
from medserl.data.sample_paths import sample_path
from medserl.engines.base import Sampling, UpdateStats, WeightedTurn
from medserl.engines.scripted import ScriptedEngine
from medserl.errors import ConfigError, RunError
from medserl.evaluation.validation import Validation
from medserl.game.episode import Completion, Turn
from medserl.game.note import Note
from medserl.game.prompts import Messages
from medserl.rollout import derive_seed
from medserl.rounds.clock import PhaseClock
from medserl.runs.runlog import RunFolder, read_rows
from medserl.trainer import MedSeRLTrainer

BASE = Settings(
    engine="scripted",
    prompts="term",
    rollout_batch_size=16,
    max_epochs=2,  # of 40 notes: rounds of 16, 16 and 8 games, twice
    tensorboard=False,
    save_every=2,
    frozen_games=4,
    learning_rate=0.05,
)
ALL: dict[str, Any] = {
    "gold_fraction": 0.25,
    "sft_verdict_pairs": 3,
    "sft_edit_pairs": 2,
    "sft_games": 4,
    "judge_originals": True,
    "assessor_samples": 2,
    "assessor_reward": "correction",
    "past_fraction": 0.5,
    "past_pool": 2,
    "past_every": 1,
    "advantage_normalization": "per_text",
    "kl_target": 0.02,
    "adapters": "per_role",
    "prompts": "term",
    "eval_every": 2,
}
TIMINGS = ("seconds_", "tokens_per_second_", "peak_memory_gb")


class Recording(ScriptedEngine):
    """Writes down every call of the trainer's."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.samplings: list[Sampling] = []
        self.trained: list[WeightedTurn] = []
        self.rates: list[float] = []

    def generate(self, prompts: Sequence[Messages], sampling: Sampling) -> list[Completion]:
        self.calls.append(f"generate {sampling.role} {len(prompts)}")
        self.samplings.append(sampling)
        return super().generate(prompts, sampling)

    def target_turns(self, *arguments: Any) -> list[Turn]:
        self.calls.append("target_turns")
        return super().target_turns(*arguments)

    def logprobs(self, turns: Sequence[Turn], *, reference: bool = False) -> list[tuple[float, ...]]:
        self.calls.append(f"logprobs {'reference' if reference else 'policy'} {len(turns)}")
        return super().logprobs(turns, reference=reference)

    def update(self, turns: Sequence[WeightedTurn], *, learning_rate: float) -> UpdateStats:
        self.calls.append(f"update {len(turns)}")
        self.trained = list(turns)
        self.rates.append(learning_rate)
        return super().update(turns, learning_rate=learning_rate)

    def remember(self, name: str) -> None:
        self.calls.append(f"remember {name}")
        super().remember(name)


def build(
    run: RunFolder | None = None, engine: ScriptedEngine | None = None, rounds: int | None = None, **changes: Any
) -> MedSeRLTrainer:
    notes = load_notes(sample_path("train")).notes[:40]
    held_out = load_notes(sample_path("validation")).notes
    limit = {"max_rounds": rounds} if rounds else {}
    return MedSeRLTrainer(BASE, engine, notes, Validation(held_out, 4) if run else None, run, **changes, **limit)


def term_file() -> Path:
    return Path(str(files("medserl.game.prompts"))) / "term.toml"


def one_round(engine: ScriptedEngine | None = None, **changes: Any) -> dict[str, Any]:
    trainer = build(engine=engine, **changes)
    return trainer.training_step(trainer.sampler.next_batch())


def adding(words: Sequence[str], answer: str = "final_answer: CORRECT") -> Recording:
    """The Injector adds these words in turn, each to a note's first sentence; the Assessor says always the same."""
    engine, turn = Recording(), iter(range(1000))

    def player(messages: Messages, _: Any) -> str:
        content = messages[-1]["content"]
        if "final_answer" in content:
            return answer
        first = next(line for line in content.split("\n") if line.startswith("0 "))
        return f"{first[:-1]} {words[next(turn) % len(words)]}."

    engine.player = player
    return engine


# -- off -----------------------------------------------------------------------------------------------------


def test_off_costs_no_call() -> None:
    """The engine is asked for what the plan as written needs: the attempts, the verdicts, the reference, the update."""
    twin, engine = build(), Recording()
    episodes = twin.play(twin.sampler.next_batch(), 1, PhaseClock()).episodes
    trainer = build(engine=engine)
    metrics = trainer.training_step(trainer.sampler.next_batch())
    tries = [len(episode.attempts) for episode in episodes]
    accepted = sum(episode.accepted is not None for episode in episodes)
    assert engine.calls == [
        *(f"generate injector {sum(made > number for made in tries)}" for number in range(max(tries))),
        f"generate assessor {accepted}",
        f"logprobs reference {2 * accepted}",
        f"update {2 * accepted}",
    ]
    assert max(tries) > 1
    seed = derive_seed(BASE.seed, "round", 1)
    parts = [*(("inject", number) for number in range(max(tries))), ("assess",)]
    assert [(each.seed, each.snapshot) for each in engine.samplings] == [(derive_seed(seed, *p), None) for p in parts]
    assert not [name for name in metrics if name.startswith(("gold_", "past_")) or "_past" in name]
    assert metrics["kl_coef"] == BASE.kl_coef  # shown in any case


def test_off_keeps_nothing() -> None:
    engine = Recording()
    build(engine=engine).train()
    assert not [call for call in engine.calls if call.startswith(("remember", "target_turns"))]
    assert engine._past == {}


# -- lessons alone -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("roles", ["both", "assessor"])
def test_without_a_policy_loss_a_round_costs_the_edits_and_the_lessons_made_of_them(roles: str) -> None:
    engine, alone = Recording(), {"policy_loss_weight": 0.0, "sft_games": 16, "roles_trained": roles}
    metrics = one_round(engine, **alone)
    asked = [call for call in engine.calls if not call.startswith("generate injector")]
    errors = metrics["accepted_games"] * metrics["accepted_error_share"]
    assert asked == ["target_turns", f"update {metrics['accepted_games'] + round(errors)}"]
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
    }


def test_where_no_lesson_is_made_of_games_none_is_played(caplog: pytest.LogCaptureFixture) -> None:
    engine = Recording()
    history = build(engine=engine, policy_loss_weight=0.0, sft_verdict_pairs=3, rounds=4).train()
    assert engine.calls == ["target_turns", "update 6"] * 4
    assert [row["games"] for row in history] == [0] * 4 and "accepted no note" not in caplog.text


def test_lessons_alone_starve_where_the_injector_does() -> None:
    engine = Recording()
    engine.player = lambda messages, rng: "no."
    with pytest.raises(RunError, match="no note was accepted in 3 rounds in a row"):
        build(engine=engine, policy_loss_weight=0.0, sft_games=3, rounds=4).train()
    assert engine.updates == 0


def test_the_weight_scales_the_policy_loss_and_no_lesson() -> None:
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


def test_lessons_join_the_update_and_nothing_else() -> None:
    engine, plain = Recording(), one_round()
    metrics = one_round(engine, sft_verdict_pairs=3, sft_loss_weight=0.5)
    lessons = engine.trained[metrics["samples"] :]
    assert metrics["samples"] == plain["samples"] and len(lessons) == 6
    assert [turn.turn.completion.text.splitlines()[-1] for turn in lessons] == [
        "final_answer: INCORRECT",
        "final_answer: CORRECT",
    ] * 3
    assert all(set(turn.advantages) == {0.5} for turn in lessons)
    assert metrics["advantage_assessor"] == plain["advantage_assessor"]  # of games alone
    assert [call for call in engine.calls if not call.startswith("generate")] == [
        f"logprobs reference {plain['samples']}",
        "target_turns",
        f"update {plain['samples'] + 6}",
    ]


def test_the_rounds_own_games_are_lessons_too() -> None:
    engine, plain = Recording(), one_round()
    trainer = build(engine=engine, sft_games=9, roles_trained="assessor")
    played = trainer.play(trainer.sampler.next_batch(), 1, PhaseClock())
    metrics = trainer.update(played, PhaseClock())
    taught = [episode for episode in played.episodes if episode.accepted][:9]
    lessons = engine.trained[metrics["samples"] :]
    right = {"error": ["final_answer: INCORRECT", "final_answer: CORRECT"], "benign": ["final_answer: CORRECT"]}
    assert {episode.mode for episode in taught} == {"error", "benign"}
    assert [turn.turn.completion.text.splitlines()[-1] for turn in lessons] == [
        said for e in taught for said in right[e.mode]
    ]
    assert metrics["lesson_nll"] > 0 and "lesson_nll" not in plain


def test_lessons_go_on_where_no_game_is_accepted(caplog: pytest.LogCaptureFixture) -> None:
    engine = Recording()
    engine.player = lambda messages, rng: "no."
    history = build(engine=engine, sft_verdict_pairs=3, rounds=4).train()
    assert [row["optimizer_steps"] for row in history] == [1] * 4 and engine.updates == 4
    assert [row["samples"] for row in history] == [0] * 4 and all(row["lesson_nll"] is not None for row in history)
    assert caplog.text.count("accepted no note") == 4


def test_gold_without_pairs_is_refused_before_the_run() -> None:
    notes = [Note(note.note_id, note.correct_note) for note in load_notes(sample_path("train")).notes[:20]]
    with pytest.raises(ConfigError, match="gold_fraction, sft_verdict_pairs and sft_edit_pairs need"):
        MedSeRLTrainer(BASE, ScriptedEngine(), notes, sft_verdict_pairs=1)


# -- the learning rate ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({}, [1, 1, 1, 1]),
        ({"lr_warmup_rounds": 3}, [0.25, 0.5, 0.75, 1]),
        ({"lr_schedule": "linear"}, [1, 0.75, 0.5, 0.25]),
        ({"lr_warmup_rounds": 1, "lr_schedule": "linear"}, [0.5, 0.75, 0.5, 0.25]),
    ],
)
def test_the_learning_rate_rises_and_falls(tmp_path: Path, changes: dict[str, Any], parts: list[float]) -> None:
    engine = Recording()
    rows = build(folder(tmp_path / "run"), engine, rounds=4, learning_rate=1e-3, **changes).train()
    assert engine.rates == [row["lr"] for row in rows] == pytest.approx([1e-3 * part for part in parts])


# -- rewards and advantages ----------------------------------------------------------------------------------


def test_several_samples_of_the_assessor(tmp_path: Path) -> None:
    run, engine = folder(tmp_path / "run"), Recording()
    trainer = build(run, engine, rounds=1, assessor_samples=2)
    (metrics,) = trainer.train()
    games = [row for row in read_rows(run.path / "episodes.jsonl") if row["modified"]]
    assert metrics["samples"] == 3 * len(games) == 3 * metrics["accepted_games"]
    worth = {"INCORRECT": {"error": -1.0, "benign": 1.0}, "CORRECT": {"error": 1.0, "benign": -1.0}}
    for row in games:
        verdicts = [row["verdict"], *row["more_verdicts"]]
        assert row["reward_injector"] == sum(worth[verdict][row["mode"]] for verdict in verdicts) / 2
    assert {row["reward_injector"] for row in games} == {-1.0, 0.0, 1.0}


def test_originals_are_read_as_often_as_their_edits() -> None:
    trainer = build(engine=Recording(), judge_originals=True, assessor_samples=3, advantage_normalization="per_text")
    played = trainer.play(trainer.sampler.next_batch(), 1, PhaseClock())
    errors = [episode.note_id for episode in played.episodes if episode.accepted and episode.mode == "error"]
    assert [each.gold.note_id for each in played.originals] == [name for name in errors for _ in range(3)]
    trainer.update(played, PhaseClock())
    by_text: dict[str, list[WeightedTurn]] = {}
    for turn in trainer.engine.trained:
        if turn.turn.role == "assessor":
            by_text.setdefault(turn.turn.messages[-1]["content"], []).append(turn)
    alike = [mine for mine in by_text.values() if len({turn.reward for turn in mine}) == 1]
    assert {len(mine) for mine in by_text.values()} == {3} and 0 < len(alike) < len(by_text)
    for mine in alike:  # what all answers to a text earn teaches nothing: the KL of the scripted engine is 0
        assert all(advantage == pytest.approx(0.0, abs=1e-6) for turn in mine for advantage in turn.advantages)


def test_the_words_are_paid_for_in_games_originals_and_gold_turns() -> None:
    engine = adding(["daily"], "should_say: daily\nfinal_answer: INCORRECT")
    trainer = build(engine=engine, judge_originals=True, gold_fraction=0.25, assessor_reward="correction", kl_coef=0.0)
    trainer.training_step(trainer.sampler.next_batch())
    rewards = {turn.reward for turn in engine.trained if turn.turn.role == "assessor"}
    assert rewards == {0.0, -1.0}  # the note says daily because the Injector put it in; no original or gold note does


def test_a_prompt_set_that_asks_for_no_words_cannot_pay_for_them(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    plain = re.sub(r"^(sentence|should_say|it_says): .*\n", "", term_file().read_text(), flags=re.MULTILINE)
    own.write_text(plain.replace("Write sentence, should_say, it_says, final_answer.", "Write final_answer."))
    with pytest.raises(ConfigError, match="assessor_reward correction"):
        build(engine=Recording(), prompts=str(own), assessor_reward="correction")


@pytest.mark.parametrize(("gap", "factor"), [(0.0, 0.98), (0.02, 1.0), (5.0, 1.02)])
def test_kl_target_steers_the_coefficient(gap: float, factor: float) -> None:
    class Drifted(ScriptedEngine):
        def logprobs(self, turns: Sequence[Turn], *, reference: bool = False) -> list[tuple[float, ...]]:
            return [tuple(p - gap * reference for p in row) for row in super().logprobs(turns)]

    trainer = build(engine=Drifted(), kl_target=0.02)
    steps = [trainer.training_step(trainer.sampler.next_batch())["kl_coef"] for _ in range(2)]
    assert steps == pytest.approx([0.01 * factor, 0.01 * factor**2], rel=1e-4)


def test_per_mode_a_game_that_the_mode_alone_decides_teaches_nothing() -> None:
    """The Assessor answers alike whatever it reads: by role one mode is pushed up and the other down, by mode none."""
    engines = {name: adding(["daily"]) for name in ("per_role", "per_mode")}
    metrics = {name: one_round(engines[name], advantage_normalization=name, kl_coef=0.0) for name in engines}
    assert 0 < metrics["per_mode"]["accepted_error_share"] < 1
    moved = {name: {value for turn in engine.trained for value in turn.advantages} for name, engine in engines.items()}
    assert moved["per_mode"] == {0.0} and min(moved["per_role"]) < 0 < max(moved["per_role"])


# -- past policies -------------------------------------------------------------------------------------------


def test_past_policies_play_a_share_of_the_games_and_are_not_trained(tmp_path: Path) -> None:
    run, engine = folder(tmp_path / "run"), Recording()
    trainer = build(run, engine, rounds=4, past_fraction=0.5, past_every=1, past_pool=2)
    history = trainer.train()
    assert [call for call in engine.calls if call.startswith("remember")] == [f"remember past_{i}" for i in range(5)]
    assert list(engine._past) == trainer.past.names == ["past_3", "past_4"]
    assert len(set(engine._past.values())) == 2 and engine._past["past_4"] == engine.bias
    rows = read_rows(run.path / "episodes.jsonl")
    for metrics in history:
        games = [row for row in rows if row["round"] == metrics["round"]]
        seats = Counter(row["past_role"] for row in games)
        assert seats == {None: len(games) / 2, "injector": len(games) / 4, "assessor": len(games) / 4}
        played = [row for row in games if row["modified"]]
        past = [row["past_role"] for row in played if row["past_role"]]
        assert metrics["past_games"] == len(past)
        assert metrics["samples"] == 2 * len(played) - len(past)
    assert len(engine.trained) == history[-1]["samples"]


# -- all at once ---------------------------------------------------------------------------------------------


def folder(path: Path, **changes: Any) -> RunFolder:
    return RunFolder.create(BASE.with_overrides(output_dir=str(path), **changes))


def outcome(run: Path) -> tuple[list[dict[str, Any]], str, list[str]]:
    """Metrics without timings, the episodes, and everything in the last checkpoint."""
    rows = [{k: v for k, v in row.items() if not k.startswith(TIMINGS)} for row in read_rows(run / "metrics.jsonl")]
    saved = sorted((run / "checkpoints" / "round_6").iterdir())
    return rows, (run / "episodes.jsonl").read_text(encoding="utf-8"), [path.read_text("utf-8") for path in saved]


def test_a_run_with_everything_on_resumes_bit_identically(tmp_path: Path) -> None:
    build(folder(tmp_path / "straight", **ALL), **ALL).train()
    run = folder(tmp_path / "stopped", **ALL)
    build(run, rounds=4, **ALL).train()
    run.close()
    run, _ = RunFolder.reopen(tmp_path / "stopped")
    second = build(run, **ALL)
    second.load_checkpoint()
    assert second.round == 4 and second.past.names == ["past_3", "past_4"]
    second.train()
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "straight")
    rows, _, _ = outcome(tmp_path / "straight")
    shown = {"gold_accuracy", "lesson_nll", "past_games", "kl_coef"}
    assert all(shown <= row.keys() for row in rows[1:])
    assert rows[-1]["kl_coef"] == pytest.approx(0.01 * 0.98**6)  # the scripted policy never leaves its reference
