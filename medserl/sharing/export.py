"""`medserl export`: a folder that transformers, PEFT, vLLM and llama.cpp's converter take as it is.

Either the adapter, with its tokenizer, chat template and card, or a whole model, the adapter merged into its weights.
The folder is there whole or not at all.
"""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from medserl.config import Settings
from medserl.display.console import say
from medserl.errors import ConfigError, ModelError, OutputError
from medserl.evaluation.thresholds import Threshold, read_threshold, weights_key, write_threshold
from medserl.files import private_folder, remove_leftovers, replace_folder
from medserl.game.roles import Role
from medserl.models import model_source
from medserl.models.base_names import is_hub_name, last_part
from medserl.models.loading import pick_device, read_tokenizer, reason
from medserl.sharing.card import ADAPTER_CONFIG, CARD, write_card
from medserl.sharing.card_facts import FACTS_FILE
from medserl.sharing.evaluated import find_evaluation
from medserl.sharing.merging import merged_model, save_model
from medserl.sharing.shared import Shared, find_shared

log = logging.getLogger("medserl")

_WEIGHTS = "adapter_model.safetensors"


def export(
    source: Path,
    output: Path,
    *,
    merged: bool = False,
    role: Role | None = None,
    checkpoint: str = "trained",
    model: str | None = None,
    dtype: str = "auto",
    push_to_hub: str | None = None,
) -> None:
    """Write the policy of a run, a checkpoint or an adapter's folder to `output`, and only if asked to the hub.

    Raises:
        MedSeRLError: it cannot be found, read, merged, written or uploaded.
    """
    if push_to_hub is not None:
        check_hub(push_to_hub)
    check_output(output, source)
    shared = find_shared(source, checkpoint=checkpoint, role=role, model=model)
    if not merged and not shared.is_adapter:
        raise ConfigError(f"{source}: all its weights were trained, so there is no adapter; add --merged for the model")
    scratch = output.absolute().with_name(f".{output.absolute().name}.partial")
    private_folder(scratch.parent)
    remove_leftovers(scratch.parent, output.absolute().name)
    try:
        _write(shared, private_folder(scratch), merged, dtype)
        replace_folder(scratch, output.absolute())
    except OSError as error:
        raise OutputError(f"{output}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    say(f"{'model' if merged else 'adapter'} with its tokenizer and card: {output}")
    if push_to_hub is not None:
        say(f"uploaded: {push(output, push_to_hub)}")


def check_output(output: Path, source: Path) -> None:
    """Raises ConfigError where an export would be mixed with other files, or take the place of what it is made from."""
    try:
        if output.exists() and not output.is_dir():
            raise ConfigError(f"{output}: this is a file; name a folder for the export alone")
        if output.is_dir() and any(output.iterdir()) and not _is_export(output):
            raise ConfigError(f"{output}: the folder holds other files; name one for the export alone")
        if output.resolve() == source.resolve() or output.resolve() in source.resolve().parents:
            raise ConfigError(f"{output}: what is to be exported lies there; name another folder")
    except OSError as error:
        raise ConfigError(f"{output}: {error.strerror or error}; name another folder") from None


def _is_export(folder: Path) -> bool:
    """Whether nothing is there but an earlier export: it says itself which files it wrote."""
    try:
        written = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))["files"]
        return {path.name for path in folder.iterdir()} <= {*written, FACTS_FILE}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _write(shared: Shared, folder: Path, merged: bool, dtype: str) -> None:
    settings = shared.settings.with_overrides(device=pick_device("cpu"))
    tokenizer = read_tokenizer(model_source(settings.model), settings)
    if merged:
        save_model(merged_model(shared, settings, tokenizer, dtype), shared.facts.prompt, folder)
    else:
        _copy_adapter(shared, folder)
    _save_tokenizer(tokenizer, shared, folder)
    threshold = _threshold(shared)
    if threshold and not merged:  # rounded weights are others
        write_threshold(folder, weights_key(_judging(shared)), threshold)
    write_card(folder, shared.facts, find_evaluation(shared.folder, shared.run), threshold)
    facts = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
    facts["files"] = sorted({path.name for path in folder.iterdir()} | {CARD, FACTS_FILE})
    (folder / FACTS_FILE).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _threshold(shared: Shared) -> Threshold | None:
    """The one that was chosen for these very weights, in the run or beside them; its source is named, not located."""
    key = weights_key(_judging(shared))
    for folder in (shared.run, shared.folder):
        found = read_threshold(folder, key) if folder else None
        if found:
            return replace(found, source=last_part(found.source) or "validation notes")
    return None


def _judging(shared: Shared) -> Settings:
    weights = str(shared.weights)
    if shared.is_adapter:
        return shared.settings.with_overrides(adapter=weights)
    return shared.settings.with_overrides(model=weights, adapter="none")


def _copy_adapter(shared: Shared, folder: Path) -> None:
    """The weights as they are; the configuration with the base model's public name, and its layers by name."""
    from safetensors import safe_open

    shutil.copyfile(shared.weights / _WEIGHTS, folder / _WEIGHTS)
    config = json.loads((shared.weights / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    config |= {"base_model_name_or_path": shared.facts.base.name, "inference_mode": True}
    if not isinstance(config.get("target_modules"), list):  # a pattern, which vLLM does not read
        with safe_open(folder / _WEIGHTS, "pt") as weights:
            paths = [key.partition(".lora_")[0] for key in weights.keys()]  # noqa: SIM118
        config["target_modules"] = sorted({path.rpartition(".")[2] for path in paths})
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _save_tokenizer(tokenizer: Any, shared: Shared, folder: Path) -> None:
    """With a name of its class that older readers know too, and with the date that MedSeRL's prompts have."""
    from medserl.models.template import ChatTemplate

    template = ChatTemplate(tokenizer, shared.settings.thinking)
    if template.dated is not None:
        tokenizer.chat_template = template.dated
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    for key in ("backend", "is_local", "local_files_only", "name_or_path"):
        config.pop(key, None)
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


# -- the hub -------------------------------------------------------------------------------------------------------


def check_hub(repository: str) -> None:
    """Raises ConfigError where an upload cannot succeed: a name of another form, no network wanted, no token."""
    from huggingface_hub import constants, get_token

    if not is_hub_name(repository):
        raise ConfigError(f"--push-to-hub {repository}: give owner/name")
    if constants.HF_HUB_OFFLINE:
        raise ConfigError(f"--push-to-hub {repository}: HF_HUB_OFFLINE is set; unset it to upload")
    if get_token() is None:
        raise ConfigError(f"--push-to-hub {repository}: no Hugging Face token here; `hf auth login` stores one")


def push(folder: Path, repository: str) -> str:
    """Upload the folder to a repository of the hub, made private where it is not there; returns its address.

    Raises:
        ModelError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        address = api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="MedSeRL export")
    except Exception as error:  # of whichever library carries it
        raise ModelError(
            f"{folder} is written, but was not uploaded to {repository}: {reason(error)}; "
            f"`hf upload {repository} {folder}` tries again"
        ) from error
    return str(address)
