"""Adapters of the local engine on a tiny random Llama: one for both roles, or one for each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from medserl.config import Settings
from medserl.engines.base import Sampling, WeightedTurn
from medserl.engines.local import LocalEngine
from medserl.errors import ModelError, RunError
from medserl.game.episode import Completion, Turn
from medserl.game.prompts import Messages, load_prompts
from medserl.game.roles import ROLES, Role
from medserl.models import load_model

pytestmark = pytest.mark.usefixtures("one_thread")

NOTES = (
    "A man has fever. His right lung is dull. He is given amoxicillin and rest.",
    "A woman of 54 years has a cough for three days. Her chest is clear.",
    "Her temperature is 38.3 C, pulse is 96/min. She is treated with amoxicillin.",
)
RATE = 1e-2
MODES = ["shared", "per_role"]


def engine_of(folder: Path, **changes: Any) -> LocalEngine:
    options = {"adapter": "none", "device": "cpu", "dtype": "float32", "lora_rank": 4, "lora_alpha": 8}
    settings = Settings(model=str(folder), engine="local", **{**options, **changes})
    return LocalEngine(load_model(settings), settings)


def chats(role: Role) -> list[Messages]:
    prompts = load_prompts("term", "edit")
    if role == "assessor":
        return [prompts.assessor(note) for note in NOTES]
    return [prompts.injector(note, "benign", None) for note in NOTES]


def said(engine: LocalEngine, role: Role) -> list[Completion]:
    return engine.generate(chats(role), Sampling(8, seed=5, role=role))


def turns_of(engine: LocalEngine, role: Role) -> list[Turn]:
    return [Turn(role, *each) for each in zip(chats(role), said(engine, role), strict=True)]


def weighted(turns: Sequence[Turn]) -> list[WeightedTurn]:
    """Every token with an advantage, of either sign in turn."""
    return [
        WeightedTurn(turn, turn.completion.logprobs, ((-1.0) ** i,) * len(turn.completion.token_ids), f"n{i}")
        for i, turn in enumerate(turns)
    ]


def learn(engine: LocalEngine, *roles: Role, steps: int = 1) -> None:
    for _ in range(steps):
        engine.update(weighted([turn for role in roles for turn in turns_of(engine, role)]), learning_rate=RATE)


def weights(engine: LocalEngine, adapter: str) -> dict[str, torch.Tensor]:
    """A copy of everything that belongs to an adapter."""
    named = engine.model.named_parameters()
    return {name: p.detach().clone() for name, p in named if f".{adapter}." in name}


def identical(some: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> bool:
    assert some and some.keys() == others.keys()
    return all(torch.equal(tensor, others[name]) for name, tensor in some.items())


def everything(engine: LocalEngine) -> list[Any]:
    """What either role says, and how the reference scores it."""
    scored = [engine.logprobs(turns_of(engine, role), reference=flag) for role in ROLES for flag in (False, True)]
    return [said(engine, role) for role in ROLES] + scored


# -- an adapter for each role ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("learner", "other"), [("injector", "assessor"), ("assessor", "injector")])
def test_a_role_learns_in_its_own_adapter_alone(tiny_llama: Path, learner: Role, other: Role) -> None:
    engine = engine_of(tiny_llama, adapters="per_role")
    learn(engine, *ROLES)  # now both have momentum in the optimizer
    adapter = {"injector": "injector", "assessor": "default"}
    before = {role: weights(engine, adapter[role]) for role in ROLES}
    words = said(engine, other)
    learn(engine, learner, steps=2)
    assert identical(weights(engine, adapter[other]), before[other])
    assert said(engine, other) == words
    assert not identical(weights(engine, adapter[learner]), before[learner])


def test_both_roles_in_one_update_learn_as_they_would_alone(tiny_llama: Path) -> None:
    """The mean is over all tokens, so that a gradient is a part of the whole's; without clipping it is the same."""
    together, alone = (engine_of(tiny_llama, adapters="per_role", max_grad_norm=1e9) for _ in range(2))
    samples = {role: weighted(turns_of(together, role)) for role in ROLES}
    together.update([*samples["injector"], *samples["assessor"]], learning_rate=RATE)
    share = sum(len(s.advantages) for s in samples["injector"]) / sum(
        len(s.advantages) for role in ROLES for s in samples[role]
    )
    alone.update(samples["injector"], learning_rate=RATE)
    gradients = [
        {name: p.grad.clone() for name, p in engine.model.named_parameters() if ".injector." in name}
        for engine in (together, alone)
    ]
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name] * share, rtol=1e-3, atol=1e-6)
    assert any(gradient.abs().max() > 1e-4 for gradient in gradients[0].values())


