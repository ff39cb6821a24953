"""A tiny random Llama learns: what an example does to it, its target tokens, and a run that is resumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from medserl.config import Settings
from medserl.engines.base import Sampling, WeightedTurn
from medserl.engines.local import LocalEngine
from medserl.game.answers import Difference
from medserl.game.episode import Completion
from medserl.game.prompts import Messages, load_prompts
from medserl.models import load_model
from medserl.rounds.auxiliary import target_turns_of
from medserl.rounds.gold_pairs import GoldPairs
from medserl.runs.runlog import RunFolder, read_rows
from medserl.trainer import MedSeRLTrainer
from tests.sided_notes import NOTES, TEXTS

pytestmark = pytest.mark.usefixtures("one_thread")

RUN: dict[str, Any] = {
    "rollout_batch_size": 4, "max_epochs": 2, "save_every": 2, "tensorboard": False, "learning_rate": 1e-2,
    "max_new_tokens_injector": 8, "max_new_tokens_assessor": 8, "adapters": "per_role",
    "gold_fraction": 0.5, "sft_verdict_pairs": 2, "sft_edit_pairs": 1, "sft_games": 2,
    "assessor_samples": 2, "assessor_reward": "correction",
    "advantage_normalization": "per_text", "kl_target": 0.02,
}  # fmt: skip


def settings_of(folder: Path, **changes: Any) -> Settings:
    options = {"adapter": "none", "device": "cpu", "dtype": "float32", "lora_rank": 4, "lora_alpha": 8}
    return Settings(model=str(folder), engine="local", **{**options, **changes})


def engine_of(settings: Settings) -> LocalEngine:
    return LocalEngine(load_model(settings), settings)


def examples_of(engine: LocalEngine, prompts: str = "term") -> list[WeightedTurn]:
    examples = GoldPairs(NOTES, engine.settings).examples(load_prompts(prompts, "edit"), 1)
    return target_turns_of(engine, examples, engine.settings.sft_loss_weight)


def supervised_nll(model: Any, examples: Sequence[WeightedTurn]) -> torch.Tensor:
    """Hugging Face's own loss on the answers alone, nats a token: one sequence at a time, no padding."""
    total, tokens = torch.zeros(()), 0
    for example in examples:
        prompt, answer = example.turn.completion.prompt_ids, example.turn.completion.token_ids
        labels = torch.tensor([[-100] * len(prompt) + list(answer)])
        total = total + model(torch.tensor([prompt + answer]), labels=labels).loss * len(answer)
        tokens += len(answer)
    return total / tokens


# -- examples -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kl", [{"kl_coef": 0.0}, {}, {"kl_coef": 1.0, "kl_estimator": "k3"}])
@pytest.mark.parametrize("lora_rank", [0, 4])
def test_an_example_is_a_weighted_supervised_step(tiny_llama: Path, lora_rank: int, kl: dict[str, Any]) -> None:
    weighed = settings_of(
        tiny_llama, lora_rank=lora_rank, sft_verdict_pairs=3, sft_loss_weight=0.7, max_grad_norm=1e9, **kl
    )
    engine, plain = engine_of(weighed), engine_of(weighed)
    examples = examples_of(engine)
    expected = supervised_nll(plain.model, examples)
    (0.7 * expected).backward()
    stats = engine.update(examples, learning_rate=1e-3)
    assert stats.loss == pytest.approx(-0.7, abs=1e-4)  # every ratio is 1
    assert stats.sft_loss == pytest.approx(expected.item(), rel=1e-4)
    gradients, supervised = ([p.grad for p in each.model.parameters() if p.requires_grad] for each in (engine, plain))
    for mine, theirs in zip(gradients, supervised, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)
    assert max(theirs.abs().max().item() for theirs in supervised) > 1e-3


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_examples_are_learnt(tiny_llama: Path, lora_rank: int) -> None:
    engine = engine_of(settings_of(tiny_llama, lora_rank=lora_rank, sft_verdict_pairs=3))
    nll = []
    for _ in range(6):
        examples = examples_of(engine)
        nll.append(engine.update(examples, learning_rate=5e-3).sft_loss)
    assert nll == sorted(nll, reverse=True)
    assert nll[-1] < nll[0] - 0.5


def test_target_tokens_are_those_that_would_be_sampled(tiny_llama: Path) -> None:
    """Taught to say an answer, the model samples the very tokens of the target, up to the end of the turn."""
    engine = engine_of(settings_of(tiny_llama, lora_rank=0))
    prompt = load_prompts("term", "edit").assessor(TEXTS[0])
    answer = load_prompts("term", "edit").gold_answer("INCORRECT", Difference(1, "His left lung", "His right lung"))

    def sampled() -> Completion:
        return engine.generate([prompt], Sampling(90, temperature=0.0))[0]

    assert sampled().text != answer
    for _ in range(60):
        (turn,) = engine.target_turns("assessor", [prompt], [answer])
        weights = (1.0,) * len(turn.completion.token_ids)
        if engine.update([WeightedTurn(turn, None, weights, "n")], learning_rate=5e-3).sft_loss < 0.003:
            break
    done = sampled()
    assert (turn.role, turn.messages) == ("assessor", prompt)
    assert (done.text, done.prompt_ids, done.token_ids, done.finish) == (
        answer,
        turn.completion.prompt_ids,
        turn.completion.token_ids,
        "stop",
    )
    assert done == Completion(answer, done.prompt_ids, done.token_ids, done.logprobs, turn.completion.finish)
    assert turn.completion.logprobs == ()


