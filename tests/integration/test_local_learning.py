"""How the local engine learns: steps, budgets, rows that are shared, clipping, the KL loss."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from medserl.engines.base import Sampling, WeightedTurn
from medserl.errors import RunError
from medserl.game.episode import Turn
from medserl.game.prompts import load_prompts
from tests.local_engine import (
    LEARNING_RATE,
    NOTES,
    assert_identical,
    engine_of,
    flat,
    gradients,
    plain_logprobs,
    played,
    trained,
    weighted,
)

pytestmark = pytest.mark.usefixtures("one_thread")


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
