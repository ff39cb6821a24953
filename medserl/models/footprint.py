"""What training a model takes of a device's memory, from the shapes in its configuration alone: no weight is read.

Activations follow a rule with two constants, fitted to Qwen3-4B's update with fake tensors (7.1 MB a token, 0.85 with
gradient checkpointing) and held against other sizes by `benchmarks/memory.py`. It is an estimate: a tenth of the device
and `CONTEXT` stay free beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from medserl.config import Settings
from medserl.models.four_bits import BYTES_A_WEIGHT, packed_layers
from medserl.models.loading import pick_device, reading

log = logging.getLogger("medserl")

GB = 10**9
CONTEXT = 7 * GB // 10
"""What CUDA itself takes."""
OF_HIDDEN, OF_INTERMEDIATE = 14.0, 5.8
"""Numbers of 16 bits that a layer keeps of each token for the way back: by its width, and by that of its MLP."""
OF_VOCABULARY = 0.78
"""Numbers of 32 bits a token by the vocabulary: logits are kept for what was written alone."""
TRAINED_BYTES = 20
"""Of each of LoRA's numbers: itself, its gradient, two of Adam, and the reference's."""
CACHED_TOKENS = 16 * 1024
"""That vLLM's cache should hold at least: some 20 notes with their answers."""
VLLM_OVERHEAD = 3 * GB // 2
FEW_TOKENS, ENOUGH_TOKENS, MOST_TOKENS = 1024, 4096, 16384
"""Of a training pass: the least that holds a long note, what keeps a GPU busy, and more than that gains nothing."""

KNOWN: Mapping[str, Mapping[str, Any]] = {
    "smollm2-135m": {
        "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True,
    },
    "Qwen/Qwen3-1.7B": {
        "model_type": "qwen3", "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "Qwen/Qwen3-4B": {
        "model_type": "qwen3", "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "Qwen/Qwen3-8B": {
        "model_type": "qwen3", "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
        "tie_word_embeddings": False,
    },
}  # fmt: skip
"""Shapes of models that are asked about before anything of them is downloaded."""


def known_config(name: str) -> Any:
    """The configuration of one of `KNOWN`. Raises KeyError for another."""
    from transformers import AutoConfig

    return AutoConfig.for_model(**KNOWN[name])


@dataclass(frozen=True)
class Shape:
    """What of a model's configuration memory follows from; widths in numbers, not bytes."""

    parameters: int
    layers: int
    hidden: int
    intermediate: int
    cached: int
    """Numbers of one token in the cache of keys and values, over all layers."""
    vocabulary: int
    linear: int = 0
    """Of the parameters, those in the matrices of linear layers but the last: what `load_in_4bit` packs."""

    @classmethod
    def of(cls, config: Any) -> Shape:
        import torch
        from transformers import AutoModelForCausalLM

        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        text = config.get_text_config()
        heads = text.num_attention_heads
        head = getattr(text, "head_dim", None) or text.hidden_size // heads
        key_values = getattr(text, "num_key_value_heads", None) or heads
        width = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
        return cls(
            parameters=sum(p.numel() for p in model.parameters()),
            layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            intermediate=width,
            cached=2 * text.num_hidden_layers * key_values * head,
            vocabulary=text.vocab_size,
            linear=sum(module.weight.numel() for module in packed_layers(model)),
        )

    def activations(self, *, checkpointing: bool) -> float:
        """Bytes of one token of an update."""
        layer = 2 * (OF_HIDDEN * self.hidden + OF_INTERMEDIATE * self.intermediate)
        kept = 2 * self.hidden * self.layers + layer if checkpointing else layer * self.layers
        return kept + 4 * OF_VOCABULARY * self.vocabulary

    def learner(self, lora_rank: int, *, load_in_4bit: bool = False) -> int:
        """Bytes of the weights that learn, with all that an optimizer has beside them; frozen ones are of 16 bits.

        With `load_in_4bit` those of linear layers are packed, and one matrix at a time is unpacked to multiply.
        """
        if not lora_rank:
            return 16 * self.parameters + 4 * self.parameters  # float32, with a frozen copy as reference
        trained = lora_rank * self.layers * (11 * self.hidden + 3 * self.intermediate)
        frozen = 2 * self.parameters
        if load_in_4bit:
            frozen += int((BYTES_A_WEIGHT - 2) * self.linear) + 2 * self.hidden * self.intermediate
        return frozen + TRAINED_BYTES * trained

    @property
    def player(self) -> int:
        """Bytes that vLLM needs beside: its own weights and cache."""
        return 2 * self.parameters + 2 * self.cached * CACHED_TOKENS + VLLM_OVERHEAD


