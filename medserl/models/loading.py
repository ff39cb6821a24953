"""Reads a model's folder or hub repository, and says in one line what is wrong with it.

Libraries raise whatever they raise on a broken file, a missing package or a model of another kind, and some things they
take without a word: weights that a checkpoint lacks are made up at random, weights that are no numbers are loaded.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medserl.errors import ConfigError, MedSeRLError, ModelError

if TYPE_CHECKING:
    from medserl.config import Settings

log = logging.getLogger("medserl")

_LFS = b"version https://git-lfs.github.com/"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_NO_LANGUAGE_MODEL = (
    *("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice"),
    *("ForMaskedLM", "ForPreTraining", "ForNextSentencePrediction", "RewardModel"),
)


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Inside, whatever a library raises while it reads `what` becomes one line that names it.

    Raises:
        ModelError: something was raised.
    """
    try:
        yield
    except MedSeRLError:
        raise
    except Exception as error:
        hint = "; --trust-remote-code runs it" if "trust_remote_code" in str(error) else ""
        raise ModelError(f"{what} cannot be loaded: {reason(error)}{hint}") from error


def reason(error: BaseException) -> str:
    """The first line of what an error says, with what it announces, and with its kind where it says little alone."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    plain = isinstance(error, OSError | ValueError | ImportError | RuntimeError) and line
    return line if plain else f"{type(error).__name__}{': ' if line else ''}{line}"


def pick_device(name: str) -> str:
    """The device of that name; `auto` is the best one here.

    Raises:
        ConfigError: there is no such device here, or no such name.
    """
    import torch

    here = torch.cuda.device_count() if torch.cuda.is_available() else 0
    has_mps = torch.backends.mps.is_available()
    if name == "auto":
        return "cuda" if here else "mps" if has_mps else "cpu"
    kind, _, number = name.partition(":")
    if name not in ("cpu", "cuda", "mps") and not (kind == "cuda" and number.isdecimal() and number.isascii()):
        raise ConfigError(f"device {name!r}: give auto, cpu, cuda, cuda:N or mps")
    if kind == "cuda" and int(number or 0) >= here:
        why = f"this machine has {here} CUDA GPUs" if torch.version.cuda else "this torch is built without CUDA"
        if here:
            why = f"there are {here} CUDA GPUs here, counted from 0"
        raise ConfigError(f"device {name!r}: {why}; give another, or auto")
    if kind == "mps" and not has_mps:
        raise ConfigError("device 'mps': there is none here; give another, or auto")
    return name


# -- files -------------------------------------------------------------------------------------------------


def check_files(folder: Path, what: str) -> None:
    """What can be told from the files of a model's folder, before any is loaded.

    Raises:
        ModelError: the configuration is broken, a file is a Git LFS pointer, or there are no weights in safetensors.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file())
    _refuse_pointers(files, what)
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):  # all are read if they are there
        if (folder / name).exists():
            _read_json(folder / name, what)
    if any(path.suffix == ".safetensors" for path in files):
        return
    pickled = next((path.name for path in files if path.suffix in _PICKLED), None)
    if pickled:
        raise ModelError(
            f"{what}: its weights are pickled ({pickled}), which may run code; only safetensors are read: "
            "convert them with save_pretrained"
        )
    gguf = next((path.name for path in files if path.suffix == ".gguf"), None)
    if gguf:
        raise ModelError(f"{what}: its weights are in GGUF ({gguf}); only safetensors are read")
    raise ModelError(f"{what}: the folder holds no weights (no *.safetensors)")


def check_adapter_files(folder: Path) -> None:
    """The same for a folder of PEFT. Raises ModelError."""
    what = f"adapter {folder}"
    _refuse_pointers(sorted(path for path in folder.iterdir() if path.is_file()), what)
    kind = _read_json(folder / "adapter_config.json", what).get("peft_type")
    if kind != "LORA":
        raise ModelError(f"{what}: it is of the kind {kind}; only LORA adapters are used")
    if not (folder / "adapter_model.safetensors").is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        why = "its weights are pickled (adapter_model.bin), which may run code; " if pickled else ""
        raise ModelError(f"{what}: {why}no adapter_model.safetensors there, and only safetensors are read")


def _refuse_pointers(files: list[Path], what: str) -> None:
    for path in files:
        with path.open("rb") as file:
            if file.read(len(_LFS)) == _LFS:
                raise ModelError(
                    f"{what}: {path.name} is a Git LFS pointer and not the file itself; run `git lfs pull`"
                )