# -- a run -----------------------------------------------------------------------------------------------------


class WellSpoken(LocalEngine):
    """What a random Llama babbles, put into the words of the game: each babble stands for an edit or a verdict.

    So games are accepted and judged, and who says what still depends on every weight that was acting.
    """

    def generate(self, prompts: Sequence[Messages], sampling: Sampling) -> list[Completion]:
        babble = super().generate(prompts, sampling)
        replies = [self._reply(prompt, sum(done.token_ids)) for prompt, done in zip(prompts, babble, strict=True)]
        turns = self.target_turns(sampling.role, prompts, replies)
        scored = zip(turns, self.logprobs(turns), strict=True)
        return [replace(turn.completion, logprobs=logprobs) for turn, logprobs in scored]

    def _reply(self, prompt: Messages, number: int) -> str:
        content = prompt[-1]["content"]
        if "final_answer" in content:
            return ("final_answer: CORRECT", "final_answer: INCORRECT")[number % 2]
        line = next(line for line in content.split("\n") if "right" in line)
        return line.replace("right", ("left", "good", "upper", "bad", "lower")[number % 5])


def trainer_of(folder: Path, run: RunFolder, **changes: Any) -> MedSeRLTrainer:
    settings = settings_of(folder, **RUN, **changes)
    return MedSeRLTrainer(settings, WellSpoken(load_model(settings), settings), NOTES, run=run)


def outcome(run: Path) -> tuple[Any, ...]:
    """Every adapter of the last checkpoint, the state of trainer and optimizer, the games and the metrics."""
    timings = ("seconds_", "tokens_per_second_", "peak_memory_gb")
    last = run / "checkpoints" / "round_4"
    files = {str(path.relative_to(last)): path.read_bytes() for path in sorted(last.rglob("adapter_model.*"))}
    state = (run / "episodes.jsonl").read_text("utf-8"), sorted(p.read_text("utf-8") for p in last.glob("*state*.json"))
    rows = [{k: v for k, v in row.items() if not k.startswith(timings)} for row in read_rows(run / "metrics.jsonl")]
    return files, state, rows


def test_a_run_with_everything_on_resumes_bit_identically(tiny_llama: Path, tmp_path: Path) -> None:
    runs = [RunFolder.create(settings_of(tiny_llama, **RUN, output_dir=str(tmp_path / name))) for name in ("a", "b")]
    trainer_of(tiny_llama, runs[0]).train()
    trainer_of(tiny_llama, runs[1], max_rounds=2).train()
    runs[1].close()
    again, _ = RunFolder.reopen(tmp_path / "b")
    resumed = trainer_of(tiny_llama, again)
    resumed.load_checkpoint()
    resumed.train()
    straight = outcome(tmp_path / "a")
    assert outcome(tmp_path / "b") == straight
    files, _, rows = straight
    assert list(files) == ["adapter_model.safetensors", "injector/adapter_model.safetensors"]
    assert len(set(files.values())) == 2
    assert all(row["accepted_games"] and row["gold_accuracy"] is not None and row["grad_norm"] > 0 for row in rows)
    assert rows[-1]["sft_loss"] < rows[0]["sft_loss"]
    optimizers = [
        torch.load(tmp_path / name / "checkpoints" / "round_4" / "optimizer.pt", weights_only=True)["state"]
        for name in ("a", "b")
    ]
    for number, state in optimizers[0].items():
        assert all(torch.equal(value, optimizers[1][number][key]) for key, value in state.items())


# -- an Injector that stays as it was --------------------------------------------------------------------------


def test_with_adapters_per_role_an_injector_that_is_not_trained_stays_as_it_was(
    tiny_llama: Path, tmp_path: Path
) -> None:
    """Examples alone, for the Assessor alone: with one shared adapter the Injector would move along with it."""
    start = engine_of(settings_of(tiny_llama))
    start.save(tmp_path / "start")
    alone = {"adapter": str(tmp_path / "start"), "roles_trained": "assessor", "policy_loss_weight": 0.0}
    settings = settings_of(tiny_llama, adapters="per_role", sft_verdict_pairs=2, learning_rate=1e-2, **alone)
    engine = engine_of(settings)
    assert not [name for name in engine.model.peft_config if "reference" in name]  # nobody would ask it

    def weights(role: str) -> list[torch.Tensor]:
        return [p.detach().clone() for name, p in engine.model.named_parameters() if f".{role}." in name]

    before = {role: weights(role) for role in ("default", "injector")}
    for mine, theirs in zip(before["default"], before["injector"], strict=True):
        torch.testing.assert_close(mine, theirs)  # both begin at the given adapter
    engine.update(examples_of(engine), learning_rate=1e-2)
    assert all(torch.equal(*pair) for pair in zip(before["injector"], weights("injector"), strict=True))
    assert not all(torch.equal(*pair) for pair in zip(before["default"], weights("default"), strict=True))
    engine.save(tmp_path / "kept")
    again = engine_of(settings)
    again.load(tmp_path / "kept")
    stats = [each.update(examples_of(each), learning_rate=1e-2).sft_loss for each in (engine, again)]
    assert stats[0] == pytest.approx(stats[1], abs=1e-6)
