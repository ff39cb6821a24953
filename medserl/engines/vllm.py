"""vLLM writes: many completions at once on a GPU (`pip install 'medserl[vllm]'`). Alone it is the engine of evaluation,
which learns nothing; `vllm_training` has it play while the local engine learns.

Prompts are rendered and cut into tokens here, as for the local engine, so both ask a model the very same; adapters
travel as vLLM's LoRA requests. vLLM runs in a process of its own, which `close` ends.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from medserl.config import Settings
from medserl.engines.base import Sampling
from medserl.engines.reply_probabilities import probabilities_by_logprobs
from medserl.engines.vllm_process import VLLMProcess, start_process
from medserl.errors import ConfigError, MedSeRLError, ModelError, first_line
from medserl.game.episode import Completion, Turn
from medserl.game.prompts import Messages
from medserl.models import adapter_source, model_source, pick_dtype
from medserl.models.chat import ChatRenderer, check_context, stop_token_ids
from medserl.models.loading import read_tokenizer, reason
from medserl.models.unused_memory import free_unused_memory

CPU_MEMORY_SHARE = 0.4
"""Of this machine's memory, for vLLM on a CPU; its own 0.92 fails wherever anything else runs."""
RAW_LOGPROBS, PROCESSED_LOGPROBS = "raw_logprobs", "processed_logprobs"
"""vLLM's modes: the model's log-probabilities, or those of the distribution that is sampled from. Of the latter
`reply_probabilities`, which allows a single token, would see nothing but 0."""
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks that vLLM reserves memory for; an adapter needs one that is no smaller than its own."""


class VLLMEngine:
    """Implements `engines.base.InferenceEngine` over a `vllm.LLM`."""

    def __init__(
        self,
        llm: Any,
        tokenizer: Any,
        stop_ids: frozenset[int],
        settings: Settings,
        lora: Any = None,
        logprobs_mode: str = RAW_LOGPROBS,
        process: VLLMProcess | None = None,
    ) -> None:
        """`lora` is the `LoRARequest` of the adapter, if there is one; `logprobs_mode` the one that `llm` has;
        `process` where it runs, if that is not here."""
        self.llm = llm
        self.process = process or VLLMProcess()
        self.tokenizer = tokenizer
        self.chat = ChatRenderer(tokenizer, settings.thinking)
        self._stop_ids = stop_ids
        self._lora = lora
        self._raw = logprobs_mode == RAW_LOGPROBS
        self.context: int | None = llm.model_config.max_model_len

    def generate(self, prompts: Sequence[Messages], sampling: Sampling) -> list[Completion]:
        ids = [self.chat.ids(messages) for messages in prompts]
        rooms = sampling.rooms(len(ids))
        check_context(ids, rooms, self.context)
        seeds = _seeds(len(ids), sampling)
        options = [self._options(*each, sampling) for each in zip(seeds, rooms, strict=True)]
        told = not self._raw or sampling.temperature in (0, 1)  # raw ones are those at temperature 1
        outputs = self._run(ids, options, self._lora_of(sampling))
        return [self._completion(prompt, each, told) for prompt, each in zip(ids, outputs, strict=True)]

    def _lora_of(self, sampling: Sampling) -> Any:
        """The adapter that writes: always the same one, where nothing is learnt."""
        return self._lora

    def _options(self, seed: int, room: int, sampling: Sampling) -> dict[str, Any]:
        return {
            "max_tokens": room,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": seed,
            "stop_token_ids": sorted(self._stop_ids),
            "logprobs": 0,  # the sampled token's alone
        }

    def _completion(self, prompt: tuple[int, ...], output: Any, with_logprobs: bool) -> Completion:
        done = output.outputs[0]
        tokens = tuple(done.token_ids)
        said = tokens[:-1] if tokens and tokens[-1] in self._stop_ids else tokens
        return Completion(
            text=self.chat.completion_text(said),
            prompt_ids=prompt,
            token_ids=tokens,
            logprobs=tuple(at[token].logprob for token, at in zip(tokens, done.logprobs, strict=True) if with_logprobs),
            finish="length" if said is tokens else "stop",
        )

    def prompt_lengths(self, prompts: Sequence[Messages]) -> list[int]:
        return [self.chat.prompt_length(messages) for messages in prompts]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(self.chat.reply_ids(text)) for text in texts]

    @property
    def scores_replies(self) -> bool:
        return self._raw

    def reply_probabilities(
        self, prompts: Sequence[Messages], replies: Sequence[tuple[str, ...]]
    ) -> list[tuple[float, ...]]:
        """Raises ConfigError where vLLM was started to tell the probabilities of what it samples."""
        if not self._raw:
            raise ConfigError(
                "probabilities of verdicts are those at temperature 1, and this vLLM tells the ones of its samples at "
                "another: leave temperature at 1, or judge with `medserl evaluate`"
            )
        return probabilities_by_logprobs(self.chat, self.logprobs, prompts, replies)

    def logprobs(self, turns: Sequence[Turn]) -> list[tuple[float, ...]]:
        """Log-probability of every completion token of each turn.

        Made for completions of a few tokens: each token is a request of its own, in which it alone is allowed, and
        vLLM's prefix cache knows what comes before. (vLLM's `prompt_logprobs` fails with an adapter on its CPU build.)

        Raises:
            ModelError: a turn is longer than the model's context.
        """
        wanted = [
            (done.prompt_ids + done.token_ids[:place], token)
            for done in (turn.completion for turn in turns)
            for place, token in enumerate(done.token_ids)
        ]
        prompts = [prompt for prompt, _ in wanted]
        check_context(prompts, [1] * len(prompts), self.context)
        options = [
            {"max_tokens": 1, "temperature": 0.0, "logprobs": 0, "allowed_token_ids": [token]} for _, token in wanted
        ]
        outputs = zip(wanted, self._run(prompts, options, self._lora), strict=True)
        scores = iter([output.outputs[0].logprobs[0][token].logprob for (_, token), output in outputs])
        return [tuple(next(scores) for _ in turn.completion.token_ids) for turn in turns]

    def _run(self, prompts: Sequence[tuple[int, ...]], options: Sequence[dict[str, Any]], lora: Any) -> list[Any]:
        """vLLM's output for each prompt, in order. Raises RunError where its process has died."""
        from vllm import SamplingParams

        asked = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        params = [SamplingParams(detokenize=False, **each) for each in options]
        outputs: list[Any] = self.process.ask(
            lambda: self.llm.generate(asked, params, lora_request=lora, use_tqdm=False)
        )
        return outputs

    def close(self) -> None:
        self.llm.llm_engine.engine_core.shutdown()
        self.process.close()


