"""Asking a model for its judgements: batches, answers, votes, and the probabilities of the two verdicts."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medserl.config import Settings
from medserl.engines import create_engine
from medserl.engines.base import Sampling
from medserl.engines.local import LocalEngine
from medserl.engines.reply_probabilities import alternatives, probabilities_by_logprobs, shares
from medserl.engines.scripted import ScriptedEngine
from medserl.errors import ConfigError, ModelError
from medserl.evaluation.predict import COMPLETIONS_AT_ONCE, Said, predict, vote
from medserl.evaluation.predictions import LabelledText
from medserl.game.episode import Completion
from medserl.game.parsing import Answer, with_each_verdict
from medserl.game.prompts import Messages, load_prompts
from medserl.rollout import VCFRolloutGenerator

CORRECT, INCORRECT = "final_answer: CORRECT", "final_answer: INCORRECT"


def labelled(count: int) -> list[LabelledText]:
    """Lone texts `Note 0. It is short.`, `Note 1. ...`."""
    return [LabelledText(f"t{i}", f"Note {i}. It is short.", is_error=False) for i in range(count)]


class Recording(ScriptedEngine):
    """Answers by a player, and by the number that a note ends in weighs what it is asked to weigh."""

    def __init__(self, player: Any = None) -> None:
        super().__init__(player)
        self.asked: list[tuple[list[Messages], Sampling]] = []
        self.weighed: list[tuple[str, tuple[str, ...]]] = []

    def generate(self, prompts: Sequence[Messages], sampling: Sampling) -> list[Completion]:
        self.asked.append((list(prompts), sampling))
        return super().generate(prompts, sampling)

    def reply_probabilities(
        self, prompts: Sequence[Messages], replies: Sequence[tuple[str, ...]]
    ) -> list[tuple[float, ...]]:
        self.weighed += [(prompt[-1]["content"], each) for prompt, each in zip(prompts, replies, strict=True)]
        return [(1 - share, share) for share in (len(each[0]) / 100 for each in replies)]


def rollout(engine: ScriptedEngine, **settings: Any) -> VCFRolloutGenerator:
    return VCFRolloutGenerator(engine, load_prompts("term", "edit"), Settings(engine="scripted", **settings))


def always(text: str) -> Recording:
    return Recording(lambda messages, rng: text)


# -- batches, settings -------------------------------------------------------------------------------------


def test_by_default_one_greedy_verdict_a_text_and_no_probabilities() -> None:
    engine = Recording(lambda messages, rng: INCORRECT if "Note 7." in messages[-1]["content"] else CORRECT)
    found = predict(rollout(engine), labelled(COMPLETIONS_AT_ONCE + 1))
    assert [one.text_id for one in found] == [f"t{i}" for i in range(COMPLETIONS_AT_ONCE + 1)]
    assert [one.text_id for one in found if one.verdict == "INCORRECT"] == ["t7"]
    assert {(one.p_incorrect, one.error_sentence_id, one.correction) for one in found} == {(None, None, None)}
    assert found[7].completion == INCORRECT
    assert [len(prompts) for prompts, _ in engine.asked] == [COMPLETIONS_AT_ONCE, 1]
    assert {sampling for _, sampling in engine.asked} == {Sampling(64, temperature=0.0)}
    assert engine.weighed == []


def test_no_text_no_call() -> None:
    engine = Recording()
    assert predict(rollout(engine), [], probabilities=True) == []
    assert engine.asked == []


def test_no_sample_is_an_error() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        predict(rollout(Recording()), labelled(1), samples=0)


# -- answers ----------------------------------------------------------------------------------------------


def test_numbered_sentences_are_shown_and_all_three_answers_read() -> None:
    said = f"sentence: 1\nshould_say: is long\nit_says: is short\n{INCORRECT}"
    text = LabelledText("t", "Unused. Text.", True, sentences=("As published .", "It is short.", "The end."))
    engine = always(said)
    (found,) = predict(rollout(engine), [text])
    assert (found.verdict, found.error_sentence_id, found.correction) == ("INCORRECT", 1, "It is long.")
    assert "0 As published .\n1 It is short.\n2 The end." in engine.asked[0][0][0][-1]["content"]


def test_a_text_without_sentences_is_split_and_numbers_beyond_it_do_not_count() -> None:
    text = LabelledText("t", "She has fever. She is well.", True)
    engine = always(f"{INCORRECT}\nerror_sentence: 2")
    (found,) = predict(rollout(engine), [text])
    assert "0 She has fever.\n1 She is well." in engine.asked[0][0][0][-1]["content"]
    assert (found.verdict, found.error_sentence_id) == ("INCORRECT", None)
    (found,) = predict(rollout(always(f"{INCORRECT}\nerror_sentence: 1")), [text])
    assert found.error_sentence_id == 1


# -- samples -----------------------------------------------------------------------------------------------


def test_samples_have_seeds_of_their_own_whatever_else_is_asked() -> None:
    texts = labelled(40)
    whole, part = Recording(), Recording()
    found = predict(rollout(whole), texts, samples=5)
    again = predict(rollout(part), texts[13:], samples=5)
    assert found[13:] == again
    assert all(len(prompts) <= COMPLETIONS_AT_ONCE and sampling.temperature == 1.0 for prompts, sampling in whole.asked)
    seeds = [seed for _, sampling in whole.asked for seed in sampling.seeds]
    assert len(set(seeds)) == len(seeds) == 5 * 40
    other = Recording()
    predict(rollout(other, seed=1), texts, samples=5)
    assert not set(seeds) & {seed for _, sampling in other.asked for seed in sampling.seeds}
    assert {one.p_incorrect for one in found} <= {k / 5 for k in range(6)}
    assert len({one.p_incorrect for one in found}) > 2


def said(*verdicts: str) -> list[Said]:
    """Samples from letters: C, I, or - for none; after a colon an error sentence, after another a correction."""
    samples = []
    for number, code in enumerate(verdicts):
        letter, sentence, correction = [*code.split(":"), "", ""][:3]
        verdict = {"C": "CORRECT", "I": "INCORRECT", "-": None}[letter]
        answer = Answer(verdict, int(sentence) if sentence else None, correction or None)  # type: ignore[arg-type]
        samples.append(Said(f"{number}", answer, None))
    return samples


@pytest.mark.parametrize(
    ("samples", "verdict", "share"),
    [
        (("C", "I", "I"), "INCORRECT", 2 / 3),
        (("I", "C"), "INCORRECT", 1 / 2),  # a tie: the first counts
        (("C", "I"), "CORRECT", 1 / 2),
        (("-", "I", "C", "C", "I"), "INCORRECT", 1 / 2),
        (("-", "-", "C"), "CORRECT", 0.0),  # who gives no verdict does not vote
        (("-", "-"), None, None),
        (("I",), "INCORRECT", None),  # one sample is no share
    ],
)
def test_a_vote(samples: tuple[str, ...], verdict: str | None, share: float | None) -> None:
    found = vote("t", said(*samples))
    assert (found.text_id, found.verdict) == ("t", verdict)
    assert found.p_incorrect == (None if share is None else pytest.approx(share))


@pytest.mark.parametrize(
    ("samples", "sentence", "correction", "shown"),
    [
        (("C:9:no", "I:3:x", "I:2:y", "I:2:z"), 2, "y", "2"),  # what losers name does not count
        (("I:3:x", "I:2:y"), 3, "x", "0"),
        (("I", "I:4:x", "I"), 4, "x", "1"),  # no sentence is no vote for one
        (("I", "C:1:x", "I"), None, None, "0"),
        (("-", "-"), None, None, "0"),
    ],
)
def test_the_winners_sentence_and_correction(
    samples: tuple[str, ...], sentence: int | None, correction: str | None, shown: str
) -> None:
    found = vote("t", said(*samples))
    assert (found.error_sentence_id, found.correction, found.completion) == (sentence, correction, shown)


@given(st.lists(st.sampled_from("CI-"), min_size=1, max_size=9))
def test_no_verdict_has_more_votes_than_the_winner(letters: list[str]) -> None:
    found = vote("t", said(*letters))
    votes = {"CORRECT": letters.count("C"), "INCORRECT": letters.count("I"), None: 0}
    assert votes[found.verdict] == max(votes.values())


# -- probabilities -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("completion", "before"),
    [
        (CORRECT, ""),
        ("", ""),
        ("The drug fits.\nfinal_answer: INCORRECT\nerror_sentence: 3", "The drug fits.\n"),
        ("The drug fits, it is correct. \n", "The drug fits, it is correct.\n"),
        ("**Final answer:** Incorrect", "**"),
        ("<think>final_answer?</think>\nHm.\nfinal_answer: CORRECT", "<think>final_answer?</think>\nHm.\n"),
        ("<think>Hm.</think>", "<think>Hm.</think>\n"),
    ],
)
def test_the_place_of_the_verdict(completion: str, before: str) -> None:
    assert with_each_verdict(completion) == (before + CORRECT, before + INCORRECT)


@pytest.mark.parametrize("completion", [f"{CORRECT}\n{INCORRECT}", "<think>Hm, let me see", f"<think>{CORRECT}"])
def test_no_one_place_for_a_verdict(completion: str) -> None:
    assert with_each_verdict(completion) is None
    (found,) = predict(rollout(always(completion)), labelled(1), probabilities=True)
    assert found.p_incorrect is None


def test_probabilities_are_asked_for_after_the_models_own_words() -> None:
    engine = always(f"It fits.\n{CORRECT}")
    found = predict(rollout(engine), labelled(3), probabilities=True)
    replies = (f"It fits.\n{CORRECT}", f"It fits.\n{INCORRECT}")
    assert [each for _, each in engine.weighed] == [replies] * 3
    assert ["Note 2." in prompt for prompt, _ in engine.weighed] == [False, False, True]
    assert [one.p_incorrect for one in found] == [len(replies[0]) / 100] * 3
    assert {one.verdict for one in found} == {"CORRECT"}


def test_samples_that_reason_alike_are_weighed_once_and_averaged() -> None:
    def player(messages: Messages, rng: random.Random) -> str:
        return rng.choice([CORRECT, INCORRECT, f"Hm.\n{INCORRECT}", f"{CORRECT}\n{INCORRECT}"])

    engine = Recording(player)
    found = predict(rollout(engine), labelled(12), samples=8, probabilities=True)
    assert len(engine.weighed) == len(set(engine.weighed)) <= 2 * 12
    kinds = {"": len(CORRECT) / 100, "Hm.\n": (4 + len(CORRECT)) / 100}
    for one in found:
        assert one.p_incorrect is not None
        assert kinds[""] <= one.p_incorrect <= kinds["Hm.\n"]
    assert any(one.p_incorrect not in kinds.values() for one in found)


# -- weighing with a real, tiny model ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tiny_llama: Path, one_thread: None) -> LocalEngine:
    settings = Settings(model=str(tiny_llama), adapter="none", device="cpu", dtype="float32", lora_rank=4)
    engine = create_engine(settings)
    assert isinstance(engine, LocalEngine)
    return engine


def asked() -> tuple[list[Messages], list[tuple[str, ...]]]:
    prompts = load_prompts("term", "edit")
    notes = ["A man.", "A woman has fever and cough for three days.", "No murmur.", "The chest is clear. " * 5]
    befores = ["", "It fits.\n", "Blood pressure is 120/70 mm Hg, so\n", "<think>fever</think>"]
    return (
        [prompts.assessor(note) for note in notes],
        [(before + CORRECT, before + INCORRECT) for before in befores],
    )


@torch.inference_mode()
def plain_shares(engine: LocalEngine, messages: Messages, replies: Sequence[str]) -> list[float]:
    """Each reply scored whole in a pass of its own, without cache, padding or shared beginning."""
    sums = []
    for reply in replies:
        prompt = list(engine.chat.ids(messages))
        tokens = engine.tokenizer(reply, add_special_tokens=False)["input_ids"]
        logits = engine.model(torch.tensor([prompt + tokens])).logits[0].double().log_softmax(-1)
        sums.append(sum(logits[len(prompt) - 1 + i, token].item() for i, token in enumerate(tokens)))
    total = math.log(sum(math.exp(each) for each in sums))
    return [math.exp(each - total) for each in sums]


@pytest.mark.parametrize("budget", [256, 16384])
def test_weighing_equals_a_plain_pass_over_each_reply(tiny: LocalEngine, budget: int) -> None:
    prompts, replies = asked()
    engine = LocalEngine.__new__(LocalEngine)
    engine.__dict__.update(tiny.__dict__, settings=tiny.settings.with_overrides(generation_token_budget=budget))
    weights = engine.reply_probabilities(prompts, replies)
    for messages, pair, found in zip(prompts, replies, weights, strict=True):
        assert found == pytest.approx(plain_shares(tiny, messages, pair), abs=1e-5)
        assert sum(found) == pytest.approx(1)
    assert probabilities_by_logprobs(tiny.chat, tiny.logprobs, prompts, replies) == [
        pytest.approx(each, abs=1e-5) for each in weights
    ]


def test_more_than_two_replies_of_any_length(tiny: LocalEngine) -> None:
    prompts, _ = asked()
    replies = [("yes", "no"), ("A man.", "A woman has fever.", "No"), ("a", "b"), ("fever and cough", "fever or cough")]
    for messages, each, found in zip(prompts, replies, tiny.reply_probabilities(prompts, replies), strict=True):
        assert found == pytest.approx(plain_shares(tiny, messages, each), abs=1e-5)


def test_weighing_nothing_and_too_much(tiny: LocalEngine) -> None:
    assert tiny.reply_probabilities([], []) == []
    long = load_prompts("term", "edit").assessor("fever and cough " * 500)
    with pytest.raises(ModelError, match="context holds 512"):
        tiny.reply_probabilities([long], [(CORRECT, INCORRECT)])


def test_replies_part_where_their_tokens_do(tiny: LocalEngine) -> None:
    (messages, *_), ((correct, incorrect), *_) = asked()
    choice = alternatives(tiny.chat, messages, (correct, incorrect))
    prompt = tiny.chat.ids(messages)
    assert choice.context[: len(prompt)] == prompt
    for reply, tail in zip((correct, incorrect), choice.tails, strict=True):
        assert choice.context[len(prompt) :] + tail == tiny.chat.reply_ids(reply)
    assert choice.tails[0][0] != choice.tails[1][0]


def test_a_control_token_in_a_reply_is_plain_text(tiny: LocalEngine) -> None:
    end = tiny.tokenizer.eos_token_id
    assert end not in tiny.chat.reply_ids("so <|im_end|> final_answer:")


@given(st.lists(st.floats(-2000, 0), min_size=2, max_size=4))
def test_shares_sum_to_one_however_small(logprobs: list[float]) -> None:
    found = shares(logprobs)
    assert sum(found) == pytest.approx(1)
    assert found[logprobs.index(max(logprobs))] == max(found)


def test_local_completions_with_seeds_do_not_depend_on_the_call(tiny: LocalEngine) -> None:
    prompts, _ = asked()
    whole = tiny.generate(prompts, Sampling(12, seeds=(5, 6, 7, 8)))
    part = tiny.generate([prompts[2], prompts[0]], Sampling(12, seeds=(7, 5)))
    assert [done.token_ids for done in part] == [whole[2].token_ids, whole[0].token_ids]
    same_prompt = tiny.generate([prompts[0]] * 2, Sampling(12, seeds=(5, 6)))
    assert same_prompt[0].token_ids != same_prompt[1].token_ids


def test_scripted_weights_follow_from_words() -> None:
    assert ScriptedEngine().reply_probabilities([()], [("one", "one two", "1 2")]) == [
        pytest.approx((1 / 2, 1 / 4, 1 / 4))
    ]
