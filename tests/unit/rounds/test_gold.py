"""Gold pairs: the right words of a pair, what a round draws, what is rewarded and what is learnt as it stands."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.config import Settings
from medserl.data.readers import read_notes
from medserl.data.sample_paths import sample_path
from medserl.engines.base import WeightedTurn
from medserl.engines.scripted import ScriptedEngine
from medserl.errors import ConfigError
from medserl.game.answers import Difference, parting
from medserl.game.note import Note
from medserl.game.parsing import note_sentences, parse_answer, parse_injection
from medserl.game.prompts import load_prompts
from medserl.game.text import split_words
from medserl.game.vcf import apply_vcf
from medserl.rollout import VCFRolloutGenerator
from medserl.rounds.auxiliary import target_turns_of
from medserl.rounds.gold_pairs import GoldPairs, GoldText, gold_metrics

PAIRS = [note for note in read_notes(sample_path("train")).notes if note.is_pair][:10]
NOTE = "A man has fever and a cough with green sputum. The right lung is dull. He is given amoxicillin."


def gold_pairs(notes: list[Note] | None = None, **changes: Any) -> GoldPairs:
    return GoldPairs(PAIRS if notes is None else notes, Settings(**{"rollout_batch_size": 8, **changes}))


def rollout_of(engine: ScriptedEngine | None = None, prompts: str = "term", **changes: Any) -> VCFRolloutGenerator:
    return VCFRolloutGenerator(engine or ScriptedEngine(), load_prompts(prompts, "edit"), Settings(**changes))


def taught(pairs: GoldPairs, engine: ScriptedEngine, number: int = 1, prompts: str = "term") -> list[WeightedTurn]:
    """What a round learns from the pairs."""
    return target_turns_of(
        engine, pairs.examples(load_prompts(prompts, "edit"), number), pairs.settings.sft_loss_weight
    )


def drawn(pairs: GoldPairs, rounds: int, games: int = 8) -> list[list[str]]:
    """The ids of the pairs that each round practises on."""
    rollout = rollout_of()
    return [[t.gold.note_id for t in pairs.judge(rollout, games, r)[::2]] for r in range(1, rounds + 1)]


# -- where twins part -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("correct", "incorrect", "words"),
    [
        ("He has a type 2 diabetes.", "He has a type 1 diabetes.", "type 2 diabetes"),
        ("The dose is 5 mg, twice a day.", "The dose is 50 g, twice a day.", "is 5 mg, twice"),
        ("He has no fever today.", "He has fever today.", "has no fever"),  # the wrong twin lacks words
        ("He has fever today.", "He has no fever today.", "has fever"),  # ... or has too many
        ("Left lung is dull.", "Right lung is dull.", "Left lung"),  # at the beginning
        ("Lung is dull.", "Left lung is dull.", "Lung"),
        ("He is given aspirin.", "He is given warfarin.", "given aspirin"),  # at the end
        ("He is given aspirin.", "He is given aspirin daily.", "aspirin"),
        ("Aspirin daily.", "Warfarin weekly.", "Aspirin daily"),  # at both
        ("He is well.", "he is well", "well"),  # equal but for case and signs
        ("very very ill", "very ill", "very very ill"),  # which of them is missing nobody can tell
        ("A  man\nhas\tfever.", "A man has cough.", "has fever"),
        ("He is well.", "", "He is well"),
        ("", "He is ill.", ""),
        (" ... ", "He is ill.", ""),
    ],
)
def test_the_words_where_twins_part(correct: str, incorrect: str, words: str) -> None:
    assert parting(correct, incorrect, is_error=False).says == words
    assert parting(correct, incorrect, is_error=False).should_say == words  # of a right note nothing is to be changed
    assert parting(incorrect, correct, is_error=True).should_say == words


PIECES = ["a", "b", "no", "5", "mg,", "fever.", "\n", "É", "ﬁ", "%", "x2", "'"]
NOTES = st.lists(st.sampled_from(PIECES), max_size=8).map(" ".join)


@given(NOTES | st.text(max_size=30), NOTES | st.text(max_size=30))
def test_the_words_are_a_run_of_the_notes_words(correct: str, incorrect: str) -> None:
    words, run = split_words(correct), parting(correct, incorrect, is_error=False).says
    assert bool(run) == bool(words.keys)
    assert run in " ".join(words.text.split())  # as text: a sign may be a word only after what stands before it


@given(st.lists(st.sampled_from("abcd"), min_size=3, max_size=8), st.data())
def test_the_words_hold_what_was_replaced(words: list[str], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(words) - 1))
    right = [*words[:place], "right", *words[place + 1 :]]
    wrong = [*words[:place], "wrong", *words[place + 1 :]]
    around = slice(max(0, place - 1), place + 2)
    found = parting(" ".join(wrong), " ".join(right), is_error=True)
    assert found == Difference(0, " ".join(wrong[around]), " ".join(right[around]))


@pytest.mark.parametrize(
    ("text", "twin", "sentence"),
    [
        ("He is ill. He has type 1 diabetes. He is sad.", "He is ill. He has type 2 diabetes. He is sad.", 1),
        ("She is ill. He rests.", "He is ill. He rests.", 0),
        ("He is ill. He rests.", "He is ill. He rests. He sleeps.", 1),  # what is missing would follow the last one
        ("He is ill. He rests.", "He is ill today. He rests.", 0),
        ("He is very ill. He rests.", "He is ill. He rests.", 0),
        ("He takes aspirin. Then rest.", "He takes heparin. Then rest.", 0),  # quoted without the next sentence's words
        ("Dose:\n- aspirin\n- warfarin", "Dose:\n- aspirin\n- heparin", 2),
        ("He is ill.\r\nHe\u00a0rests well .", "He is ill.\r\nHe\u00a0rests badly .", 1),
        ("", "He is ill.", 0),
    ],
)
def test_the_sentence_is_the_one_that_the_note_shows_there(text: str, twin: str, sentence: int) -> None:
    difference = parting(text, twin, is_error=True)
    assert difference.sentence == sentence
    assert not text or difference.says
    assert difference.says in " ".join(note_sentences(text)[sentence].split()) if text else difference.says == ""


# -- which pairs ---------------------------------------------------------------------------------------------


def test_both_twins_of_a_pair_follow_each_other() -> None:
    turns = gold_pairs(gold_fraction=0.5).judge(rollout_of(), 8, 1)
    by_id = {note.note_id: note for note in PAIRS}
    assert len(turns) == 8
    for wrong, right in zip(turns[::2], turns[1::2], strict=True):
        note = by_id[wrong.gold.note_id]
        twins = note.incorrect_note or "", note.correct_note or ""
        assert wrong.gold == GoldText(note.note_id, twins[0], "error", twins[1])
        assert right.gold == GoldText(note.note_id, twins[1], "benign", twins[0])
        assert wrong.turn.messages == rollout_of().prompts.assessor(note.incorrect_note or "")


def test_every_pair_comes_once_in_an_epoch_in_an_order_of_its_own() -> None:
    rounds = drawn(gold_pairs(gold_fraction=0.5), rounds=5)  # 4 of the 10 pairs a round: 2 epochs
    order = [pair for ids in rounds for pair in ids]
    first, second = order[:10], order[10:]
    assert set(first) == set(second) == {note.note_id for note in PAIRS}
    assert first != second


def test_a_round_draws_by_its_number_alone() -> None:
    rounds = drawn(gold_pairs(gold_fraction=0.5), rounds=5)
    again = gold_pairs(gold_fraction=0.5)
    for number in (4, 1, 3):
        turns = again.judge(rollout_of(), 8, number)
        assert [turn.gold.note_id for turn in turns[::2]] == rounds[number - 1]
    assert drawn(gold_pairs(gold_fraction=0.5, seed=1), rounds=5) != rounds


def test_every_round_samples_anew_and_the_same_again() -> None:
    coin = ScriptedEngine(lambda messages, rng: str(rng.random()))
    pairs = gold_pairs(PAIRS[:1], gold_fraction=0.5, rollout_batch_size=2)
    once, again = (
        [turn.turn.completion.text for r in range(1, 6) for turn in pairs.judge(rollout_of(coin), 2, r)]
        for _ in range(2)
    )
    assert once == again and len(set(once)) == 10


def test_a_smaller_last_batch_repeats_no_pair() -> None:
    """The last batch of an epoch of notes may be half as large; the gold pairs' own epoch is not over then."""
    pairs, rollout = gold_pairs(gold_fraction=0.5), rollout_of()
    turns = [t for r, games in ((1, 8), (2, 8), (3, 4)) for t in pairs.judge(rollout, games, r)]
    assert max(Counter(turn.gold.note_id for turn in turns[::2]).values()) == 1
    assert len(turns) == 8 + 8 + 4


