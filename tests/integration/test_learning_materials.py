"""What arms of the learning experiment are made of: settings, notes, and controls that train in MedSeRL's place."""

from __future__ import annotations

import json
import lzma
import random
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from medserl.config import Settings, validate
from medserl.data.readers import read_notes
from medserl.data.sample_paths import sample_path
from medserl.engines.scripted import ScriptedEngine
from medserl.game.episode import Completion, Turn
from medserl.game.parsing import number_sentences
from medserl.game.prompts import Messages, load_prompts
from medserl.game.roles import Role
from medserl.game.setup import GameSetup
from medserl.knowledge.facts import load_facts
from medserl.rounds.clock import PhaseClock
from medserl.trainer import MedSeRLTrainer
from tests.learning_scripts import run, script
from tests.places import ROOT

MATERIALS = script("materials")
ARMS = script("run").read_arms(ROOT / "benchmarks" / "learning" / "arms.toml")


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_can_be_run(name: str) -> None:
    module, arm = script("run"), ARMS[name]
    settings = validate(module.plain(arm) | {"seed": 0})
    settings.require_trainable()
    assert arm.get("control") in (None, *script("controls").CONTROLS)
    materials = MATERIALS.NOTES
    assert settings.prompt_data in ("sample", *materials) and arm.get("start", "few_pairs") in materials


def test_of_few_gold_pairs_the_other_notes_have_no_twin() -> None:
    materials = MATERIALS
    mixed, pairs = materials.few_gold(), materials.few_pairs()
    assert len(mixed) == 910 and len(pairs) == 91
    assert [row for row in mixed if "incorrect_note" in row] == pairs


def test_an_arm_is_judged_on_a_fixed_share_of_each_test() -> None:
    rows = MATERIALS.larger_test((2, 3, 4))
    assert [row["split"] for row in rows] == ["test-seen"] * 2 + ["test-unseen"] * 3 + ["test-reworded"] * 4
    assert rows == MATERIALS.larger_test((2, 3, 4))


def test_a_recipe_is_chosen_on_pairs_that_judge_no_arm() -> None:
    chosen, judging = MATERIALS.choosing(), MATERIALS.larger_test(MATERIALS.TEST_PAIRS)
    assert [row["split"] for row in chosen] == ["test-reworded"] * 73 + ["test-seen"] * 73
    assert not {row["correct_note"] for row in chosen} & {row["correct_note"] for row in judging}


def test_notes_of_untaught_facts_have_twins_only_where_gold_is_to_be_shown() -> None:
    notes, pairs = MATERIALS.untaught(), MATERIALS.untaught_pairs()
    assert [row["correct_note"] for row in notes] == [row["correct_note"] for row in pairs]
    assert all("incorrect_note" in row for row in pairs) and not any("incorrect_note" in row for row in notes)


@pytest.mark.parametrize("mode", ["error", "benign"])
def test_a_random_swap_is_a_games_edit_like_any_other(mode: str) -> None:
    controls = script("controls")
    settings = Settings(edit_audit="reject", prompts="term")
    rollout = controls.RandomSwaps(ScriptedEngine(), load_prompts("term", "edit"), settings)
    notes = read_notes(sample_path("test")).notes[:12]
    games = [GameSetup(note, mode, "diagnosis" if mode == "error" else None) for note in notes]
    tried = rollout.inject(games, seed=1)
    assert tried == rollout.inject(games, seed=1) != rollout.inject(games, seed=2)
    accepted = [(game, tries[-1]) for game, tries in zip(games, tried, strict=True) if tries[-1].vcf.passed]
    assert len(accepted) > 6
    for game, attempt in accepted:
        assert attempt.modified != game.original
        assert all(edit.original for edit in attempt.vcf.edits)
    if mode == "error":  # a term has given way to another of its pool
        for game, attempt in accepted:
            assert attempt.modified.casefold() in set(one_term_changed(game.original.casefold()))


def one_term_changed(note: str) -> Iterator[str]:
    for pool in load_facts().pools:
        for form in (form.casefold() for term in pool.terms for form in term.forms):
            for found in re.finditer(re.escape(form), note):
                yield from (note[: found.start()] + b.name.casefold() + note[found.end() :] for b in pool.terms)


def test_where_there_is_no_term_there_is_no_swap() -> None:
    assert script("controls").swapped("He is well.", "error", random.Random(0)) is None


def test_plain_text_learns_the_notes_own_tokens_and_plays_nothing() -> None:
    controls = script("controls")
    notes = read_notes(sample_path("train")).notes[:8]
    settings = {"engine": "scripted", "rollout_batch_size": 4, "policy_loss_weight": 0.0, "sft_games": 4}
    trainer = controls.PlainTextTrainer(notes=notes, validation=None, run=None, max_rounds=2, **settings)
    words: dict[str, int] = {}

    def target_turns(role: Role, prompts: Sequence[Messages], replies: Sequence[str]) -> list[Turn]:
        rows = [tuple(words.setdefault(w, len(words)) for w in each[-1]["content"].split()) for each in prompts]
        return [Turn(role, p, Completion("", row, (), (), "stop")) for p, row in zip(prompts, rows, strict=True)]

    trainer.engine.target_turns = target_turns
    batch = trainer.sampler.next_batch()
    metrics = trainer.training_step(batch)
    assert metrics["games"] == 0 and metrics["sft_loss"] is not None
    examples = trainer.sft_turns([])
    assert [example.note_id for example in examples] == [game.note.note_id for game in batch]
    names = list(words)
    for example, game in zip(examples, batch, strict=True):
        told = " ".join(names[word] for word in example.turn.completion.token_ids)
        numbered = number_sentences(game.original)
        assert told and told in " ".join(numbered.split()) and len(told) > 0.9 * len(numbered)
    assert len(trainer.train()) == 1  # no note is accepted, and none was to be


