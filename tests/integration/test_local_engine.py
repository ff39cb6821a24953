"""The local engine on a tiny random Llama: what it samples, scores, learns, keeps, saves and refuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from medserl.config import Settings
from medserl.engines import create_engine
from medserl.engines.base import Sampling, WeightedTurn
from medserl.engines.local import LocalEngine
from medserl.errors import ModelError, RunError
from medserl.game.episode import Completion, Turn
from medserl.game.prompts import Messages, load_prompts
from medserl.models import LoadedModel

pytestmark = pytest.mark.usefixtures("one_thread")

NOTES = (
    "A man has fever.",
    "A 54-year-old woman comes to the physician because of fever and cough for three days.",
    "Her temperature is 38.3 C (100.9 F), pulse is 96/min. She is treated with amoxicillin.",
    "The chest is clear. The abdomen is soft. Dr. Smith gives aspirin b.i.d. with food.",
    "No murmur.",
    "He smokes and drinks; his blood pressure is 120/70 mm Hg.",
)
LEARNING_RATE = 1e-3


def engine_of(folder: Path, **changes: Any) -> LocalEngine:
    options = {"adapter": "none", "device": "cpu", "dtype": "float32", "lora_rank": 4, "lora_alpha": 8}
    engine = create_engine(Settings(model=str(folder), **{**options, **changes}))
    assert isinstance(engine, LocalEngine)
    return engine


def chats() -> list[Messages]:
    prompts = load_prompts("term", "edit")
    return [prompts.assessor(note) for note in NOTES] + [prompts.injector(NOTES[3], "benign", None)]


def played(engine: LocalEngine, seed: int = 0) -> list[Turn]:
    """Turns of 3 to 12 tokens: each completion is cut to a length of its own."""
    turns = []
    for i, (chat, done) in enumerate(zip(chats(), sampled(engine, seed), strict=True)):
        n = 3 + 7 * i % 10
        cut = replace(done, token_ids=done.token_ids[:n], logprobs=done.logprobs[:n])
        turns.append(Turn("assessor", chat, cut))
    return turns


def sampled(engine: LocalEngine, seed: int = 0, max_new_tokens: int = 12) -> list[Completion]:
    return engine.generate(chats(), Sampling(max_new_tokens, seed=seed))


def weighted(turns: Sequence[Turn], advantage: Any = None) -> list[WeightedTurn]:
    """Turns with an advantage of their own for every token: alternating in sign, unless one is given."""
    return [
        WeightedTurn(
            turn=turn,
            old_logprobs=turn.completion.logprobs,
            advantages=tuple(
                advantage if advantage is not None else (-1) ** i * (1 + t / 4)
                for t in range(len(turn.completion.token_ids))
            ),
            note_id=f"n{i}",
        )
        for i, turn in enumerate(turns)
    ]


def trained(engine: LocalEngine) -> dict[str, torch.Tensor]:
    """A copy of every trained weight."""
    return {name: p.detach().clone() for name, p in engine.model.named_parameters() if p.requires_grad}


def gradients(engine: LocalEngine) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in engine.model.named_parameters() if p.requires_grad}


def assert_identical(some: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> None:
    assert some.keys() == others.keys()
    assert all(torch.equal(tensor, others[name]) for name, tensor in some.items())


def flat(rows: Sequence[Sequence[float]]) -> torch.Tensor:
    return torch.tensor([value for row in rows for value in row])


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


def plain_logprobs(engine: LocalEngine, turn: Turn) -> torch.Tensor:
    """Of each completion token: one turn, no padding, all logits."""
    done = turn.completion
    logits = engine.model(torch.tensor([done.prompt_ids + done.token_ids])).logits[0]
    before_each = range(len(done.prompt_ids) - 1, len(logits) - 1)
    return logits.log_softmax(-1)[before_each, done.token_ids]


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


# -- learning ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lora_rank", [0, 4])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_an_advantage_moves_the_sampled_tokens_its_way(tiny_llama: Path, lora_rank: int, sign: float) -> None:
    engine = engine_of(tiny_llama, lora_rank=lora_rank)
    turns = played(engine)
    before = flat(engine.logprobs(turns)).mean()
    stats = engine.update(weighted(turns, sign), learning_rate=LEARNING_RATE)
    engine.sync()
    assert sign * (flat(engine.logprobs(turns)).mean() - before) > 1e-3
    assert stats.optimizer_steps == 1
    assert stats.tokens == sum(len(turn.completion.token_ids) for turn in turns)
    assert stats.loss == pytest.approx(-sign, abs=1e-4)  # every ratio is 1
    assert stats.logprob_gap < 1e-4
    assert stats.clip_fraction == 0.0
    assert stats.grad_norm > 0.0
    assert 0.0 < stats.entropy < torch.tensor(384.0).log().item()


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_one_step_is_the_same_whatever_the_budget(tiny_llama: Path, lora_rank: int) -> None:
    turns = played(engine_of(tiny_llama))
    engines = [
        engine_of(tiny_llama, lora_rank=lora_rank, training_token_budget=budget, max_grad_norm=1e9)
        for budget in (256, 400, 100_000)
    ]
    sizes = [len(list(engine._passes(turns))) for engine in engines]
    assert sizes[0] > sizes[1] > sizes[2] == 1
    stats = [engine.update(weighted(turns), learning_rate=LEARNING_RATE) for engine in engines]
    for engine, figures in zip(engines[:2], stats, strict=False):
        for name, gradient in gradients(engines[2]).items():
            torch.testing.assert_close(gradients(engine)[name], gradient, rtol=1e-3, atol=1e-6)
        for name, weight in trained(engines[2]).items():
            gap = (trained(engine)[name] - weight).abs()
            # Adam's first step is +-lr whatever the gradient: where that is rounding noise, so is the sign.
            assert gap.max() <= 2.01 * LEARNING_RATE
            assert (gap > 0.01 * LEARNING_RATE).float().mean() < 0.01
        assert figures.loss == pytest.approx(stats[2].loss, abs=1e-5)
        assert figures.grad_norm == pytest.approx(stats[2].grad_norm, rel=1e-3)


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_turns_on_a_note_in_one_row_score_and_learn_as_in_rows_of_their_own(tiny_llama: Path, lora_rank: int) -> None:
    """Two tries of the Injector, the Assessor on the edit, its twin and the original: a tree with several forks."""
    prompts = load_prompts("term", "edit")
    edited = NOTES[0].replace(NOTES[0].split()[-2], "an other")
    asked = [*[prompts.injector(NOTES[0], "error", None)] * 2, prompts.assessor(edited), prompts.assessor(NOTES[0])]
    together, apart = (engine_of(tiny_llama, lora_rank=lora_rank, max_grad_norm=1e9) for _ in range(2))
    apart._abilities = replace(apart._abilities, shares_rows=False)
    said = together.generate(asked, Sampling(9, seed=3))
    turns = [Turn("assessor", *each) for each in zip(asked, said, strict=True)]
    rows = [[row for rows in engine._passes(turns) for row in rows] for engine in (together, apart)]
    assert [len(some) for some in rows] == [1, len(turns)]
    assert sum(map(len, rows[0])) < 0.6 * sum(map(len, rows[1]))
    gap = flat(together.logprobs(turns)) - flat(apart.logprobs(turns))
    assert gap.abs().max() < 1e-5
    for engine in (together, apart):
        engine.update(weighted(turns), learning_rate=LEARNING_RATE)
    for name, gradient in gradients(apart).items():
        torch.testing.assert_close(gradients(together)[name], gradient, rtol=1e-4, atol=1e-5)


def test_the_gradient_is_that_of_the_token_mean(tiny_llama: Path) -> None:
    """All weights: the step's gradient against autograd on a plain loop, turn by turn, without padding."""
    engine = engine_of(tiny_llama, lora_rank=0, max_grad_norm=1e9)
    turns = weighted(played(engine))
    parameters = [p for p in engine.model.parameters() if p.requires_grad]
    total, n_tokens = torch.zeros(()), 0
    for item in turns:
        ratio = (plain_logprobs(engine, item.turn) - torch.tensor(item.old_logprobs)).exp()  # 1, but for rounding
        total = total - (ratio * torch.tensor(item.advantages)).sum()
        n_tokens += len(item.advantages)
    expected = torch.autograd.grad(total / n_tokens, parameters)
    engine.update(turns, learning_rate=LEARNING_RATE)
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("checkpointing", "passes"), [(False, 1), (True, 2)])
def test_gradient_checkpointing_runs_layers_again(tiny_llama: Path, checkpointing: bool, passes: int) -> None:
    engine = engine_of(tiny_llama, gradient_checkpointing=checkpointing)
    turns, calls = weighted(played(engine)[:1]), []
    (norm,) = (m for name, m in engine.model.named_modules() if name.endswith("layers.0.input_layernorm"))
    norm.register_forward_hook(lambda *_: calls.append(1))
    engine.update(turns, learning_rate=LEARNING_RATE)
    assert len(calls) == passes


