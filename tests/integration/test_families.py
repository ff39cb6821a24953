"""The family contract, and the guard that stands behind it: what differs between playing and learning stops the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from medserl.config import Settings
from medserl.engines import create_engine, local, masks, scoring
from medserl.engines import families as trial
from medserl.engines.families import Abilities, examine_family
from medserl.engines.gap import require_same_policy
from medserl.errors import ModelError, RunError
from tests.families import DOCS, FAMILIES, WINDOW, engine_of, learn, played, try_family, write_model

pytestmark = pytest.mark.usefixtures("one_thread")

WHOLE = ("q_proj", "k_proj", "v_proj", "o_proj")
LORA_LAYERS = {
    "GPT-2": ("c_attn", "c_proj"),
    "Phi-3": ("qkv_proj", "o_proj"),
    "GPT-NeoX": ("query_key_value", "dense"),
    "Bloom": ("query_key_value", "dense"),
    "Llama": WHOLE,
    "Gemma 3 with vision": WHOLE,
}
ROWS_OF_THEIR_OWN = {
    "Bloom", "MPT", "GPT-Neo", "Qwen3-Next", "Qwen3.5", "LFM2", "Granite hybrid", "Falcon-H1", "Jamba", "Mamba 2",
}  # fmt: skip
BY_LENGTH = {"Jamba"}
CUT_BACK = {
    "Llama", "Qwen2", "Qwen3", "Qwen3-MoE", "Mixtral with router noise", "Phi-3", "GPT-2", "GPT-NeoX", "OPT", "Falcon",
    "Bloom", "OLMo 2", "Granite", "SmolLM3", "DeepSeek-V3",
}  # fmt: skip
REFUSED = {"RecurrentGemma"}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_learns_what_it_played_or_is_refused(family: str, tmp_path: Path) -> None:
    """Sampled = recomputed, one update moves what it should, and save, resume and evaluation are the same policy."""
    lora, full = try_family(family, tmp_path)
    if family in REFUSED:
        assert "family" in lora.refusal and "\n" not in lora.refusal and full.refusal == lora.refusal
        return
    assert full.gap < 2e-5 and not full.refusal
    assert full.shares_rows is (family not in ROWS_OF_THEIR_OWN)
    assert full.free is (family not in BY_LENGTH)
    assert full.cuts is (family in CUT_BACK)
    if family == "Mamba 2":
        assert "its linear layers are in_proj, out_proj" in lora.refusal and "\n" not in lora.refusal
        return
    assert lora.gap < 2e-5 and not lora.refusal
    if family in LORA_LAYERS:
        assert set(lora.layers) == set(LORA_LAYERS[family])


def test_every_family_stands_in_the_table_of_the_docs() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert [family for family in FAMILIES if f"| {family} |" not in text] == []


# -- the guard ---------------------------------------------------------------------------------------------


@contextmanager
def one_mask_for_all_layers(related: torch.Tensor, positions: torch.Tensor) -> Iterator[None]:
    """A mask that knows nothing of windows, as a ready 4-D mask is."""
    with pytest.MonkeyPatch.context() as patch:
        own = masks._restricted

        def restricted(make: Callable[..., Any], *given: Any) -> Callable[..., Any]:
            mask = own(make, *given)

            def everything(_: Any, __: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
                return key <= query

            return lambda *args, **options: mask(*args, **{**options, "mask_function": everything})

        patch.setattr(masks, "_restricted", restricted)
        with masks.seen_by(related, positions):
            yield


def stopped(engine: Any) -> str:
    with pytest.raises(RunError, match="other log-probabilities than when it wrote it") as caught:
        require_same_policy(learn(engine, played(engine)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "family",
    [
        *("Mistral with a window", "Qwen2 with a window", "Gemma 2", "Gemma 3", "Phi-3 with a window"),
        *("OLMo 3", "gpt-oss", "Cohere 2", "Llama 4"),
    ],
)
def test_a_mask_without_the_window_stops_the_run(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(family, tmp_path)
    engine = engine_of(tmp_path)
    monkeypatch.setattr(scoring, "seen_by", one_mask_for_all_layers)
    assert "gradient_checkpointing" in stopped(engine)


@pytest.mark.parametrize("family", ["Qwen3-Next", "LFM2", "Granite hybrid", "Bloom"])
def test_rows_shared_where_they_cannot_be_stop_the_run(family: str, tmp_path: Path) -> None:
    write_model(family, tmp_path)
    engine = engine_of(tmp_path)
    engine._abilities = Abilities(shares_rows=True)
    stopped(engine)


@pytest.mark.parametrize("family", ["Granite", "Falcon", "Mixtral with router noise"])
def test_chance_left_on_in_training_stops_the_run(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(family, tmp_path)
    monkeypatch.setattr(local, "without_chance", lambda model, checkpointing: nullcontext(model.train()))
    stopped(engine_of(tmp_path, lora_rank=0, gradient_checkpointing=True))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rounding_alone_stops_nothing(tiny_llama: Path, dtype: str) -> None:
    engine = engine_of(tiny_llama, dtype=dtype)
    require_same_policy(stats := learn(engine, played(engine)))
    assert 0 < stats.logprob_gap_rms <= stats.logprob_gap_max


@pytest.mark.model
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_default_model_shares_rows_and_is_never_stopped(dtype: str) -> None:
    engine: Any = create_engine(Settings(dtype=dtype, device="cpu", engine="local"))
    assert engine._abilities == Abilities()
    stats = learn(engine, played(engine))
    assert stats.logprob_gap_rms < stats.gap_explained / 2


# -- the trial ---------------------------------------------------------------------------------------------


def test_the_trial_in_bfloat16_is_as_sharp_as_in_float32(tmp_path: Path) -> None:
    """ALiBi moves Bloom's logits by less than bfloat16 rounds; the weights come back as they were."""
    write_model("Bloom", tmp_path)
    engine = engine_of(tmp_path, dtype="bfloat16", lora_rank=0)
    before = {name: p.clone() for name, p in engine.model.named_parameters()}
    assert examine_family(engine.model, engine.tokenizer, 0, 256) == Abilities(shares_rows=False)
    assert engine.model.dtype == torch.bfloat16
    assert all(torch.equal(p, before[name]) for name, p in engine.model.named_parameters())