@dataclass(frozen=True)
class Fit:
    """How a model is trained within a device's memory."""

    training_token_budget: int
    gradient_checkpointing: bool
    generation_token_budget: int
    vllm_sleep: bool = False
    vllm_gpu_memory: float = 0.0
    """Share of the device that vLLM takes; 0 without vLLM."""
    needed: int = 0
    """Bytes, most of the time."""

    def bytes_needed(self, shape: Shape, learner: int, player: int) -> int:
        """Bytes, most of the time: of what learns, its passes, and vLLM's, which take turns if it sleeps."""
        passes = self.training_token_budget * shape.activations(checkpointing=self.gradient_checkpointing)
        return int(learner + (max(player, passes) if self.vllm_sleep else player + passes))

    def but_for(self, settings: Settings) -> Fit:
        """This with the values of the settings that are not at their defaults, as `fitted` leaves them."""
        defaults = Settings.model_fields
        given = {name: getattr(settings, name) for name in self.settings}
        return replace(self, **{name: value for name, value in given.items() if value != defaults[name].default})

    @property
    def settings(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "training_token_budget": self.training_token_budget,
            "gradient_checkpointing": self.gradient_checkpointing,
            "generation_token_budget": self.generation_token_budget,
        }
        if self.vllm_gpu_memory:
            found |= {"vllm_sleep": self.vllm_sleep, "vllm_gpu_memory": self.vllm_gpu_memory}
        return found


def fit(shape: Shape, memory: int, lora_rank: int, *, vllm: bool, load_in_4bit: bool = False) -> Fit | None:
    """The fastest way to train within `memory` bytes; None where there is none.

    Playing and learning take turns only where they must: vLLM gives its memory back and takes it again each round.
    """
    usable = 0.9 * memory - CONTEXT
    learner = shape.learner(lora_rank, load_in_4bit=load_in_4bit)
    player = shape.player if vllm else 0
    for sleeps, checkpointing, least in _ways(vllm):
        room = usable - learner - (0 if sleeps else player)
        tokens = _power_of_two(room / shape.activations(checkpointing=checkpointing))
        if tokens < least or usable - learner < player:
            continue
        tokens = min(tokens, MOST_TOKENS)
        written = usable - learner if sleeps else room  # the local engine's cache, and what it keeps of prompts
        generation = max(FEW_TOKENS, min(131072, _power_of_two(written / (5 * shape.cached))))
        share = round((usable - learner if sleeps else player) / memory, 2) if vllm else 0.0
        found = Fit(tokens, checkpointing, generation, sleeps, share)
        return replace(found, needed=found.bytes_needed(shape, learner, player))
    return None


def _ways(vllm: bool) -> Iterator[tuple[bool, bool, int]]:
    """Whether vLLM sleeps, whether activations are computed twice, and the least tokens of a pass; the best first."""
    for least in (ENOUGH_TOKENS, FEW_TOKENS):
        for sleeps in (False, True) if vllm else (False,):
            yield sleeps, False, least
            yield sleeps, True, least


def _power_of_two(number: float) -> int:
    return 1 << (int(number).bit_length() - 1) if number >= 1 else 0


# -- this machine ------------------------------------------------------------------------------------------


def shape_of(settings: Settings) -> Shape:
    """Of the model that the settings name. Of a hub's, the configuration alone is read.

    Raises:
        ModelError: it cannot be read.
    """
    from transformers import AutoConfig

    from medserl.models import model_source

    if settings.model in KNOWN:
        return Shape.of(known_config(settings.model))
    with reading(f"model {settings.model!r}"):
        config = AutoConfig.from_pretrained(model_source(settings.model), trust_remote_code=settings.trust_remote_code)
        return Shape.of(config)