def _read_json(path: Path, what: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{what}: {path.name} cannot be read: {reason(error)}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{what}: {path.name} is no JSON object")
    return content


def check_adapter_weights(peft_model: Any, name: str, folder: Path) -> None:
    """That the adapter `name`, read from `folder`, has all of its weights there and a place for each of them.

    One made for a model with more or fewer layers would be taken in part, without a word. Where `lora_targets` has
    widened it, the layers that it did not know before have none.

    Raises:
        ValueError: it was made for another model, or holds values that are no numbers.
    """
    from peft import PeftConfig, get_peft_model_state_dict
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", "pt") as weights:
        given = set(weights.keys())
        damaged = [key for key in sorted(given) if not weights.get_tensor(key).isfinite().all()]
    if damaged:
        raise ValueError(f"its weight {damaged[0]} holds values that are no finite numbers")
    places = set(get_peft_model_state_dict(peft_model, adapter_name=name, save_embedding_layers=False))
    own = getattr(PeftConfig.from_pretrained(str(folder)), "target_modules", None)

    def knows(key: str) -> bool:
        layer = f".{key.partition('.lora_')[0]}"
        return not isinstance(own, list | set) or any(layer.endswith(f".{target}") for target in own)

    lacking = {key for key in places - given if knows(key)}
    if given - places:
        raise ValueError(f"no place for its weight {min(given - places)}")
    if lacking:
        raise ValueError(f"it has no weight {min(lacking)}: it was made for another model")


# -- tokenizer and weights ---------------------------------------------------------------------------------


def read_tokenizer(source: str, settings: Settings) -> Any:
    """The tokenizer of `source`, with a chat template that works.

    Raises:
        ModelError: it cannot be read, its template is missing or broken, or the model is no causal language model.
    """
    from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

    from medserl.models.chat import ChatRenderer

    what = f"model {settings.model!r}"
    with reading(what):
        if Path(source).is_dir():
            check_files(Path(source), what)
        options = {"trust_remote_code": settings.trust_remote_code}
        _check_kind(AutoConfig.from_pretrained(source, **options), what)
    with reading(f"{what}: its tokenizer"):
        tokenizer: Any = AutoTokenizer.from_pretrained(source, **options)
        if type(tokenizer).__name__.startswith("MistralCommon"):  # it knows no chat template but its own
            tokenizer = PreTrainedTokenizerFast.from_pretrained(source)
        tokenizer.name_or_path = settings.model
    ChatRenderer(tokenizer, settings.thinking)
    return tokenizer


def read_weights(source: str, settings: Settings, dtype: Any, tokenizer: Any, **options: Any) -> Any:
    """The causal language model of `source` as `dtype`, on the CPU; `options` are further ones of `from_pretrained`.

    Raises:
        ModelError: it cannot be read, lacks weights, or does not fit the tokenizer.
    """
    from transformers import AutoModelForCausalLM

    what = f"model {settings.model!r}"
    with reading(what):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, by name
            trust_remote_code=settings.trust_remote_code,
            **options,
        )
    model, info = loaded
    for key, found, expected in sorted(info["mismatched_keys"]):
        raise ModelError(f"{what}: its weight {key} has shape {list(found)}, its config.json says {list(expected)}")
    if info["missing_keys"]:
        first, count = min(info["missing_keys"]), len(info["missing_keys"])
        raise ModelError(f"{what}: its files lack {count} of its weights ({first}): they would be made up at random")
    if info["unexpected_keys"]:
        unused = sorted(info["unexpected_keys"])
        log.warning("%s: %d of its weights are not used (%s)", what, len(unused), unused[0])
    _check_vocabulary(model, tokenizer, what)
    return model


def _check_kind(config: Any, what: str) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    named = (getattr(config, "architectures", None) or [""])[0]
    reads_both_ways = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(
        config, "is_decoder", False
    )
    if named.endswith(_NO_LANGUAGE_MODEL) or reads_both_ways or getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"{what}: {named or config.model_type} is no causal language model, which the game needs")


def _check_vocabulary(model: Any, tokenizer: Any, what: str) -> None:
    """Tokens added to a tokenizer may lie beyond the weights, if nothing says them; those of text may not."""
    rows = model.get_input_embeddings().weight.shape[0]
    added = set(getattr(tokenizer, "added_tokens_decoder", {}))
    highest = max((i for i in tokenizer.get_vocab().values() if i not in added), default=0)
    if highest >= rows:
        raise ModelError(
            f"{what}: its tokenizer has tokens up to {highest}, its weights hold {rows}: they do not belong"
        )


def check_finite(model: Any, what: str) -> None:
    """Raises ModelError where a weight is not a number: such a model answers nonsense, or trains on it."""
    _require_finite(model.named_parameters(), what)


def check_finite_files(folder: Path, what: str) -> None:
    """The same of weights as they lie in a folder: those that were packed while they were read hide it."""
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as weights:
            _require_finite(((key, weights.get_tensor(key)) for key in weights.keys()), what)  # noqa: SIM118


def _require_finite(weights: Iterable[tuple[str, Any]], what: str) -> None:
    import torch

    for name, weight in weights:
        if weight.dtype in (torch.float32, torch.bfloat16, torch.float16) and not torch.isfinite(weight).all():
            raise ModelError(f"{what}: its weight {name} holds values that are no finite numbers; the file is damaged")
