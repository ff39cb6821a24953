"""vLLM itself, where it is installed, answers as the local engine does."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from medserl.engines import create_engine, create_inference_engine
from medserl.engines import vllm as vllm_engine
from medserl.engines.base import Sampling
from medserl.engines.vllm import VLLMEngine
from medserl.game.episode import Turn
from tests.vllm_chats import NOTES, PAIR, chats, local, settings

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def wide_llama(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama with heads of 64: vLLM has no attention for its own of 16."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("wide") / "llama"
    shutil.copytree(tiny_llama, folder)
    config = LlamaConfig.from_pretrained(tiny_llama, hidden_size=256, head_dim=64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def loud_adapter(wide_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that changes what the wide Llama says."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("adapter")
    create_engine(settings(wide_llama, engine="local", lora_rank=8)).save(folder)
    weights = load_file(folder / "adapter_model.safetensors")
    generator = torch.Generator().manual_seed(0)
    loud = {key: torch.randn(value.shape, generator=generator) * 0.1 for key, value in weights.items()}
    save_file(loud, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: pip install 'medserl[vllm]'")
@pytest.mark.filterwarnings("default")  # vLLM's own are not ours to mend
def test_vllm_answers_as_the_local_engine_does(wide_llama: Path, loud_adapter: Path) -> None:
    options = {"adapter": str(loud_adapter), "device": "auto"}
    prompts = chats()
    other = local(wide_llama, **options)
    engine = create_inference_engine(settings(wide_llama, **options))
    try:
        done = engine.generate(prompts, Sampling(8, temperature=0.0))
        sampled = [engine.generate(prompts, Sampling(8, seeds=(1, 2, 3, 4))) for _ in range(2)]
        weights = engine.reply_probabilities(prompts, [PAIR] * len(NOTES))
    finally:
        engine.close()
    expected = other.generate(prompts, Sampling(8, temperature=0.0))
    assert [each.token_ids for each in done] == [each.token_ids for each in expected]
    assert [each.finish for each in done] == [each.finish for each in expected]
    for each, scores in zip(done, expected, strict=True):
        assert each.logprobs == pytest.approx(scores.logprobs, abs=1e-3)
    assert [each.token_ids for each in sampled[0]] == [each.token_ids for each in sampled[1]]
    for found, each in zip(weights, other.reply_probabilities(prompts, [PAIR] * len(NOTES)), strict=True):
        assert found == pytest.approx(each, abs=1e-3)
    base = local(wide_llama, device="auto").generate(prompts, Sampling(8, temperature=0.0))
    assert [each.token_ids for each in base] != [each.token_ids for each in expected]


@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: pip install 'medserl[vllm]'")
@pytest.mark.filterwarnings("default")
def test_vllm_tells_the_logprobs_of_what_it_samples(wide_llama: Path) -> None:
    """As OpenRLHF's engines are started where games are sampled at another temperature than 1."""
    from vllm import LLM

    options = settings(wide_llama, device="auto", temperature=0.7)
    scorer, mode = local(wide_llama, device="auto", temperature=0.7), vllm_engine.logprobs_mode(0.7)
    llm = LLM(
        model=str(wide_llama), dtype="float32", max_model_len=-1, generation_config="vllm", logprobs_mode=mode,
        enforce_eager=True,
        gpu_memory_utilization=vllm_engine.CPU_MEMORY_SHARE,
    )  # fmt: skip
    engine = VLLMEngine(llm, scorer.tokenizer, frozenset({2}), options, logprobs_mode=mode)
    try:
        done = engine.generate(chats(), Sampling(8, 0.7, seeds=(1, 2, 3, 4), limits=(3, 8, 1, 5)))
    finally:
        engine.close()
    turns = [Turn("assessor", *each) for each in zip(chats(), done, strict=True)]
    for turn, scores, limit in zip(turns, scorer.logprobs(turns), (3, 8, 1, 5), strict=True):
        assert len(turn.completion.token_ids) <= limit
        assert turn.completion.logprobs == pytest.approx(scores, abs=1e-3)