def fitted(settings: Settings, engine: str) -> Settings:
    """The settings with those of memory as the GPU at hand allows, where they are at their defaults.

    Nothing changes on a CPU. What is chosen is told in one line.

    Raises:
        ModelError: the model's configuration cannot be read.
    """
    device = pick_device(settings.device)
    if not device.startswith("cuda"):
        return settings
    import torch

    free, total = torch.cuda.mem_get_info(device)
    shape = shape_of(settings)
    found = fit(shape, free, settings.lora_rank, vllm=engine == "vllm", load_in_4bit=settings.load_in_4bit)
    if found is None:
        log.warning("%s", too_little(settings, shape, free, vllm=engine == "vllm"))
        found = Fit(FEW_TOKENS, gradient_checkpointing=True, generation_token_budget=ENOUGH_TOKENS)
    found = replace(found, vllm_gpu_memory=round(found.vllm_gpu_memory * free / total, 2))  # vLLM counts from all of it
    changes = {
        name: value for name, value in found.but_for(settings).settings.items() if value != getattr(settings, name)
    }
    if changes:
        log.info(
            "%.0f GB of %s are free: %s",
            free / GB,
            device,
            ", ".join(f"{name} {value}" for name, value in changes.items()),
        )
    return settings.with_overrides(**changes) if changes else settings


def fits_beside_vllm(settings: Settings) -> bool:
    """Whether the GPU at hand holds both the model that learns and vLLM's; True where there is no GPU to ask.

    Raises:
        ModelError: the model's configuration cannot be read.
    """
    device = pick_device(settings.device)
    if not device.startswith("cuda"):
        return True
    return fit(shape_of(settings), _memory(device), settings.lora_rank, vllm=True) is not None


def too_little(settings: Settings, shape: Shape, memory: int, *, vllm: bool) -> str:
    """That a model does not fit, and what could be done."""
    learner = shape.learner(settings.lora_rank, load_in_4bit=settings.load_in_4bit)
    least = learner + FEW_TOKENS * shape.activations(checkpointing=True)
    needed = (max(least, learner + shape.player) if vllm else least) + CONTEXT
    advice = "take a smaller model" if settings.lora_rank else "train an adapter (lora_rank above 0)"
    packs = settings.lora_rank and not vllm and pick_device(settings.device) != "mps"
    if packs and fit(shape, memory, settings.lora_rank, vllm=False, load_in_4bit=True):
        advice += ", or --load-in-4bit"
    advice = f"{advice}, or --engine local" if vllm else advice
    return (
        f"{settings.model} needs about {needed / 0.9 / GB:.0f} GB to train, and {memory / GB:.0f} GB are free: {advice}"
    )


def estimate(settings: Settings, engine: str) -> list[str]:
    """What training takes of this machine's memory, in lines for people; no weight is read or downloaded.

    Raises:
        ModelError: the model's configuration cannot be read.
    """
    device, shape = pick_device(settings.device), shape_of(settings)
    vllm = engine == "vllm"
    learner = shape.learner(settings.lora_rank, load_in_4bit=settings.load_in_4bit)
    trained = f"LoRA of rank {settings.lora_rank}" if settings.lora_rank else "all weights, in float32"
    trained += " on weights in 4 bits" if settings.load_in_4bit else ""
    lines = [
        f"{settings.model}: {shape.parameters / 1e9:.2f} billion parameters, {trained}, engine {engine}, {device}",
        f"weights and optimizer: {learner / GB:.1f} GB",
        *(
            f"each token of a training pass{name}: {shape.activations(checkpointing=checkpointing) / 1e6:.2f} MB"
            for checkpointing, name in ((False, ""), (True, " with gradient_checkpointing"))
        ),
    ]
    if vllm:
        lines.append(f"vLLM beside it: {shape.player / GB:.1f} GB")
    memory = _memory(device)
    found = fit(shape, memory, settings.lora_rank, vllm=vllm, load_in_4bit=settings.load_in_4bit)
    if found is None:
        lines.append(too_little(settings, shape, memory, vllm=vllm))
    elif device.startswith("cuda"):
        found = found.but_for(settings)
        needed = found.bytes_needed(shape, learner, shape.player if vllm else 0)
        chosen = ", ".join(f"{name} {value}" for name, value in found.settings.items())
        lines.append(f"{memory / GB:.0f} GB are free: about {needed / GB:.0f} are needed with {chosen}")
    else:
        as_set = Fit(settings.training_token_budget, settings.gradient_checkpointing, 0)
        needed = as_set.bytes_needed(shape, learner, 0)
        lines.append(f"{memory / GB:.0f} GB are free: about {needed / GB:.1f} are needed with these settings")
    return [*lines, "an estimate from the model's shapes (benchmarks/memory.py); nothing was loaded"]


def _memory(device: str) -> int:
    """Bytes that are free on the device."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return int(psutil.virtual_memory().available)
