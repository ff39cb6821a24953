"""The vLLM engine: the same prompts and stops as the local one, on a stand-in for vLLM."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from medserl import engines
from medserl.config import Settings
from medserl.engines import create_engine, create_inference_engine, inference_engine_name
from medserl.engines import vllm as vllm_engine
from medserl.engines.base import Sampling
from medserl.engines.vllm import VLLMEngine
from medserl.errors import ConfigError, ModelError, RunError
from medserl.game.episode import Turn
from medserl.game.prompts import load_prompts
from tests.vllm_chats import NOTES, PAIR, chats, local, settings

pytestmark = pytest.mark.usefixtures("one_thread")


class FakeLLM:
    """`vllm.LLM` by a Hugging Face model, one prompt at a time: greedy, or one seeded sample."""

    started: list[FakeLLM]

    def __init__(self, **options: Any) -> None:
        from transformers import AutoModelForCausalLM

        if options["dtype"] == "float16":
            raise RuntimeError("no float16 here\nand a long trace")
        self.options = options
        self.model = AutoModelForCausalLM.from_pretrained(options["model"], dtype=getattr(torch, options["dtype"]))
        self.model_config = SimpleNamespace(max_model_len=self.model.config.max_position_embeddings)
        self.closed = False
        self.requests: list[Any] = []
        self.loras: list[Any] = []
        core = SimpleNamespace(shutdown=lambda: setattr(self, "closed", True))
        self.llm_engine = SimpleNamespace(engine_core=core, add_lora=self.add_lora)
        FakeLLM.started.append(self)

    def add_lora(self, request: Any) -> None:
        self.loras.append(request)

    def generate(self, prompts: Any, params: Any, lora_request: Any, use_tqdm: bool) -> list[Any]:
        assert not use_tqdm
        if self.options.get("enable_chunked_prefill", True) and any(each.seed is not None for each in params):
            raise RuntimeError("CPU Generator does not use offset")  # so vLLM, where prompts are read in parts
        self.requests += [SimpleNamespace(params=each, lora=lora_request) for each in params]
        return [self._answer(p["prompt_token_ids"], o) for p, o in zip(prompts, params, strict=True)]

    @torch.inference_mode()
    def _answer(self, prompt: list[int], params: Any) -> Any:
        tokens: list[int] = []
        logprobs: list[dict[int, Any]] = []
        generator = torch.Generator().manual_seed(params.seed or 0)
        while len(tokens) < params.max_tokens:
            raw = self.model(torch.tensor([prompt + tokens])).logits[0, -1].log_softmax(-1)
            allowed = torch.full_like(raw, -torch.inf)
            allowed[params.allowed_token_ids or slice(None)] = 0.0
            processed = ((raw + allowed) / (params.temperature or 1)).log_softmax(-1)
            drawn = torch.multinomial(processed.exp(), 1, generator=generator) if params.temperature else None
            tokens.append(int(processed.argmax() if drawn is None else drawn))
            told = raw if self.options["logprobs_mode"] == "raw_logprobs" else processed
            logprobs.append({tokens[-1]: SimpleNamespace(logprob=told[tokens[-1]].item())})
            if tokens[-1] in (params.stop_token_ids or ()):
                break
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=tokens, logprobs=logprobs)])


class EngineDead(Exception):
    """`vllm.v1.engine.exceptions.EngineDeadError`."""


class FakeParams(SimpleNamespace):
    def __init__(self, **given: Any) -> None:
        assert not given.pop("detokenize")
        super().__init__(**{"seed": None, "stop_token_ids": None, "allowed_token_ids": None, "top_p": 1.0, **given})


@pytest.fixture
def fake_vllm(monkeypatch: pytest.MonkeyPatch) -> type[FakeLLM]:
    """The modules of vLLM that the engine imports, for a vLLM built for the CPU."""
    FakeLLM.started = []
    parts = {
        "vllm": {"LLM": FakeLLM, "SamplingParams": FakeParams},
        "vllm.platforms": {"current_platform": SimpleNamespace(device_type="cpu")},
        "vllm.v1": {},
        "vllm.v1.engine": {},
        "vllm.v1.engine.exceptions": {"EngineDeadError": EngineDead},
        "vllm.lora": {},
        "vllm.lora.request": {"LoRARequest": lambda name, number, path: (name, number, path)},
    }
    for name, content in parts.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(vllm_engine, "find_spec", lambda name: name)
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "WARNING")
    return FakeLLM


# -- asking ------------------------------------------------------------------------------------------------


def test_greedy_completions_are_the_local_engines(tiny_llama: Path, fake_vllm: type[FakeLLM]) -> None:
    engine, other = create_inference_engine(settings(tiny_llama)), local(tiny_llama)
    greedy = Sampling(12, temperature=0.0)
    for done, expected in zip(engine.generate(chats(), greedy), other.generate(chats(), greedy), strict=True):
        assert (done.text, done.prompt_ids, done.token_ids) == (expected.text, expected.prompt_ids, expected.token_ids)
        assert done.finish == expected.finish
        assert done.logprobs == pytest.approx(expected.logprobs, abs=1e-4)


def test_a_stop_token_ends_the_turn_and_is_not_said(tiny_llama: Path, tmp_path: Path, fake_vllm: type[FakeLLM]) -> None:
    engine = create_inference_engine(settings(tiny_llama))
    whole = engine.generate(chats(), Sampling(12, temperature=0.0))[0]
    stop = whole.token_ids[3]
    assert stop not in whole.token_ids[:3]
    folder = tmp_path / "two_stops"
    shutil.copytree(tiny_llama, folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, stop]}), encoding="utf-8")
    done = create_inference_engine(settings(folder)).generate(chats(), Sampling(12, temperature=0.0))[0]
    assert (done.token_ids, done.finish) == (whole.token_ids[:4], "stop")
    assert done.text == local(tiny_llama).tokenizer.decode(whole.token_ids[:3], skip_special_tokens=True)
    assert len(done.logprobs) == 4


def test_a_model_without_generation_config_stops_where_its_config_says(
    tiny_llama: Path, tmp_path: Path, fake_vllm: type[FakeLLM]
) -> None:
    folder = tmp_path / "plain"
    shutil.copytree(tiny_llama, folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    create_inference_engine(settings(folder)).generate(chats(), Sampling(1))
    assert fake_vllm.started[0].requests[0].params.stop_token_ids == [2]


def test_sampling_settings_and_seeds_reach_every_prompt(tiny_llama: Path, fake_vllm: type[FakeLLM]) -> None:
    engine = create_inference_engine(settings(tiny_llama))
    first = engine.generate(chats(), Sampling(5, temperature=0.7, top_p=0.9, seed=4))
    assert first == engine.generate(chats(), Sampling(5, temperature=0.7, top_p=0.9, seed=4))
    requests = fake_vllm.started[0].requests[: len(NOTES)]
    assert {(r.params.max_tokens, r.params.temperature, r.params.top_p) for r in requests} == {(5, 0.7, 0.9)}
    assert len({r.params.seed for r in requests}) == len(NOTES)
    engine.generate(chats()[:2], Sampling(5, seeds=(8, 9)))
    assert [r.params.seed for r in fake_vllm.started[0].requests[-2:]] == [8, 9]
    other = engine.generate(chats(), Sampling(5, temperature=0.7, top_p=0.9, seed=5))
    assert [done.token_ids for done in other] != [done.token_ids for done in first]


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_logprobs_are_those_of_what_is_sampled_or_none(
    tiny_llama: Path, fake_vllm: type[FakeLLM], temperature: float
) -> None:
    """A vLLM that is to train tells those of its samples; one that judges tells the model's, the same at 1."""
    trains, judges = (create_inference_engine(settings(tiny_llama)) for _ in range(2))
    mode = vllm_engine.logprobs_mode(temperature)
    trains.llm.options["logprobs_mode"] = mode
    player = VLLMEngine(trains.llm, trains.tokenizer, trains._stop_ids, settings(tiny_llama), logprobs_mode=mode)
    sampling = Sampling(6, temperature, seed=3)
    scorer = local(tiny_llama, temperature=temperature)
    for messages, done, judged in zip(
        chats(), player.generate(chats(), sampling), judges.generate(chats(), sampling), strict=True
    ):
        (expected,) = scorer.logprobs([Turn("assessor", messages, done)])
        assert done.logprobs == pytest.approx(expected, abs=1e-4)
        assert judged.token_ids == done.token_ids
        assert judged.logprobs == (() if temperature == 0.7 else done.logprobs)