def test_a_model_too_large_for_float32_is_tried_as_it_is(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_room", lambda _: 0.0)
    assert engine_of(tiny_llama, dtype="bfloat16")._abilities == Abilities()


def test_the_trial_is_longer_than_the_window_unless_no_row_is(tmp_path: Path) -> None:
    write_model("Mistral with a window", tmp_path)
    model = engine_of(tmp_path, lora_rank=0).model
    assert trial._length_that_tells(model, 256) == WINDOW
    assert trial._length_that_tells(model, 20) == 20 - 2 * trial.TAIL


def test_a_model_whose_logits_are_not_finite_is_one_clear_line(tmp_path: Path) -> None:
    """Finite weights may give such logits: the trial sees it, where reading the weights does not."""
    write_model("Llama", tmp_path)
    engine = engine_of(tmp_path, lora_rank=0)
    with torch.no_grad():
        engine.model.lm_head.weight[3] = 3e38
    assert torch.isfinite(engine.model.lm_head.weight).all()
    engine.model.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="gives logits that are not finite") as caught:
        engine_of(tmp_path)
    assert "\n" not in str(caught.value)


def test_only_the_logits_that_predict_a_completion_are_computed(tiny_llama: Path) -> None:
    engine = engine_of(tiny_llama, training_token_budget=100_000)
    turns, computed = played(engine), []
    head = engine.model.get_base_model().get_output_embeddings()
    head.register_forward_hook(lambda _, __, logits: computed.append(logits.shape[:-1].numel()))
    engine.logprobs(turns)
    assert computed == [sum(len(turn.completion.token_ids) for turn in turns)]