def test_one_adapter_learns_from_both_roles(tiny_llama: Path) -> None:
    engine = engine_of(tiny_llama)
    before = said(engine, "assessor")
    learn(engine, "injector", steps=5)
    assert said(engine, "assessor") != before


# -- save and load -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("adapters", "dtype"), [("shared", "float32"), ("per_role", "float32"), ("per_role", "bfloat16")]
)
def test_a_round_trip_keeps_every_adapter(tiny_llama: Path, tmp_path: Path, adapters: str, dtype: str) -> None:
    engine = engine_of(tiny_llama, adapters=adapters, dtype=dtype)
    learn(engine, *ROLES, steps=3)
    engine.save(tmp_path)
    resumed = engine_of(tiny_llama, adapters=adapters, dtype=dtype)
    resumed.load(tmp_path)
    for each in (engine, resumed):
        learn(each, *ROLES, steps=2)
    assert everything(resumed) == everything(engine)


@pytest.mark.parametrize("adapters", MODES)
def test_loading_takes_back_what_was_learnt_since(tiny_llama: Path, tmp_path: Path, adapters: str) -> None:
    engine = engine_of(tiny_llama, adapters=adapters)
    learn(engine, *ROLES)
    engine.save(tmp_path)
    saved = everything(engine)
    learn(engine, *ROLES, steps=3)
    assert everything(engine) != saved
    engine.load(tmp_path)
    assert everything(engine) == saved


def test_the_saved_folder_is_an_ordinary_adapter_of_the_assessor(tiny_llama: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    engine = engine_of(tiny_llama, adapters="per_role")
    learn(engine, *ROLES, steps=2)
    engine.save(tmp_path)
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_llama), tmp_path)
    assert list(plain.peft_config) == ["default"]
    turns = turns_of(engine, "assessor")
    for turn, scores in zip(turns, engine.logprobs(turns), strict=True):
        done = turn.completion
        with torch.inference_mode():
            logits = plain(torch.tensor([done.prompt_ids + done.token_ids])).logits[0]
        rows = range(len(done.prompt_ids) - 1, len(logits) - 1)
        assert scores == pytest.approx(logits.log_softmax(-1)[rows, done.token_ids].tolist(), abs=1e-4)
    shared = engine_of(tiny_llama, adapter=str(tmp_path))
    assert said(shared, "assessor") == said(engine, "assessor")
    assert said(shared, "injector") != said(engine, "injector")
    judge = LocalEngine(load_model(shared.settings, trainable=False), shared.settings)
    for role in ROLES:  # whoever judges, or plays on without learning, is the policy that was saved
        assert said(judge, role) == said(engine, role)


def test_both_references_are_what_training_began_with(tiny_llama: Path, tmp_path: Path) -> None:
    two = engine_of(tiny_llama, adapters="per_role")
    learn(two, *ROLES, steps=2)
    two.save(tmp_path)
    engine = engine_of(tiny_llama, adapters="per_role", adapter=str(tmp_path))
    for role in ROLES:
        turns = turns_of(two, role)
        assert engine.logprobs(turns, reference=True) == engine.logprobs(turns) == two.logprobs(turns)
    for config in tmp_path.glob("**/adapter_config.json"):
        assert json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"] == tiny_llama.name


def test_one_adapter_is_not_resumed_as_two(tiny_llama: Path, tmp_path: Path) -> None:
    engine_of(tiny_llama).save(tmp_path)
    with pytest.raises(RunError, match="one adapter for both roles"):
        engine_of(tiny_llama, adapters="per_role").load(tmp_path)


def test_per_role_starts_from_one_adapter_or_from_two(tiny_llama: Path, tmp_path: Path) -> None:
    warm = engine_of(tiny_llama)
    learn(warm, *ROLES, steps=2)
    (tmp_path / "one").mkdir()
    warm.save(tmp_path / "one")
    engine = engine_of(tiny_llama, adapters="per_role", adapter=str(tmp_path / "one"))
    assert all(said(engine, role) == said(warm, role) for role in ROLES)
    learn(engine, "injector", steps=3)
    for role in ROLES:  # the reference of both is what they started from
        assert engine.logprobs(turns_of(warm, role), reference=True) == warm.logprobs(turns_of(warm, role))
    (tmp_path / "two").mkdir()
    engine.save(tmp_path / "two")
    further = engine_of(tiny_llama, adapters="per_role", adapter=str(tmp_path / "two"))
    assert said(further, "assessor") == said(engine, "assessor") == said(warm, "assessor")
    assert said(further, "injector") == said(engine, "injector") != said(warm, "injector")