def logprobs_mode(temperature: float) -> str:
    """vLLM's mode that tells the log-probabilities of what is sampled; at temperature 1 they are the model's own."""
    return RAW_LOGPROBS if temperature == 1 else PROCESSED_LOGPROBS


def _seeds(count: int, sampling: Sampling) -> Sequence[int]:
    return sampling.seeds or [random.Random(f"{sampling.seed}/{i}").getrandbits(63) for i in range(count)]


def load_vllm(settings: Settings) -> VLLMEngine:
    """Start vLLM with the model and adapter that the settings name.

    Raises:
        ConfigError: vLLM is not installed, or was built for another device.
        ModelError: vLLM cannot load the model or the adapter.
    """
    device = vllm_device(settings.device)
    name, adapter = model_source(settings.model), adapter_source(settings)
    with starting(settings.model):
        if adapter:
            _check_adapter(adapter, name, settings)
        tokenizer = read_tokenizer(name, settings)
        stop_ids = stop_token_ids(generation_config(name, settings.trust_remote_code), tokenizer)
        llm, process = start_llm(
            name,
            settings,
            device,
            max_model_len=-1,  # the model's own, or what fits into memory
            enforce_eager=settings.vllm_eager,
            logprobs_mode=RAW_LOGPROBS,
            **(lora_options(rank_of(adapter), at_once=1, kept=1) if adapter else {}),
        )
    lora = _load_adapter(llm, adapter, settings.model) if adapter else None
    return VLLMEngine(llm, tokenizer, stop_ids, settings, lora, process=process)


@contextmanager
def starting(model: str) -> Iterator[None]:
    """Inside, whatever a library raises while vLLM starts with `model` is a ModelError of one line."""
    try:
        yield
    except MedSeRLError:
        raise
    except Exception as error:  # of whichever library reads the files
        raise ModelError(f"vLLM cannot load {model!r}: {reason(error)}") from error


