"""The local engine on a tiny random Llama: what it samples, scores, keeps, saves and refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from medserl.config import Settings
from medserl.engines.base import Sampling
from medserl.engines.local import LocalEngine
from medserl.errors import ModelError
from medserl.game.episode import Turn
from medserl.game.prompts import load_prompts
from medserl.models import LoadedModel
from tests.local_engine import (
    LEARNING_RATE,
    assert_identical,
    chats,
    engine_of,
    flat,
    plain_logprobs,
    played,
    sampled,
    trained,
    weighted,
)

pytestmark = pytest.mark.usefixtures("one_thread")


# -- sampling and scoring ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [("float32", 1e-4), ("bfloat16", 0.15)],  # bfloat16 has 8 bits: a logit of 8 is rounded by up to 1/32
)
@pytest.mark.parametrize("lora_rank", [0, 4])
def test_sampled_logprobs_are_recomputed(tiny_llama: Path, dtype: str, tolerance: float, lora_rank: int) -> None:
    engine = engine_of(tiny_llama, dtype=dtype, lora_rank=lora_rank, training_token_budget=256)
    turns = played(engine)
    old, recomputed = flat([turn.completion.logprobs for turn in turns]), flat(engine.logprobs(turns))
    assert (old - recomputed).abs().max().item() < tolerance


def test_scores_are_those_of_a_plain_forward_pass(tiny_llama: Path) -> None:
    engine = engine_of(tiny_llama)
    for turn, scores in zip(turns := played(engine), engine.logprobs(turns), strict=True):
        with torch.inference_mode():
            expected = plain_logprobs(engine, turn)
        assert len(scores) == len(turn.completion.token_ids)
        assert scores == pytest.approx(expected.tolist(), abs=1e-4)


def test_scores_of_learned_positions_do_not_shift_with_padding(tiny_llama: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = engine_of(tiny_llama).tokenizer
    sizes = {"vocab_size": len(tokenizer), "n_positions": 512, "n_embd": 32, "n_layer": 1, "n_head": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT2LMHeadModel(GPT2Config(**sizes, initializer_range=0.3, eos_token_id=2, bos_token_id=2))
    engine = LocalEngine(LoadedModel(model, tokenizer, has_adapter=False), Settings(lora_rank=0))
    for turn, scores in zip(turns := played(engine), engine.logprobs(turns), strict=True):
        assert scores == pytest.approx(turn.completion.logprobs, abs=1e-4)
        with torch.inference_mode():
            assert scores == pytest.approx(plain_logprobs(engine, turn).tolist(), abs=1e-4)


@pytest.mark.parametrize("budget", [256, 300, 100_000])
def test_completions_do_not_depend_on_the_batches(tiny_llama: Path, budget: int) -> None:
    whole = sampled(engine_of(tiny_llama), max_new_tokens=24)
    cut = sampled(engine_of(tiny_llama, generation_token_budget=budget), max_new_tokens=24)
    for done, other in zip(whole, cut, strict=True):
        assert done.token_ids == other.token_ids
        assert done.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_greedy_equals_hugging_face_generate(tiny_llama: Path) -> None:
    engine = engine_of(tiny_llama)
    completions = engine.generate(chats(), Sampling(20, temperature=0.0))
    for done in completions:
        prompt = torch.tensor([done.prompt_ids])
        tokens = engine.model.generate(
            input_ids=prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=20
        )
        assert done.token_ids == tuple(tokens[0, prompt.shape[1] :].tolist())


def test_a_prompt_is_read_once_while_the_weights_stay(tiny_llama: Path, tmp_path: Path) -> None:
    """Read with the weights of before, a prompt would give other log-probabilities than its recomputation."""
    engine = engine_of(tiny_llama)
    engine.save(tmp_path)
    seen: list[int] = []
    engine.model.register_forward_pre_hook(
        lambda _, __, given: seen.append(given["input_ids"].shape[1]), with_kwargs=True
    )
    attempt = Sampling(4, seed=1, role="injector")

    def reads() -> bool:
        seen.clear()
        turns = [Turn("injector", *each) for each in zip(chats(), engine.generate(chats(), attempt), strict=True)]
        read = any(length > 1 for length in seen)
        gap = flat([turn.completion.logprobs for turn in turns]) - flat(engine.logprobs(turns))
        assert gap.abs().max() < 1e-4
        return read

    assert [reads(), reads()] == [True, False]
    engine.update(weighted(played(engine)), learning_rate=0.01)
    assert [reads(), reads()] == [True, False]
    engine.load(tmp_path)
    assert [reads(), reads()] == [True, False]


def test_a_stop_token_ends_the_turn_and_is_not_said(tiny_llama: Path) -> None:
    engine = engine_of(tiny_llama)
    whole = sampled(engine, max_new_tokens=16)
    stop = whole[0].token_ids[4]
    engine.model.generation_config.eos_token_id = [engine.tokenizer.eos_token_id, stop]
    engine = LocalEngine(LoadedModel(engine.model, engine.tokenizer, has_adapter=True), engine.settings)
    for full, done in zip(whole, sampled(engine, max_new_tokens=16), strict=True):
        tokens = full.token_ids
        length = tokens.index(stop) + 1 if stop in tokens else len(tokens)
        assert done.token_ids == tokens[:length]
        assert len(done.logprobs) == length
        assert done.finish == ("stop" if tokens[length - 1] == stop else full.finish)
        said = tokens[: length - 1] if done.finish == "stop" else tokens
        assert done.text == engine.tokenizer.decode(said, skip_special_tokens=True)


def test_nothing_to_do_is_fine(tiny_llama: Path) -> None:
    engine = engine_of(tiny_llama)
    assert engine.generate([], Sampling(4)) == []
    assert engine.logprobs([]) == []


def test_a_note_too_long_for_the_context_is_one_clear_line(tiny_llama: Path) -> None:
    engine = engine_of(tiny_llama)
    long_note = load_prompts("term", "edit").assessor("fever and cough " * 500)
    with pytest.raises(ModelError, match=r"context holds 512; leave such notes out") as caught:
        engine.generate([*chats(), long_note], Sampling(16))
    assert "\n" not in str(caught.value)
    longest = max(len(engine.chat.ids(chat)) for chat in chats())
    with pytest.raises(ModelError):
        engine.generate(chats(), Sampling(512 - longest + 1))


# -- the reference -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_the_reference_is_the_base_model_and_stays(tiny_llama: Path, lora_rank: int) -> None:
    engine = engine_of(tiny_llama, lora_rank=lora_rank)
    turns = played(engine)
    base = engine_of(tiny_llama, lora_rank=0).logprobs(turns)
    for seed in range(3):
        engine.update(weighted(played(engine, seed)), learning_rate=0.01)
    assert engine.logprobs(turns, reference=True) == base
    assert (flat(engine.logprobs(turns)) - flat(base)).abs().max() > 1e-2  # after the reference, the policy again


def test_the_reference_is_the_start_adapter_where_there_is_one(tiny_llama: Path, tmp_path: Path) -> None:
    warm = engine_of(tiny_llama)
    turns = played(warm)
    warm.update(weighted(turns), learning_rate=0.01)
    warm.save(tmp_path)
    start = warm.logprobs(turns)
    engine = engine_of(tiny_llama, adapter=str(tmp_path))
    assert engine.logprobs(turns) == engine.logprobs(turns, reference=True) == start
    assert start != warm.logprobs(turns, reference=True)  # so not the bare base model
    for _ in range(3):
        engine.update(weighted(turns), learning_rate=0.01)
    assert engine.logprobs(turns, reference=True) == start
    assert (flat(engine.logprobs(turns)) - flat(start)).abs().max() > 1e-2


# -- save and load -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lora_rank", "dtype", "warm"),
    [(4, "float32", False), (4, "float32", True), (4, "bfloat16", True), (0, "float32", False)],
)
def test_a_round_trip_is_bit_identical(
    tiny_llama: Path, tmp_path: Path, lora_rank: int, dtype: str, warm: bool
) -> None:
    """After loading, the next update and the next games are those of the run that never stopped."""
    options: dict[str, Any] = {"lora_rank": lora_rank, "dtype": dtype}
    if warm:
        first = engine_of(tiny_llama, **options)
        first.update(weighted(played(first)), learning_rate=0.01)
        (tmp_path / "warm").mkdir()
        first.save(tmp_path / "warm")
        options["adapter"] = str(tmp_path / "warm")
    engine, folder = engine_of(tiny_llama, **options), tmp_path / "saved"
    folder.mkdir()
    turns = played(engine)
    for _ in range(2):
        engine.update(weighted(turns), learning_rate=LEARNING_RATE)
    engine.save(folder)
    saved = trained(engine)

    resumed = engine_of(tiny_llama, **options)
    resumed.load(folder)
    assert_identical(trained(resumed), saved)
    assert_identical(_optimizer_tensors(resumed), _optimizer_tensors(engine))
    assert resumed.logprobs(turns, reference=True) == engine.logprobs(turns, reference=True)
    for each in (engine, resumed):
        each.update(weighted(turns), learning_rate=LEARNING_RATE)
    assert_identical(trained(resumed), trained(engine))
    assert sampled(resumed, seed=9) == sampled(engine, seed=9)
    assert any(not torch.equal(weight, saved[name]) for name, weight in trained(resumed).items())


def _optimizer_tensors(engine: LocalEngine) -> dict[str, torch.Tensor]:
    states = engine._optimizer.state_dict()["state"]
    return {f"{number}/{key}": value for number, state in states.items() for key, value in state.items()}


def test_an_adapter_that_does_not_fit_is_one_clear_line(tiny_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no adapter_config\.json there"):
        engine_of(tiny_llama, adapter=str(tmp_path))
    engine_of(tiny_llama).save(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"cut short")
    with pytest.raises(ModelError, match="does not fit") as caught:
        engine_of(tiny_llama, adapter=str(tmp_path))
    assert "\n" not in str(caught.value)