def test_only_pairs_that_the_game_would_accept() -> None:
    fine = Note("fine", NOTE, NOTE.replace("right", "left"))
    two_words = Note("two words", NOTE, NOTE.replace(" green sputum", ""))
    rejected = [
        Note("equal", NOTE, NOTE.upper()),
        Note("two sentences", NOTE, NOTE.replace("green", "clear").replace("amoxicillin", "aspirin")),
        Note("no twin", NOTE),
        Note("no correct twin", None, NOTE),
    ]
    found = gold_pairs([*rejected, fine, two_words], sft_verdict_pairs=1)
    assert [[twin.note_id for twin in pair] for pair in found.pairs] == [["fine"] * 2, ["two words"] * 2]
    strict = gold_pairs([fine, two_words], sft_verdict_pairs=1, vcf_max_word_edits=1)
    assert [pair[0].note_id for pair in strict.pairs] == ["fine"]
    for wanted in ({"gold_fraction": 0.5}, {"sft_verdict_pairs": 1}, {"sft_edit_pairs": 1}):
        with pytest.raises(ConfigError, match="found none") as caught:
            gold_pairs(rejected, **wanted)
        assert "\n" not in str(caught.value)
    assert gold_pairs(rejected).pairs == gold_pairs([fine]).pairs == []  # not wanted: not even looked at


