"""The family contract: what MedSeRL does with a model of each architecture, tried on tiny random ones.

    python -m tests.families          prints the table of docs/models.md
    python -m tests.families --write  writes it there

`tests/integration/test_families.py` runs the same code.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from medserl.config import Settings
from medserl.engines import create_engine
from medserl.engines.base import Sampling, UpdateStats, WeightedTurn
from medserl.engines.local import LocalEngine
from medserl.errors import ModelError
from medserl.game.episode import Turn
from medserl.models import CONTEXT_NAMES
from tests.places import ROOT

WINDOW = 24
"""Tokens that a layer with a window sees; the prompts are longer."""
DOCS = ROOT / "docs" / "models.md"
MARKS = ("<!-- families -->\n", "<!-- /families -->\n")

_SIZES: dict[str, Any] = {
    "vocab_size": 384,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,  # far from uniform: a wrong mask or position shows
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_GPT = {"vocab_size": 384, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512, "initializer_range": 0.15}
_IDS = {"bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0}
_SLIDING = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
_HEADS = {"head_dim": 8}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_LOCAL_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
_LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
_MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_chunk_size": 16}


def _gemma3_wrapper() -> Any:
    from transformers import Gemma3Config, SiglipVisionConfig

    vision = {"num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
    return Gemma3Config(
        text_config=_config("Gemma3TextConfig", **_HEADS, **_SLIDING),
        vision_config=SiglipVisionConfig(hidden_size=16, intermediate_size=16, **vision),
        mm_tokens_per_image=4,
        image_token_index=380,
        boi_token_index=381,
        eoi_token_index=382,
    )


def _config(name: str, **changes: Any) -> Any:
    import transformers

    return getattr(transformers, name)(**{k: v for k, v in {**_SIZES, **changes}.items() if v is not ...})


def _own(name: str, **options: Any) -> Callable[[], Any]:
    """A configuration of a family that has names of its own for the sizes."""

    def make() -> Any:
        import transformers

        return getattr(transformers, name)(**options)

    return make


def _usual(name: str, **changes: Any) -> Callable[[], Any]:
    return lambda: _config(name, **changes)


FAMILIES: dict[str, Callable[[], Any]] = {
    "Llama": _usual("LlamaConfig"),
    "Qwen2": _usual("Qwen2Config"),
    "Qwen2 with a window": _usual("Qwen2Config", use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1),
    "Qwen3": _usual("Qwen3Config", **_HEADS),
    "Qwen3-MoE": _usual("Qwen3MoeConfig", **_HEADS, **_EXPERTS),
    "Mistral with a window": _usual("MistralConfig", sliding_window=WINDOW),
    "Mixtral with router noise": _usual("MixtralConfig", **_LOCAL_EXPERTS, router_jitter_noise=0.1),
    "Gemma 2": _usual("Gemma2Config", **_HEADS, sliding_window=WINDOW),
    "Gemma 3": _usual("Gemma3TextConfig", **_HEADS, **_SLIDING),
    "Gemma 3 with vision": _gemma3_wrapper,
    "Phi-3": _usual("Phi3Config"),
    "Phi-3 with a window": _usual("Phi3Config", sliding_window=WINDOW),
    "GPT-2": _own("GPT2Config", **_GPT, **_IDS),
    "GPT-Neo": _own(
        "GPTNeoConfig",
        **{k: _SIZES[k] for k in ("vocab_size", "hidden_size", "max_position_embeddings", "initializer_range")},
        **_IDS,
        num_layers=2,
        num_heads=4,
        window_size=WINDOW,
        attention_types=[[["global", "local"], 1]],
    ),
    "GPT-NeoX": _usual("GPTNeoXConfig", num_key_value_heads=...),
    "OPT": _usual("OPTConfig", ffn_dim=64, word_embed_proj_dim=32, init_std=0.15, layerdrop=0.1),
    "Falcon": _usual("FalconConfig", attention_dropout=0.1, hidden_dropout=0.1, num_key_value_heads=...),
    "Bloom": _own("BloomConfig", vocab_size=384, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.15, **_IDS),
    "MPT": _own(
        "MptConfig", vocab_size=384, d_model=32, n_layers=2, n_heads=4, max_seq_len=512, initializer_range=0.15
    ),
    "OLMo 2": _usual("Olmo2Config"),
    "OLMo 3": _usual("Olmo3Config", **_SLIDING),
    "Granite": _usual("GraniteConfig", attention_dropout=0.1, logits_scaling=2.0, residual_multiplier=0.5),
    "Cohere 2": _usual("Cohere2Config", **_SLIDING),
    "gpt-oss": _usual("GptOssConfig", **_HEADS, **_SLIDING, **_LOCAL_EXPERTS),
    "SmolLM3": _usual("SmolLM3Config", no_rope_layers=[1, 0]),
    "Llama 4": _usual(
        "Llama4TextConfig",
        **_HEADS,
        intermediate_size_mlp=64,
        num_local_experts=2,
        num_experts_per_tok=1,
        attention_chunk_size=WINDOW,
        no_rope_layers=[1, 0],
    ),
    "DeepSeek-V3": _usual(
        "DeepseekV3Config",
        num_key_value_heads=4,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=8,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        moe_intermediate_size=16,
        first_k_dense_replace=1,
    ),
    "Qwen3-Next": _usual("Qwen3NextConfig", **_HEADS, **_LINEAR, **_EXPERTS, shared_expert_intermediate_size=16),
    "Qwen3.5": _usual("Qwen3_5TextConfig", **_HEADS, **_LINEAR),
    "LFM2": _usual("Lfm2Config", layer_types=["conv", "full_attention"], block_multiple_of=8),
    "Granite hybrid": _usual(
        "GraniteMoeHybridConfig",
        layer_types=["mamba", "attention"],
        shared_intermediate_size=32,
        mamba_n_groups=1,
        **_LOCAL_EXPERTS,
        **_MAMBA,
    ),
    "Falcon-H1": _usual("FalconH1Config", **_HEADS, mamba_d_ssm=64, **_MAMBA),
    "Jamba": _usual(
        "JambaConfig", attn_layer_period=2, attn_layer_offset=1, num_experts=2, num_experts_per_tok=1, mamba_d_state=8
    ),
    "Mamba 2": _own(
        "Mamba2Config",
        **{k: _SIZES[k] for k in ("vocab_size", "hidden_size", "num_hidden_layers", "initializer_range")},
        **_IDS,
        state_size=8,
        num_heads=4,
        head_dim=16,
        n_groups=1,
        chunk_size=16,
    ),
    "RecurrentGemma": _usual("RecurrentGemmaConfig", num_hidden_layers=3, attention_window_size=WINDOW, lru_width=32),
}

_SAID = (
    "A 54-year-old woman comes to the physician because of fever and cough for three days. Is this note correct?",
    "A 54-year-old woman comes to the physician because of fever and cough for three days. She is treated.",
    "Her temperature is 38.3 C (100.9 F), pulse is 96/min, and blood pressure is 120/70 mm Hg. Reply with CORRECT.",
)
CHATS = tuple(({"role": "user", "content": text},) for text in (_SAID[0], *_SAID))


@dataclass(frozen=True)
class Outcome:
    """What came of a model trained in one way; `refusal` is the line that stands for all else."""

    gap: float = 0.0
    layers: tuple[str, ...] = ()
    shares_rows: bool = False
    free: bool = False
    cuts: bool = False
    refusal: str = ""


def write_model(family: str, folder: Path, context: int = 512) -> None:
    """An ordinary Hugging Face folder of a random model, with a tokenizer and a chat template."""
    from transformers import AutoModelForCausalLM

    from tests.conftest import _tiny_tokenizer

    config = FAMILIES[family]()
    sizes = config.get_text_config()
    for name in CONTEXT_NAMES:
        if hasattr(sizes, name):
            setattr(sizes, name, context)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    tokenizer = _tiny_tokenizer()
    tokenizer.model_max_length = context
    tokenizer.save_pretrained(folder)


def engine_of(folder: Path, **changes: Any) -> LocalEngine:
    options = {"adapter": "none", "device": "cpu", "dtype": "float32", "lora_rank": 4, "training_token_budget": 256}
    engine = create_engine(Settings(model=str(folder), engine="local", **{**options, **changes}))
    assert isinstance(engine, LocalEngine)
    return engine


def played(engine: LocalEngine) -> list[Turn]:
    """Four turns beyond every window; the first two have the same prompt."""
    completions = engine.generate(CHATS, Sampling(7, seed=1, role="injector"))
    return [Turn("injector", chat, done) for chat, done in zip(CHATS, completions, strict=True)]


def learn(engine: LocalEngine, turns: list[Turn]) -> UpdateStats:
    weighted = [
        WeightedTurn(turn, turn.completion.logprobs, (1.0 - 2 * (i % 2),) * len(turn.completion.token_ids), f"n{i}")
        for i, turn in enumerate(turns)
    ]
    return engine.update(weighted, learning_rate=1e-2)


def flat(scores: list[tuple[float, ...]]) -> torch.Tensor:
    return torch.tensor([value for row in scores for value in row])


def outcome(folder: Path, lora_rank: int, checkpoint: Path) -> Outcome:
    """Play, learn, save, go on, resume and evaluate; anything that is not as it must be is an AssertionError."""
    options = {"lora_rank": lora_rank, "gradient_checkpointing": lora_rank == 0}
    try:
        engine = engine_of(folder, **options)
    except ModelError as error:
        return Outcome(refusal=str(error))
    model = engine.model
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    turns = played(engine)
    stats = learn(engine, turns)
    assert stats.gap_explained is not None and stats.logprob_gap_rms <= stats.gap_explained
    _assert_moved(engine, before)
    checkpoint.mkdir()
    engine.save(checkpoint)
    saved = engine.logprobs(turns)
    learn(engine, turns)
    assert (flat(engine.logprobs(turns)) - flat(saved)).abs().max() > 1e-3
    engine.load(checkpoint)  # as after --resume
    assert engine.logprobs(turns) == saved
    judge = engine_of(checkpoint, lora_rank=0) if lora_rank == 0 else _judging(folder, str(checkpoint))
    assert (flat(judge.logprobs(turns)) - flat(saved)).abs().max() < 1e-4
    layers = {name.split(".lora_A")[0].rsplit(".", 1)[-1] for name in before if ".lora_A" in name}
    abilities = engine._abilities
    return Outcome(stats.logprob_gap_max, tuple(sorted(layers)), abilities.shares_rows, abilities.free, abilities.cuts)


def _judging(folder: Path, adapter: str) -> LocalEngine:
    settings = Settings(model=str(folder), adapter=adapter, device="cpu", dtype="float32", engine="local")
    engine = create_engine(settings, trainable=False)
    assert isinstance(engine, LocalEngine)
    return engine


def _assert_moved(engine: LocalEngine, before: dict[str, torch.Tensor]) -> None:
    """What has a gradient has moved, and nothing else; nothing outside the language model has one."""
    for name, parameter in engine.model.named_parameters():
        moved = not torch.equal(parameter, before[name])
        gradient = parameter.grad is not None and bool(parameter.grad.abs().max() > 1e-12)
        assert moved <= parameter.requires_grad, name
        assert moved >= gradient, name
        assert not (moved and any(part in name for part in ("vision", "multi_modal"))), name
    trained = [p for p in engine.model.parameters() if p.requires_grad]
    still = [p for p in trained if p.grad is None or not p.grad.abs().max() > 0]
    # LoRA's A matrices wait for B; of experts and other parts, a few may see no token
    assert len(still) <= len(trained) / 2


def try_family(family: str, scratch: Path) -> tuple[Outcome, Outcome]:
    """With LoRA, and with all weights under gradient checkpointing."""
    write_model(family, scratch / "model")
    return outcome(scratch / "model", 4, scratch / "lora"), outcome(scratch / "model", 0, scratch / "full")


def table() -> str:
    lines = [
        "| tiny random model | LoRA: gap | all weights: gap | turns that begin alike | prompts | a note is read "
        "| LoRA `attention` |",
        "|---|---|---|---|---|---|---|",
    ]
    for family in FAMILIES:
        with tempfile.TemporaryDirectory() as scratch:
            lora, full = try_family(family, Path(scratch))
        one = full if lora.refusal else lora
        rows = "share a row" if one.shares_rows else "a row each"
        prompts = "any together" if one.free else "of one length together"
        reading = "once" if one.cuts else "in each prompt"
        cells = [
            f"refused: {_short(lora.refusal)}" if lora.refusal else f"{lora.gap:.0e}",
            f"refused: {_short(full.refusal)}" if full.refusal else f"{full.gap:.0e}",
            *([""] * 4 if one.refusal else [rows, prompts, reading, ", ".join(f"`{name}`" for name in lora.layers)]),
        ]
        lines.append(f"| {family} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _short(refusal: str) -> str:
    return re.sub(r"'/[^']*'", "the model", refusal)


def main() -> None:
    torch.set_num_threads(1)  # such small tensors are slower on several
    found = table()
    if "--write" in sys.argv:
        text = DOCS.read_text(encoding="utf-8")
        head, rest = text.split(MARKS[0])
        DOCS.write_text(f"{head}{MARKS[0]}{found}{MARKS[1]}{rest.split(MARKS[1])[1]}", encoding="utf-8")
    print(found)


if __name__ == "__main__":
    main()
