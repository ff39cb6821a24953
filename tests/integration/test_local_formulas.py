"""The local engine's update and scores against the formulas: clip, Adam, dropout, a sampling temperature."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from medserl.config import Settings
from medserl.engines import create_engine
from medserl.engines.base import Sampling, WeightedTurn
from medserl.engines.local import LocalEngine
from medserl.game.episode import Completion, Turn
from medserl.game.prompts import Messages, load_prompts
from medserl.models import LoadedModel

pytestmark = pytest.mark.usefixtures("one_thread")

NOTES = ("A man has fever.", "Her temperature is 38.3 C (100.9 F).", "The chest is clear.", "No murmur.")
PAIR = ("final_answer: CORRECT", "final_answer: INCORRECT")


def engine_of(folder: Path, **changes: Any) -> LocalEngine:
    options = {"adapter": "none", "device": "cpu", "dtype": "float32", "lora_rank": 4, "max_grad_norm": 1e9}
    engine = create_engine(Settings(model=str(folder), **{**options, **changes}))
    assert isinstance(engine, LocalEngine)
    return engine


def chats() -> list[Messages]:
    return [load_prompts("term", "edit").assessor(note) for note in NOTES]


def played(engine: LocalEngine, temperature: float = 1.0) -> list[Turn]:
    done = engine.generate(chats(), Sampling(6, temperature, seed=2))
    return [Turn("assessor", *each) for each in zip(chats(), done, strict=True)]


def weighted(turns: Sequence[Turn], advantages: Sequence[float], shift: float = 0.0) -> list[WeightedTurn]:
    """Every token of a turn with the turn's advantage; the old log-probabilities lie `shift` below the sampled ones."""
    return [
        WeightedTurn(
            turn,
            tuple(logprob - shift for logprob in turn.completion.logprobs),
            (advantage,) * len(turn.completion.token_ids),
            f"n{i}",
        )
        for i, (turn, advantage) in enumerate(zip(turns, advantages, strict=True))
    ]


def weights(engine: LocalEngine) -> list[torch.Tensor]:
    return [parameter.detach().clone().double() for parameter in engine._parameters]


# -- the update --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("clip_range", "loss", "clipped"), [(0.1, -1.1, 1.0), (0.3, -1.2, 0.0)])
def test_the_clip_is_the_settings_own(tiny_llama: Path, clip_range: float, loss: float, clipped: float) -> None:
    """Every token is 1.2 times as likely as it was, and good: within the clip it is learnt, beyond it nothing is."""
    engine = engine_of(tiny_llama, clip_range=clip_range)
    before = weights(engine)
    shift = torch.tensor(1.2).log().item()
    stats = engine.update(weighted(played(engine), [1.0] * len(NOTES), shift), learning_rate=0.01)
    assert (stats.loss, stats.clip_fraction) == (pytest.approx(loss, abs=1e-4), clipped)
    moved = max((new - old).abs().max().item() for new, old in zip(weights(engine), before, strict=True))
    assert (moved == 0.0) == (clipped == 1.0)