def test_a_share_of_gold_turns_that_makes_no_pair_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"gold_fraction 0\.01 of 8 games is less than one pair"):
        gold_pairs(gold_fraction=0.01, rollout_batch_size=8)


@pytest.mark.parametrize(
    ("fraction", "games", "samples", "pairs"),
    [(0.0, 8, 1, 0), (0.5, 8, 1, 4), (0.2, 32, 1, 4), (0.25, 32, 3, 16), (0.75, 4, 1, 6)],
)
def test_the_share_is_of_all_the_assessors_turns(fraction: float, games: int, samples: int, pairs: int) -> None:
    """f = 2 p / (2 p + games x samples), as near as whole pairs can come."""
    settings = {"gold_fraction": fraction, "assessor_samples": samples, "rollout_batch_size": games}
    assert len(gold_pairs(**settings).judge(rollout_of(), games, 1)) == 2 * pairs


# -- rewards and figures -------------------------------------------------------------------------------------


def sceptic() -> ScriptedEngine:
    """Finds an error in every text, but says nothing of those with a question mark."""
    return ScriptedEngine(
        lambda messages, rng: "?" if "?" in messages[-1]["content"].split("\n")[0] else "final_answer: INCORRECT"
    )


def test_gold_turns_are_rewarded_by_the_truth() -> None:
    notes = [Note("a", NOTE, NOTE.replace("right", "left")), Note("b", f"So? {NOTE}", f"So? {NOTE[:-12]}aspirin.")]
    turns = gold_pairs(notes, gold_fraction=0.5, rollout_batch_size=4).judge(rollout_of(sceptic()), 4, 1)
    rewards = {(turn.gold.note_id, turn.gold.mode): turn.sample().reward for turn in turns}
    assert rewards == {("a", "error"): 1.0, ("a", "benign"): -1.0, ("b", "error"): -1.0, ("b", "benign"): -1.0}
    assert all(turn.sample().turn is turn.turn and turn.turn.role == "assessor" for turn in turns)
    assert gold_metrics(turns) == {
        "gold_accuracy": 0.25,
        "gold_pairwise_accuracy": 0.0,
        "gold_recall": 0.5,
        "gold_specificity": 0.0,
    }
    assert gold_metrics([]) == {}