# -- a given adapter, widened ----------------------------------------------------------------------------------


@pytest.mark.parametrize("adapters", MODES)
@pytest.mark.parametrize("targets", ["all-linear", "up_proj"])
def test_a_given_adapter_is_widened_and_answers_as_before(
    tiny_llama: Path, tmp_path: Path, adapters: str, targets: str
) -> None:
    warm = engine_of(tiny_llama, adapters=adapters)
    learn(warm, *ROLES, steps=2)
    warm.save(tmp_path)
    wide = engine_of(tiny_llama, adapters=adapters, adapter=str(tmp_path), lora_targets=targets)
    assert everything(wide) == everything(engine_of(tiny_llama, adapters=adapters, adapter=str(tmp_path)))
    assert wide.adapters
    for name in wide.adapters.trained:
        before = weights(wide, name)
        added = before.keys() - weights(warm, name).keys()
        assert {".mlp.up_proj."} <= {key[key.index(".mlp.") : key.index("lora_")] for key in added}
        learn(wide, *ROLES)
        after = weights(wide, name)
        assert all(not torch.equal(after[key], before[key]) for key in added if "lora_B" in key)
    (tmp_path / "later").mkdir()
    wide.save(tmp_path / "later")
    narrow = wide.settings.with_overrides(adapter=str(tmp_path / "later"), lora_targets="auto")
    further = LocalEngine(load_model(narrow), narrow)  # `auto` leaves a given adapter as wide as it is
    assert [said(further, role) for role in ROLES] == [said(wide, role) for role in ROLES]


def test_an_adapter_that_cannot_be_widened_is_one_clear_line(tiny_llama: Path, tmp_path: Path) -> None:
    engine_of(tiny_llama).save(tmp_path)
    path = tmp_path / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"target_modules": r".*\.(q|k|v|o)_proj"}), encoding="utf-8")
    assert engine_of(tiny_llama, adapter=str(tmp_path))
    with pytest.raises(ModelError, match="lora_targets cannot widen") as caught:
        engine_of(tiny_llama, adapter=str(tmp_path), lora_targets="all-linear")
    assert "\n" not in str(caught.value)


def test_a_weight_without_a_place_is_named(tiny_llama: Path, tmp_path: Path) -> None:
    engine_of(tiny_llama).save(tmp_path)
    path = tmp_path / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"target_modules": ["q_proj", "v_proj"]}), encoding="utf-8")
    with pytest.raises(ModelError, match=r"no place for its weight .*[ko]_proj"):
        engine_of(tiny_llama, adapter=str(tmp_path))


def test_layers_that_the_model_has_not_are_named(tiny_llama: Path) -> None:
    with pytest.raises(ModelError, match=r"a LoRA on no_such_proj does not fit .*no_such_proj"):
        engine_of(tiny_llama, lora_targets="no_such_proj")


@pytest.mark.parametrize("checkpointing", [False, True])
def test_narrow_models_multiply_by_their_lora_in_their_own_type(tiny_llama: Path, checkpointing: bool) -> None:
    """In bfloat16 no activation is widened for the adapter, its weights stay float32, and they learn as in float32."""
    moved = {}
    for dtype in ("float32", "bfloat16"):
        engine = engine_of(tiny_llama, dtype=dtype, gradient_checkpointing=checkpointing, max_grad_norm=1e9)
        widened: list[torch.dtype] = []
        for name, module in engine.model.named_modules():
            if name.endswith("lora_A.default"):
                module.register_forward_pre_hook(lambda _, given, seen=widened: seen.append(given[0].dtype))
        engine.generate(chats("injector"), Sampling(3, role="injector"))
        engine.reply_probabilities(
            chats("assessor"), [("final_answer: CORRECT", "final_answer: INCORRECT")] * len(NOTES)
        )
        turns = engine.target_turns("assessor", chats("assessor"), ["final_answer: CORRECT"] * len(NOTES))
        engine.logprobs(turns)
        examples = [WeightedTurn(turn, None, (1.0,) * len(turn.completion.token_ids), "n") for turn in turns]
        engine.update(examples, learning_rate=RATE)
        assert set(widened) == {getattr(torch, dtype)}
        gradients = [p.grad for p in engine._parameters if p.grad is not None]
        assert all(gradient.dtype == torch.float32 for gradient in gradients)
        moved[dtype] = torch.cat([gradient.flatten() for gradient in gradients])
    assert torch.nn.functional.cosine_similarity(*moved.values(), dim=0) > 0.98