def start_llm(name: str, settings: Settings, device: str, **options: Any) -> tuple[Any, VLLMProcess]:
    """A `vllm.LLM` with the model of that name or folder, and where it runs; `options` are vLLM's own, beside what all
    of ours share."""
    from vllm import LLM

    free_unused_memory()  # of a model before this one
    ours: dict[str, Any] = {}
    if device == "cpu":  # whose generators cannot be set back where a prompt has been read in part
        ours = {"gpu_memory_utilization": CPU_MEMORY_SHARE, "enable_chunked_prefill": False}
    return start_process(
        lambda: LLM(
            model=name,
            dtype=pick_dtype(settings.dtype, device),
            trust_remote_code=settings.trust_remote_code,
            seed=settings.seed,
            generation_config="vllm",  # no sampling defaults of the model's: ours are complete
            **{**ours, **options},
        )
    )


def vllm_device(wanted: str) -> str:
    """The kind of device that the installed vLLM was built for, if it is the one wanted."""
    if find_spec("vllm") is None:
        raise ConfigError("engine 'vllm': vLLM is not installed; pip install 'medserl[vllm]', or give --engine local")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")  # read when vLLM is first imported
    try:
        from vllm.platforms import current_platform
    except ImportError as error:
        raise ConfigError(f"engine 'vllm': vLLM cannot be imported: {first_line(error)}") from error
    built_for: str = current_platform.device_type
    if wanted not in ("auto", built_for):
        raise ConfigError(
            f"engine 'vllm': this vLLM runs on {built_for}, not on {wanted}; leave --device out "
            "(CUDA_VISIBLE_DEVICES chooses the GPU), or give --engine local"
        )
    return built_for


def generation_config(name: str, trust_remote_code: bool) -> Any:
    """The model's own, or where it has none what its config says of the end of a turn."""
    from transformers import AutoConfig, GenerationConfig

    try:
        return GenerationConfig.from_pretrained(name)
    except OSError:
        config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
        return GenerationConfig.from_model_config(config)


def rank_of(adapter: Path) -> int:
    """The highest rank of an adapter's matrices."""
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    return int(max([config["r"], *config.get("rank_pattern", {}).values()]))


def lora_options(rank: int, *, at_once: int, kept: int) -> dict[str, Any]:
    """vLLM's options for so many adapters in one call, and in memory, of at most `rank`. Raises ModelError."""
    if rank > LORA_RANKS[-1]:
        raise ModelError(f"an adapter of rank {rank}, but vLLM serves {LORA_RANKS[-1]} at most; give --engine local")
    room = next(r for r in LORA_RANKS if r >= rank)
    return {"enable_lora": True, "max_loras": at_once, "max_cpu_loras": kept, "max_lora_rank": room}


def _check_adapter(adapter: Path, name: str, settings: Settings) -> None:
    """Raises ModelError where the adapter is not plain LoRA on the model's own layers.

    vLLM itself takes an adapter of other sizes without a word, and answers with nonsense.
    """
    import torch
    from safetensors import SafetensorError, safe_open
    from transformers import AutoConfig, AutoModelForCausalLM

    remote = {"trust_remote_code": settings.trust_remote_code}
    with torch.device("meta"):  # shapes alone, no memory
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(name, **remote), **remote)
    modules = dict(model.named_modules())
    problem = f"adapter {adapter} does not fit {settings.model!r}"
    try:
        with safe_open(adapter / "adapter_model.safetensors", "pt") as weights:
            shapes = {key: weights.get_slice(key).get_shape() for key in weights.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{problem}: {first_line(error)}") from error
    for key, shape in shapes.items():
        path, _, factor = key.removeprefix("base_model.model.").partition(".lora_")
        if factor not in ("A.weight", "B.weight"):
            raise ModelError(f"adapter {adapter}: vLLM serves plain LoRA only, not {key}; give --engine local")
        layer = getattr(modules.get(path), "weight", None)
        side = 1 if factor == "A.weight" else 0  # A reads the layer's input, B writes its output
        if layer is None:
            raise ModelError(f"{problem}: the model has no layer {path}")
        if shape[side] != layer.shape[side]:
            raise ModelError(f"{problem}: {key} has shape {shape}, its layer {list(layer.shape)}")


def _load_adapter(llm: Any, adapter: Path, model: str) -> Any:
    """The request that goes with every prompt; the adapter is loaded now, so that a failure shows at once."""
    from vllm.lora.request import LoRARequest

    request = LoRARequest("adapter", 1, str(adapter.resolve()))
    try:
        llm.llm_engine.add_lora(request)
    except Exception as error:
        llm.llm_engine.engine_core.shutdown()
        raise ModelError(f"adapter {adapter} cannot be used with {model!r} in vLLM: {first_line(error)}") from error
    return request