def test_verdicts_are_not_weighed_where_vllm_tells_what_it_samples(tiny_llama: Path, fake_vllm: type[FakeLLM]) -> None:
    engine = create_inference_engine(settings(tiny_llama))
    mode = vllm_engine.logprobs_mode(0.7)
    player = VLLMEngine(engine.llm, engine.tokenizer, engine._stop_ids, settings(tiny_llama), logprobs_mode=mode)
    with pytest.raises(ConfigError, match="leave temperature at 1") as caught:
        player.reply_probabilities(chats(), [PAIR] * len(NOTES))
    assert "\n" not in str(caught.value)


def test_each_prompt_has_a_limit_of_its_own(tiny_llama: Path, fake_vllm: type[FakeLLM]) -> None:
    engine = create_inference_engine(settings(tiny_llama))
    done = engine.generate(chats(), Sampling(9, temperature=0.0, limits=(3, 9, 1, 5)))
    assert [each.params.max_tokens for each in fake_vllm.started[0].requests] == [3, 9, 1, 5]
    said = [(len(each.token_ids), each.finish) for each in done]
    assert all(finish == "stop" or n == room for (n, finish), room in zip(said, (3, 9, 1, 5), strict=True))
    assert [finish for _, finish in said].count("length") >= 2
    assert engine.count_tokens(["fever", "fever and cough"]) == [
        len(engine.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in ("fever", "fever and cough")
    ]


def test_a_note_too_long_for_the_context_is_one_clear_line(tiny_llama: Path, fake_vllm: type[FakeLLM]) -> None:
    engine = create_inference_engine(settings(tiny_llama))
    long = load_prompts("term", "edit").assessor("fever and cough " * 500)
    with pytest.raises(ModelError, match=r"context holds 512; leave such notes out"):
        engine.generate([*chats(), long], Sampling(16))
    with pytest.raises(ModelError, match="context holds 512"):
        engine.reply_probabilities([long], [PAIR])
    assert fake_vllm.started[0].requests == []


def test_weights_are_the_local_engines(tiny_llama: Path, fake_vllm: type[FakeLLM]) -> None:
    replies = [PAIR, PAIR, ("It fits.\n" + PAIR[0], "It fits.\n" + PAIR[1]), ("yes", "no", "fever and cough")]
    found = create_inference_engine(settings(tiny_llama)).reply_probabilities(chats(), replies)
    for weights, expected in zip(found, local(tiny_llama).reply_probabilities(chats(), replies), strict=True):
        assert weights == pytest.approx(expected, abs=1e-5)


def test_a_vllm_that_dies_is_one_clear_line(tiny_llama: Path, fake_vllm: type[FakeLLM]) -> None:
    def die(*arguments: Any, **options: Any) -> None:
        raise EngineDead("see the stack trace above")

    engine = create_inference_engine(settings(tiny_llama))
    fake_vllm.started[0].generate = die  # type: ignore[method-assign]
    with pytest.raises(RunError, match="give the same command to go on") as caught:
        engine.generate(chats(), Sampling(2))
    assert "\n" not in str(caught.value)


def test_close_ends_vllms_process(tiny_llama: Path, fake_vllm: type[FakeLLM]) -> None:
    create_inference_engine(settings(tiny_llama)).close()
    assert fake_vllm.started[0].closed


# -- adapters ----------------------------------------------------------------------------------------------


@pytest.fixture
def adapter(tiny_llama: Path, tmp_path: Path) -> Path:
    """A LoRA adapter of rank 12 on the tiny Llama, as training saves it."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    create_engine(settings(tiny_llama, engine="local", lora_rank=12)).save(folder)
    return folder


def test_an_adapter_goes_with_every_prompt(tiny_llama: Path, adapter: Path, fake_vllm: type[FakeLLM]) -> None:
    engine = create_inference_engine(settings(tiny_llama, adapter=str(adapter)))
    llm = fake_vllm.started[0]
    assert (llm.options["enable_lora"], llm.options["max_lora_rank"]) == (True, 16)
    engine.generate(chats(), Sampling(2))
    engine.reply_probabilities(chats(), [PAIR] * len(NOTES))
    request = ("adapter", 1, str(adapter.resolve()))
    assert llm.loras == [request]
    assert {each.lora for each in llm.requests} == {request}


def test_without_an_adapter_there_is_none(tiny_llama: Path, fake_vllm: type[FakeLLM]) -> None:
    create_inference_engine(settings(tiny_llama)).generate(chats(), Sampling(2))
    llm = fake_vllm.started[0]
    assert "enable_lora" not in llm.options
    assert llm.loras == []
    assert {each.lora for each in llm.requests} == {None}


def _rewrite(adapter: Path, change: Any) -> None:
    from safetensors.torch import load_file, save_file

    file = adapter / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: {k: v[:, :10].contiguous() for k, v in weights.items()}, r"not fit .* has shape \[12, 10\]"),
        (lambda weights: {k.replace("layers.1", "layers.7"): v for k, v in weights.items()}, "no layer model.layers.7"),
        (lambda weights: {**weights, "base_model.model.lm_head.weight": torch.ones(2)}, "plain LoRA only"),
    ],
)
def test_an_adapter_that_vllm_would_take_in_silence_is_refused(
    tiny_llama: Path, adapter: Path, fake_vllm: type[FakeLLM], change: Any, message: str
) -> None:
    _rewrite(adapter, change)
    with pytest.raises(ModelError, match=message):
        create_inference_engine(settings(tiny_llama, adapter=str(adapter)))
    assert fake_vllm.started == []


def test_an_adapter_that_is_damaged_or_of_too_high_rank(
    tiny_llama: Path, adapter: Path, fake_vllm: type[FakeLLM]
) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    high = {**config, "rank_pattern": {"q_proj": 600}}
    (adapter / "adapter_config.json").write_text(json.dumps(high), encoding="utf-8")
    with pytest.raises(ModelError, match="rank 600, but vLLM serves 512 at most"):
        create_inference_engine(settings(tiny_llama, adapter=str(adapter)))
    (adapter / "adapter_model.safetensors").write_bytes(b"cut short")
    with pytest.raises(ModelError, match="does not fit"):
        create_inference_engine(settings(tiny_llama, adapter=str(adapter)))


def test_an_adapter_that_vllm_refuses_ends_vllm(
    tiny_llama: Path, adapter: Path, fake_vllm: type[FakeLLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: FakeLLM, request: Any) -> None:
        raise RuntimeError("Call to add_lora method failed: no such module\nand a trace")

    monkeypatch.setattr(FakeLLM, "add_lora", refuse)
    with pytest.raises(ModelError, match=r"cannot be used .* no such module$"):
        create_inference_engine(settings(tiny_llama, adapter=str(adapter)))
    assert fake_vllm.started[0].closed


# -- choosing it -------------------------------------------------------------------------------------------


def test_vllm_that_is_asked_for_and_missing_is_one_clear_line(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_engine, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"not installed; pip install 'medserl\[vllm\]'"):
        create_inference_engine(settings(tiny_llama))


def test_vllm_that_cannot_be_imported_says_why(
    tiny_llama: Path, fake_vllm: type[FakeLLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vllm.platforms", None)
    with pytest.raises(ConfigError, match=r"vLLM cannot be imported: .*vllm\.platforms"):
        create_inference_engine(settings(tiny_llama))


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_vllm_for_another_device_is_an_error(tiny_llama: Path, fake_vllm: type[FakeLLM], device: str) -> None:
    with pytest.raises(ConfigError, match=f"runs on cpu, not on {device}"):
        create_inference_engine(settings(tiny_llama, device=device))


def test_what_vllm_cannot_load_is_one_line(tiny_llama: Path, fake_vllm: type[FakeLLM]) -> None:
    with pytest.raises(ModelError, match=r"vLLM cannot load '.*': no float16 here$"):
        create_inference_engine(settings(tiny_llama, dtype="float16"))


@pytest.mark.parametrize(
    ("engine", "installed", "device", "chosen"),
    [
        ("auto", True, "cuda", "vllm"),
        ("auto", True, "cpu", "local"),
        ("auto", True, "cuda:1", "local"),
        ("auto", False, "cuda", "local"),
        ("local", True, "cuda", "local"),
        ("vllm", False, "cpu", "vllm"),
        ("scripted", True, "cuda", "scripted"),
        ("openrlhf", True, "cuda", "vllm"),
        ("openrlhf", False, "cuda", "local"),
    ],
)
def test_which_engine_judges(
    engine: str, installed: bool, device: str, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: name if installed else None)
    assert inference_engine_name(Settings(engine=engine, device=device)) == chosen