def test_gradients_are_clipped_to_the_norm(tiny_llama: Path) -> None:
    engine = engine_of(tiny_llama, lora_rank=0, max_grad_norm=0.01)
    stats = engine.update(weighted(played(engine)), learning_rate=LEARNING_RATE)
    clipped = torch.stack([gradient.norm() for gradient in gradients(engine).values()]).norm().item()
    assert stats.grad_norm > 0.01
    assert clipped == pytest.approx(0.01, rel=1e-3)


def test_mini_batches_are_as_many_steps(tiny_llama: Path) -> None:
    engine = engine_of(tiny_llama, mini_batches=3)
    turns = weighted(played(engine))
    stats = engine.update(turns, learning_rate=LEARNING_RATE)
    assert stats.optimizer_steps == 3
    assert {int(state["step"]) for state in engine._optimizer.state.values()} == {3}
    assert stats.tokens == sum(len(item.advantages) for item in turns)


@pytest.mark.parametrize("estimator", ["k3"])
def test_kl_as_a_loss_pulls_the_policy_back(tiny_llama: Path, estimator: str) -> None:
    engine = engine_of(tiny_llama, kl_estimator=estimator, kl_coef=1.0)
    turns = played(engine)
    for _ in range(5):
        engine.update(weighted(turns, 1.0), learning_rate=LEARNING_RATE)
    reference = engine.logprobs(turns, reference=True)

    def distance() -> float:
        return (flat(engine.logprobs(turns)) - flat(reference)).square().mean().item()

    engine._optimizer.state.clear()  # no momentum away from the reference
    before, old = distance(), engine.logprobs(turns)
    still = [WeightedTurn(t, o, (0.0,) * len(o), "n", r) for t, o, r in zip(turns, old, reference, strict=True)]
    for _ in range(5):
        engine.update(still, learning_rate=LEARNING_RATE)
    assert distance() < before


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_and_changes_nothing(tiny_llama: Path, bad: float) -> None:
    engine = engine_of(tiny_llama)
    turns = played(engine)
    before = trained(engine)
    with pytest.raises(RunError, match=r"the loss .* note n\d \(assessor\) is not finite") as caught:
        engine.update([*weighted(turns[:2]), *weighted(turns[2:], bad)], learning_rate=LEARNING_RATE)
    assert "\n" not in str(caught.value)
    assert_identical(trained(engine), before)


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