def test_three_steps_are_adams(tiny_llama: Path) -> None:
    """Kingma and Ba, algorithm 1, with betas 0.9 and 0.95 and no weight decay, over the gradients of each step."""
    engine = engine_of(tiny_llama)
    turns, rate = played(engine), 0.01
    expected = weights(engine)
    first = [torch.zeros_like(each) for each in expected]
    second = [torch.zeros_like(each) for each in expected]
    for step, signs in enumerate(([1, -1, 1, 1], [-1, -2, 1, 0], [3, 0, 0, -1]), start=1):
        engine.update(weighted(turns, signs), learning_rate=rate)
        for i, parameter in enumerate(engine._parameters):
            gradient = parameter.grad.double()
            first[i] = 0.9 * first[i] + 0.1 * gradient
            second[i] = 0.95 * second[i] + 0.05 * gradient.square()
            size = (second[i] / (1 - 0.95**step)).sqrt() + 1e-8
            expected[i] = expected[i] - rate * first[i] / (1 - 0.9**step) / size
    for found, wanted in zip(weights(engine), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def dropping(family: str, vocabulary: int) -> Any:
    """A random model that would drop half of what it computes: by modules, or by a number handed to a function."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    common = {"vocab_size": vocabulary, "eos_token_id": 2, "bos_token_id": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if family == "modules":
            sizes = {"n_positions": 512, "n_embd": 32, "n_layer": 1, "n_head": 2, "initializer_range": 0.3}
            return GPT2LMHeadModel(GPT2Config(**sizes, **common, resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5))
        shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
        return LlamaForCausalLM(LlamaConfig(**shape, **common, attention_dropout=0.5, initializer_range=0.3))


@pytest.mark.parametrize("family", ["modules", "function"])
def test_no_dropout_is_left_on(tiny_llama: Path, family: str) -> None:
    """Gradient checkpointing puts the model into training mode, where dropout would drop."""
    tokenizer = engine_of(tiny_llama).tokenizer
    options = {"lora_rank": 0, "device": "cpu", "max_grad_norm": 1e9}
    gradients = []
    for checkpointing in (False, True):
        loaded = LoadedModel(dropping(family, len(tokenizer)), tokenizer, has_adapter=False)
        engine = LocalEngine(loaded, Settings(**options, gradient_checkpointing=checkpointing))
        stats = engine.update(weighted(played(engine), [1, -1, 1, -1]), learning_rate=0.01)
        assert stats.logprob_gap < 1e-4
        gradients.append([parameter.grad for parameter in engine._parameters])
    for plain, other in zip(*gradients, strict=True):
        torch.testing.assert_close(other, plain, rtol=1e-4, atol=1e-6)


# -- a sampling temperature --------------------------------------------------------------------------------


def plain_logits(engine: LocalEngine, turn: Turn) -> torch.Tensor:
    """Of each completion token: one turn, no padding, no cache."""
    done = turn.completion
    logits = engine.model(torch.tensor([done.prompt_ids + done.token_ids])).logits[0].float()
    return logits[len(done.prompt_ids) - 1 : -1]


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_sampled_recomputed_and_reference_logprobs_have_the_sampling_temperature(
    tiny_llama: Path, lora_rank: int
) -> None:
    engine = engine_of(tiny_llama, temperature=0.7, lora_rank=lora_rank)
    turns = played(engine, 0.7)
    start = engine.logprobs(turns, reference=True)
    for turn, scores, reference in zip(turns, engine.logprobs(turns), start, strict=True):
        with torch.inference_mode():
            at_each = (plain_logits(engine, turn) / 0.7).log_softmax(-1)
        expected = [row[token].item() for row, token in zip(at_each, turn.completion.token_ids, strict=True)]
        for found in (turn.completion.logprobs, scores, reference):
            assert found == pytest.approx(expected, abs=1e-4)
    stats = engine.update(weighted(turns, [1, -1, 1, -1]), learning_rate=0.01)
    assert stats.logprob_gap < 1e-5
    assert engine.logprobs(turns, reference=True) == start != engine.logprobs(turns)


def test_verdicts_are_weighed_at_temperature_1_whatever_games_are_sampled_at(tiny_llama: Path) -> None:
    warm, plain = (engine_of(tiny_llama, temperature=temperature) for temperature in (0.7, 1.0))
    assert warm.reply_probabilities(chats(), [PAIR] * len(NOTES)) == plain.reply_probabilities(
        chats(), [PAIR] * len(NOTES)
    )


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_the_expected_update_is_the_gradient_of_the_expected_reward(tiny_llama: Path, temperature: float) -> None:
    """One turn for every token of the vocabulary, weighed by how often it is drawn: all weights, exactly enumerated."""
    engine = engine_of(tiny_llama, temperature=temperature, lora_rank=0, training_token_budget=100_000)
    prompt = engine.chat.ids(chats()[0])
    logits = engine.model(torch.tensor([prompt])).logits[0, -1].float()
    logprobs = (logits / temperature).log_softmax(-1)
    rewards = torch.sin(torch.arange(len(logits), dtype=torch.float32))
    expected = torch.autograd.grad((logprobs.exp() * rewards).sum(), engine._parameters)
    drawn, old = logprobs.detach().exp(), logprobs.tolist()
    turns = [
        WeightedTurn(
            Turn("assessor", chats()[0], Completion("", prompt, (token,), (old[token],), "stop")),
            (old[token],),
            ((drawn[token] * rewards[token]).item() * len(old),),  # the loss is a mean over the tokens
            f"n{token}",
        )
        for token in range(len(old))
    ]
    engine.update(turns, learning_rate=0.01)
    for parameter, gradient in zip(engine._parameters, expected, strict=True):
        torch.testing.assert_close(-parameter.grad, gradient, rtol=1e-3, atol=1e-5)


# -- room --------------------------------------------------------------------------------------------------


def test_each_prompt_has_a_limit_of_its_own(tiny_llama: Path) -> None:
    engine = engine_of(tiny_llama)
    whole = engine.generate(chats(), Sampling(9, temperature=0.0))
    done = engine.generate(chats(), Sampling(9, temperature=0.0, limits=(2, 9, 1, 5)))
    for limit, each, longer in zip((2, 9, 1, 5), done, whole, strict=True):
        assert each.token_ids == longer.token_ids[:limit]
        assert each.truncated == (longer.token_ids[:limit][-1] != engine.tokenizer.eos_token_id)
    texts = ["fever", "fever and cough"]
    assert engine.count_tokens(texts) == [len(engine.tokenizer(each)["input_ids"]) for each in texts]