@pytest.mark.parametrize(
    ("rows", "expected"), [([[1, 2, 3], [1, 2, 4]], 2), ([[1], [2]], 0), ([[1, 2], [1, 2, 3]], 2), ([[5, 6]], 2)]
)
def test_what_all_rows_begin_with(rows: list[list[int]], expected: int) -> None:
    assert script("controls").alike(rows) == expected


def test_labels_dealt_out_by_chance_are_the_rounds_own() -> None:
    controls = script("controls")
    options: dict[str, Any] = {
        "engine": "scripted", "prompts": "term", "rollout_batch_size": 32, "judge_originals": True, "seed": 3,
        "validation": None, "run": None,
    }  # fmt: skip
    plain, shuffled = MedSeRLTrainer(**options), controls.ShuffledLabelsTrainer(**options)
    own, dealt = (each.play(each.sampler.next_batch(), 1, PhaseClock()) for each in (plain, shuffled))
    same = [(e.note_id, e.mode, e.verdict, e.modified) for e in own.episodes]
    assert [(e.note_id, e.mode, e.verdict, e.modified) for e in dealt.episodes] == same
    assert [e.rewards for e in dealt.episodes] != [e.rewards for e in own.episodes]

    def labels(played: Any) -> list[bool]:
        judged = [e for e in played.episodes if e.assessor and e.verdict]
        right = [((e.verdict == "INCORRECT") == (e.rewards.assessor == 1.0)) for e in judged]
        return right + [each.gold.mode == "error" for each in played.originals]

    assert sum(labels(dealt)) == sum(labels(own)) and labels(dealt) != labels(own)


def test_in_turns_one_role_is_learnt_from_at_a_time() -> None:
    controls = script("controls")
    options = {"engine": "scripted", "rollout_batch_size": 8, "sft_verdict_pairs": 2, "validation": None, "run": None}
    trainer = controls.InTurnsTrainer(prompts="term", **options)
    learnt: list[set[str]] = []
    real = trainer.engine.update

    def update(turns: Any, *, learning_rate: float) -> Any:
        learnt.append({turn.turn.role for turn in turns})
        return real(turns, learning_rate=learning_rate)

    trainer.engine.update = update
    for number in (1, 20, 21, 40, 41):
        trainer.round = number - 1
        trainer.training_step(trainer.sampler.next_batch())
    assert learnt == [{"assessor"}, {"assessor"}, {"injector"}, {"injector"}, {"assessor"}]


def test_a_control_trains_in_medserls_place_and_goes_on(tmp_path: Path) -> None:
    extra = ("sft_games=4", "policy_loss_weight=0.0", "save_every=2")
    arm = ("--test-data", "larger", "--pairs", "1", "1", "1", "--experiment", "tried")
    assert run(tmp_path, "A2", extra=extra, arguments=arm) == ["evaluate", "controls random_swaps", "evaluate"]
    kept = tmp_path / "results" / "tried"
    rows = lzma.decompress((kept / "A2_seed0" / "metrics.jsonl.xz").read_bytes()).decode().splitlines()
    assert len(rows) == 1 + 3 and json.loads(rows[-1])["accepted_games"] > 4
    assert len(lzma.decompress((kept / "test_notes.jsonl.xz").read_bytes()).splitlines()) == 3
    shutil.rmtree(tmp_path / "outputs" / "tried" / "warmup")  # as on another machine, where what is kept is there
    assert run(tmp_path, "A2", extra=extra, arguments=arm) == []
    with pytest.raises(SystemExit, match="of other test notes"):
        run(tmp_path, "A2", extra=extra, arguments=(*arm, "--pairs", "1", "1", "2"))
    shutil.rmtree(tmp_path / "outputs" / "tried" / "A2_seed0" / "checkpoints" / "round_3")
    shutil.rmtree(tmp_path / "outputs" / "tried" / "A2_seed0" / "eval")
    assert run(tmp_path, "A2", extra=extra, arguments=arm) == ["controls random_swaps", "evaluate"]


def test_words_that_are_always_wrong_give_their_pairs_away() -> None:
    edits = script("edits")
    assert edits.words("He takes aspirin daily.", "He takes insulin daily.") == ("aspirin", "insulin")
    telling = [("aspirin", "insulin"), ("aspirin", "insulin"), ("aspirin", "insulin")]
    assert edits.ordered_by_words(telling) == 1.0
    dealt_evenly = [("aspirin", "insulin"), ("insulin", "aspirin")] * 10
    assert edits.ordered_by_words(dealt_evenly) == 0.0  # the other pairs lean the wrong way
    assert edits.ordered_by_words([("aspirin", "insulin"), ("gout", "fever")]) == 0.5
