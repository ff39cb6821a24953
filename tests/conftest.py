"""Hypothesis profiles, and the fixtures that many tests share: MEDEC's folder and a tiny random Llama."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test fetches from a hub
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # before torch is imported: workers that share all cores wait for them
    _share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _share)))

ROOT = Path(__file__).resolve().parent.parent
MEDEC_PAIRS = "medec_ms_train_pairs.jsonl"

_PATIENT = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}  # machines are shared
settings.register_profile("quick", max_examples=200, **_PATIENT)
settings.register_profile("ci", max_examples=300, derandomize=True, **_PATIENT)
_IN_CI = os.environ.get("CI") == "true" or os.environ.get("HYPOTHESIS_PROFILE") == "ci"
settings.load_profile("ci" if _IN_CI else "quick")

# Not ours to mend: PEFT 0.21 asks transformers 5.24 for an attribute by its old name.
PEFT_ON_NEW_TRANSFORMERS = "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"

CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_CORPUS = (
    "A 54-year-old woman comes to the physician because of fever and cough for three days.",
    "Her temperature is 38.3 C (100.9 F), pulse is 96/min, and blood pressure is 120/70 mm Hg.",
    "She is treated with amoxicillin. Is this note medically correct?",
    "Reply with final_answer: CORRECT or final_answer: INCORRECT.",
)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", PEFT_ON_NEW_TRANSFORMERS)


@pytest.fixture(scope="module", autouse=True)
def imports_are_no_garbage() -> None:
    """Before a model is loaded garbage is collected; a second each time, if it went through all that is imported."""
    gc.freeze()


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For tests of tensors so small that they are slower on several threads."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def medec_dir() -> Path:
    """Folder of MEDEC-MS: `$MEDEC_DIR`, then `../shared/medec` beside the repository."""
    named = os.environ.get("MEDEC_DIR")
    for folder in [*([Path(named)] if named else []), ROOT.parent / "shared" / "medec"]:
        if (folder / MEDEC_PAIRS).is_file():
            return folder
    pytest.skip(f"no {MEDEC_PAIRS} in $MEDEC_DIR or in ../shared/medec")


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ordinary Hugging Face folder: a random 2-layer Llama, a byte-level tokenizer, a ChatML template."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny_llama")
    tokenizer = _tiny_tokenizer()
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.15,  # far from uniform: a wrong position or mask shows
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def _tiny_tokenizer():  # type: ignore[no-untyped-def]  # transformers is imported by the tests that need it
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=512
    )
    fast.chat_template = CHATML
    return fast
