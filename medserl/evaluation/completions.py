"""What a model said, kept on disk, so that an interrupted evaluation goes on where it stopped.

The file lies in the evaluation's own folder, beside the predictions, because a completion may quote its note. Prompts
are not in it: an entry is found by a hash of the model, the prompt and the decoding settings, so one model never gets
what another said, nor what it said itself to another prompt or at another temperature.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from medserl import __version__
from medserl.config import Settings
from medserl.engines import inference_engine_name
from medserl.engines.base import InferenceEngine, Sampling
from medserl.errors import ModelError, RunError
from medserl.files import FILE_MODE, append_private, private_folder, sha256_of
from medserl.game.episode import Completion
from medserl.game.prompts import Messages
from medserl.models import adapter_source, model_source, pick_dtype
from medserl.models.loading import pick_device

log = logging.getLogger("medserl")

COMPLETIONS = "completions.jsonl"
MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.py")
"""Weights, configuration, tokenizer, chat template, and the code that a hub model may bring."""
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")

T = TypeVar("T")


class CompletionCache:
    """The entries of one model in one file, which may hold those of others too. One process at a time has it open."""

    def __init__(self, folder: Path, model: str) -> None:
        """Open or start `folder/completions.jsonl` for the model that `model_identity` gave.

        Raises:
            RunError: the file cannot be read or written, a line of it is damaged, or another evaluation has it open.
        """
        self.path = folder / COMPLETIONS
        self.model = model
        self.computed = 0
        """How many values were not known and have been computed."""
        self._entries: dict[str, Any] = {}
        self._lock = FileLock(folder / f".{COMPLETIONS}.lock", mode=FILE_MODE)
        try:
            private_folder(folder)
            self._lock.acquire(timeout=0)
            self._read()
        except Timeout:
            raise RunError(f"{folder}: another evaluation writes there; choose another --output") from None
        except OSError as error:
            self._lock.release()
            raise RunError(f"{self.path}: {error.strerror}") from error
        if self._entries:
            log.info("%s: %d answers of this model are known and not asked for again", self.path, len(self._entries))

    def __enter__(self) -> CompletionCache:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lock.release()

    def __len__(self) -> int:
        return len(self._entries)

    def key(self, *what: Any) -> str:
        """The hash under which this model's answer to `what` is kept."""
        return hashlib.sha256(json.dumps([self.model, *what]).encode()).hexdigest()

    def through(self, keys: Sequence[str], compute: Callable[[list[int]], Sequence[Any]]) -> list[Any]:
        """The value of every key; `compute` is called once with the places of those not known, whose values are kept.

        They are on disk when this returns. A key that stands twice is computed once.
        """
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        missing = sorted(i for key, i in first.items() if key not in self._entries)
        if missing:
            self._add({keys[i]: value for i, value in zip(missing, compute(missing), strict=True)})
        return [self._entries[key] for key in keys]

    def _add(self, entries: Mapping[str, Any]) -> None:
        self.computed += len(entries)
        rows = [{"model": self.model, "key": key, "value": value} for key, value in entries.items()]
        append_private(self.path, (json.dumps(row) + "\n" for row in rows))
        self._entries.update(entries)

    def _read(self) -> None:
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            log.warning("%s: the last line is incomplete and was dropped", self.path)
            os.truncate(self.path, whole)
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            try:
                row = json.loads(line)
                if row["model"] == self.model:
                    self._entries[row["key"]] = row["value"]
            except (ValueError, KeyError, TypeError):
                self._lock.release()
                raise RunError(f"{self.path}, line {number}: damaged; delete the file to judge anew") from None


class CachedEngine:
    """An `InferenceEngine` that asks another one only what a cache does not know.

    Its completions have text and finish alone, no tokens. Sampled ones need `Sampling.seeds`: without a seed of its own
    what a prompt is answered depends on the rest of the call.
    """

    def __init__(self, engine: InferenceEngine, cache: CompletionCache) -> None:
        self.engine = engine
        self.cache = cache

    def generate(self, prompts: Sequence[Messages], sampling: Sampling) -> list[Completion]:
        decoding = _decoding(sampling, len(prompts))
        keys = [self.cache.key("generate", *each) for each in zip(prompts, decoding, strict=True)]

        def generate(places: list[int]) -> list[Any]:
            said = self.engine.generate([prompts[i] for i in places], sampling.of(places))
            return [[each.text, each.finish] for each in said]

        return [Completion(text, (), (), (), finish) for text, finish in self.cache.through(keys, generate)]

    @property
    def context(self) -> int | None:
        return self.engine.context

    @property
    def scores_replies(self) -> bool:
        return self.engine.scores_replies

    def prompt_lengths(self, prompts: Sequence[Messages]) -> list[int]:
        return self.engine.prompt_lengths(prompts)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return self.engine.count_tokens(texts)

    def reply_probabilities(
        self, prompts: Sequence[Messages], replies: Sequence[tuple[str, ...]]
    ) -> list[tuple[float, ...]]:
        keys = [self.cache.key("weigh", *each) for each in zip(prompts, replies, strict=True)]

        def ask(places: list[int]) -> list[tuple[float, ...]]:
            return self.engine.reply_probabilities([prompts[i] for i in places], [replies[i] for i in places])

        return [tuple(weights) for weights in self.cache.through(keys, ask)]

    def close(self) -> None:
        self.engine.close()


def _decoding(sampling: Sampling, count: int) -> list[list[Any]]:
    """What of the settings each prompt's completion depends on."""
    rooms = sampling.rooms(count)
    if sampling.temperature == 0:
        return [[room] for room in rooms]
    if not sampling.seeds:
        raise ValueError("sampled completions are kept only where each prompt has a seed of its own")
    drawn = zip(rooms, sampling.seeds, strict=True)
    return [[room, sampling.temperature, sampling.top_p, seed] for room, seed in drawn]


def model_identity(settings: Settings) -> str:
    """A hash of all that decides what the model answers: its files, the adapter's, the type of weights, the engine.

    The engine and the kind of device count because they round differently, and the version of MedSeRL because it
    renders the prompts. Call it when the engine is there: before that a hub model may not be on this machine.

    Raises:
        ModelError: the model or the adapter is not there.
    """
    engine = inference_engine_name(settings)
    parts: list[Any] = [engine, __version__]
    if engine != "scripted":
        device = pick_device(settings.device).partition(":")[0]
        parts += [device, pick_dtype(settings.dtype, device), settings.thinking]
        parts += ["4 bits"] if settings.load_in_4bit else []
        parts += _hashes(_model_folder(settings.model), MODEL_FILES)
        adapter = adapter_source(settings)
        parts += _hashes(adapter, ADAPTER_FILES) if adapter else ["no adapter"]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _model_folder(name: str) -> Path:
    """Where the files of a model lie that has been loaded before."""
    source = model_source(name)
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(source, "config.json")
    if not isinstance(config, str):
        raise ModelError(f"model {name!r}: its files are not on this machine, so what it said cannot be kept apart")
    return Path(config).parent


def _hashes(folder: Path, patterns: Sequence[str]) -> list[list[str]]:
    """Name and hash of each file, in the order of their names."""
    files = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return [[path.name, sha256_of(path)] for path in sorted(files)]