def test_pairwise_accuracy_needs_both_twins() -> None:
    (wrong, right), rollout = gold_pairs([PAIRS[0]], sft_verdict_pairs=1).pairs[0], rollout_of(sceptic())
    practised = gold_pairs(PAIRS[:1], gold_fraction=0.5, rollout_batch_size=2).judge(rollout, 2, 1)
    both = [replace(turn, verdict={"error": "INCORRECT", "benign": "CORRECT"}[turn.gold.mode]) for turn in practised]
    assert [turn.gold for turn in practised] == [wrong, right]
    assert gold_metrics([*practised, *both])["gold_pairwise_accuracy"] == 0.5


# -- examples -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompts", ["term", "full"])
def test_examples_are_the_right_answers_to_both_twins(prompts: str) -> None:
    engine = ScriptedEngine()
    pairs = gold_pairs(sft_verdict_pairs=3, sft_loss_weight=0.25)
    examples = taught(pairs, engine, prompts=prompts)
    shown = load_prompts(prompts, "edit")
    by_id = {twins[0].note_id: twins for twins in pairs.pairs}
    assert len(examples) == 6 and len({example.note_id for example in examples}) == 3
    for i, example in enumerate(examples):
        gold = by_id[example.note_id][i % 2]
        verdict = {"error": "INCORRECT", "benign": "CORRECT"}[gold.mode]
        assert example.turn.role == "assessor"
        assert example.turn.messages == shown.assessor(gold.text)
        said = parse_answer(example.turn.completion.text, note_sentences(gold.text))
        assert said.verdict == verdict
        if prompts == "term" and gold.mode == "error":
            assert gold.text.replace(said.says or "?", said.should_say or "?") == gold.twin
            assert (said.correction or "?") in " ".join(gold.twin.split())
        n = len(example.turn.completion.token_ids)
        assert example.advantages == (0.25,) * n
        assert example.old_logprobs is None and example.ref_logprobs is None
    assert engine.update(examples, learning_rate=1e-4).sft_loss == pytest.approx(math.log(2))


def test_examples_of_both_roles_are_the_games_own_answers() -> None:
    engine, pairs = ScriptedEngine(), gold_pairs(sft_verdict_pairs=3, sft_edit_pairs=2)
    learnt = taught(pairs, engine)
    examples = [example.turn for example in learnt]
    injections = [turn for turn in examples if turn.role == "injector"]
    assert [turn.role for turn in examples].count("assessor") == 6 and 2 <= len(injections) <= 4
    assert {each.note_id for each in learnt if each.turn.role == "injector"} <= {
        each.note_id for each in learnt if each.turn.role == "assessor"
    }
    originals = {str(rollout_of(engine).prompts.injector(note.correct_note, mode, kind)): (note, mode)
                 for note in PAIRS for mode, kind in (("error", note.error_type), ("benign", None))}  # fmt: skip
    for turn in injections:
        note, mode = originals[str(turn.messages)]
        modified = parse_injection(turn.completion.text, note.correct_note, "edit")
        assert apply_vcf(note.correct_note, modified).passed
        assert (modified == note.incorrect_note) == (mode == "error")


def test_examples_come_in_epochs_of_their_own() -> None:
    pairs = gold_pairs(sft_verdict_pairs=5, gold_fraction=0.5)
    rounds = [[t.note_id for t in taught(pairs, ScriptedEngine(), r)[::2]] for r in (1, 2)]
    assert {pair for ids in rounds for pair in ids} == {note.note_id for note in PAIRS}
    assert rounds[0][:4] != drawn(pairs, 1)[0]


def test_without_examples_there_is_nothing_to_learn() -> None:
    class Mute(ScriptedEngine):
        def target_turns(self, *_: Any) -> Any:
            raise AssertionError("nothing was to be learnt")

    assert taught(gold_pairs(gold_fraction=0.5), Mute()) == []
