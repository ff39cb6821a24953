"""What may change when a run is resumed: how long it goes on and what is written of it, not what is played and learnt.

Another setting would make one run out of two, with a curve that no single run would give.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

from medserl.config import Settings
from medserl.config.removed import renamed
from medserl.errors import ConfigError

log = logging.getLogger("medserl")

Changes = dict[str, tuple[Any, Any]]
"""Old and new value by setting."""

EXTENT = ("max_rounds", "max_epochs")
WRITTEN = ("save_every", "eval_every", "keep_checkpoints", "tensorboard", "wandb")
"""Neither these nor `EXTENT` touch a game: the rounds are those of a run that had them from the start."""
ROUNDING = (
    "device",
    "gradient_checkpointing",
    "generation_token_budget",
    "training_token_budget",
    "attention",
    "vllm_gpu_memory",
    "vllm_eager",
    "vllm_sleep",
)
"""Where and in what portions the same is computed: figures may differ in the last digits, and sampled words then."""
ONE_GPU = ("local", "vllm")
"""Engines that go on from each other's checkpoints."""
DATA_SETTINGS = ("prompt_data", "validation_data", "gold_data")
"""Files may have moved: that they are the same is known by their SHA-256."""
NAMES_OR_PATHS = ("model", "adapter", "prompts")


def resumed_settings(started: Settings, given: Settings, run: Path) -> tuple[Settings, Changes]:
    """The settings to go on with, and which of them change: those given, by flag, file or environment, that may.

    Raises:
        ConfigError: a setting is given that may not change.
    """
    asked = given.model_dump(include=given.model_fields_set - {"resume"})
    changes = {name: (getattr(started, name), new) for name, new in asked.items() if new != getattr(started, name)}
    for name in [name for name in changes if _says_the_same(name, changes[name][1], run)]:
        del changes[name]
    refused = [name for name in changes if not _may_change(name, *changes[name])]
    if refused:
        named = ", ".join(f"{name} from {changes[name][0]!r} to {changes[name][1]!r}" for name in refused)
        raise ConfigError(
            f"--resume {run} cannot change {named}: start a new run for it (what may change: "
            f"{', '.join((*EXTENT, *WRITTEN, *ROUNDING))}, and engine between {' and '.join(ONE_GPU)})"
        )
    rounding = [name for name in changes if name in (*ROUNDING, "engine")]
    if rounding:
        log.warning(
            "%s changed: the rounds to come may differ in rounding from those of a run that never stopped",
            ", ".join(rounding),
        )
    return started.with_overrides(**{name: new for name, (_, new) in changes.items()}), changes


def fixed_settings(settings: Settings) -> dict[str, Any]:
    """Those that a checkpoint holds for: all that may not change. Checkpoints are handed on, so no path is in it."""
    free = {*EXTENT, *WRITTEN, *ROUNDING, *DATA_SETTINGS, "output_dir", "resume"}
    kept = {name: value for name, value in settings.model_dump().items() if name not in free}
    return kept | {name: _without_path(kept[name]) for name in NAMES_OR_PATHS}


def _without_path(place: str) -> str:
    """The last part of a path, with a digest that tells whole paths apart; a name without a slash as it is."""
    if not re.search(r"[/\\]", place):
        return place
    return f"{PureWindowsPath(place).name} ({hashlib.sha256(place.encode()).hexdigest()[:12]})"


def check_fixed(saved: Mapping[str, Any], settings: Settings, checkpoint: Path) -> None:
    """The settings are those that the checkpoint was made with: config.toml may have been edited or damaged.

    Raises:
        ConfigError: one is not.
    """
    saved = renamed(saved)
    for name, value in fixed_settings(settings).items():
        as_given = getattr(settings, name)  # checkpoints of before digests hold paths
        if name in saved and saved[name] not in (value, as_given) and not _may_change(name, saved[name], as_given):
            raise ConfigError(
                f"{checkpoint} was made with {name} {saved[name]!r}, but config.toml says {as_given!r}: put that back, "
                "or start a new run"
            )


def _may_change(name: str, old: Any, new: Any) -> bool:
    if name == "gold_data":
        return "auto" not in (old, new)
    if name in DATA_SETTINGS:
        return "none" not in (old, new)
    if name == "engine":  # what `auto` took is written down where it was OpenRLHF
        return old in (*ONE_GPU, "auto") and new in ONE_GPU
    return name in (*EXTENT, *WRITTEN, *ROUNDING)


def _says_the_same(name: str, new: Any, run: Path) -> bool:
    """`auto` was decided when the run began, and `output_dir` is where it lies now."""
    if name == "output_dir":
        return new is None or Path(new).resolve() == run.resolve()
    return name == "engine" and new == "auto"


def check_extent(settings: Settings, played: int, total: int, changes: Mapping[str, tuple[Any, Any]]) -> None:
    """The resumed run can become as long as is asked for; the log says where its learning rate falls otherwise.

    `played` rounds there are, and `total` there are to be.

    Raises:
        ConfigError: the run is longer already, or another setting ends it.
    """
    asked = {name: changes[name][1] for name in EXTENT if name in changes}
    if not asked:
        return
    said = ", ".join(f"{name} {value}" for name, value in asked.items())
    if total <= played:
        ends = "max_rounds" if total == settings.max_rounds else "max_epochs"
        hint = f"give --{ends.replace('_', '-')} above {getattr(settings, ends)} too" if ends not in asked else (
            "give a greater one")  # fmt: skip
        raise ConfigError(
            f"{said}: the run has {played} rounds already, and {ends} {getattr(settings, ends)} ends it with "
            f"round {total}; {hint}"
        )
    if settings.lr_schedule == "linear":
        log.warning(
            "lr_schedule linear: the learning rate now falls to 0 with round %d; from round %d on it is not what it "
            "would have been, nor what it is in a run of %d rounds from the start", total, played + 1, total,
        )  # fmt: skip
