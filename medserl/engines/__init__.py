"""Engines run the model. `create_engine` gives one that learns, `create_inference_engine` one that only judges."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import Literal

from medserl.config import Settings
from medserl.engines.base import Engine, InferenceEngine
from medserl.errors import ConfigError

log = logging.getLogger("medserl")


def create_engine(settings: Settings, *, trainable: bool = True) -> Engine:
    """The engine that `settings.engine` names; `auto` is what `training_engine_name` says.

    Raises:
        ConfigError: the engine cannot train, or is not installed.
        ModelError: the model cannot be loaded.
    """
    if settings.engine == "scripted":
        from medserl.engines.scripted import ScriptedEngine

        return ScriptedEngine()
    from medserl.models import adapter_source
    from medserl.models.footprint import fitted
    from medserl.models.four_bits import require_four_bits

    require_four_bits(settings)
    name = training_engine_name(settings) if trainable else "local"
    if not trainable and settings.engine == "vllm":
        log.info("engine vllm trains and judges notes; here, where nothing is learnt, the local engine plays")
    if name == "openrlhf":
        log.info("model %s, adapter %s", settings.model, adapter_source(settings) or "none")
        return _create_openrlhf(settings)
    if name == "vllm":
        return _create_vllm(settings)
    settings = fitted(settings, "local")
    if trainable and settings.async_rollout:
        raise ConfigError("async_rollout needs engine openrlhf: the local one plays and learns with the same weights")
    from medserl.engines.local import LocalEngine
    from medserl.models import load_model
    from medserl.models.lora_targets import trained_in_words

    loaded = load_model(settings, trainable=trainable)
    place = f"{loaded.model.dtype} on {loaded.model.device}".removeprefix("torch.")
    place += ", frozen weights in 4 bits" if settings.load_in_4bit else ""
    log.info("model %s, adapter %s, %s", settings.model, adapter_source(settings) or "none", place)
    engine = LocalEngine(loaded, settings)
    if trainable:
        log.info("%s", trained_in_words(loaded.model))
    return engine


def training_engine_name(settings: Settings) -> str:
    """The engine that trains. `auto` is OpenRLHF where it is installed and has several GPUs, vLLM beside the local
    engine where there is a GPU and vLLM is installed, else the local one; the log says why. Weights in 4 bits are the
    local engine's alone."""
    if settings.engine != "auto":
        return settings.engine
    if settings.load_in_4bit:
        log.info("engine local: load_in_4bit, and any other would play with other weights than those that learn")
        return "local"
    import torch

    from medserl.engines.openrlhf.constraints import gpus_needed, missing_packages
    from medserl.models.footprint import fits_beside_vllm

    gpus = torch.cuda.device_count()
    needed = max(2, gpus_needed(settings))
    if settings.adapters == "per_role":
        no_cluster = "adapters 'per_role' is not OpenRLHF's"
    elif missing_packages():
        no_cluster = f"OpenRLHF is not installed ({', '.join(missing_packages())} missing)"
    elif gpus < needed:
        no_cluster = f"OpenRLHF needs {needed} GPUs with these settings, and there are {gpus}"
    else:
        no_cluster = ""
    if not no_cluster:
        name, why = "openrlhf", f"OpenRLHF is installed and there are {gpus} GPUs"
    elif gpus and settings.device in ("auto", "cuda") and find_spec("vllm") and not settings.async_rollout:
        name, why = "vllm", f"vLLM is installed and there is a GPU: it plays, the local engine learns ({no_cluster})"
        if not fits_beside_vllm(settings):
            name, why = "local", "the GPU's memory does not hold the model twice, for vLLM and for learning"
    else:
        name, why = "local", no_cluster
        if gpus and not find_spec("vllm"):
            why += "; vLLM, which plays on one GPU, is not installed either (pip install 'medserl[vllm]')"
    log.info("engine %s: %s", name, why)
    return name


def _create_vllm(settings: Settings) -> Engine:
    from medserl.engines.vllm_training import VLLMTrainingEngine, check_settings
    from medserl.models import adapter_source
    from medserl.models.footprint import fitted
    from medserl.models.lora_targets import trained_in_words

    check_settings(settings)
    engine = VLLMTrainingEngine(fitted(settings, "vllm"))
    learner = engine.learner.model
    place = f"{learner.dtype} on {learner.device}".removeprefix("torch.")
    said = f"vLLM plays with {engine.player.dtype}, the local engine learns with {place}"
    log.info("model %s, adapter %s: %s", settings.model, adapter_source(settings) or "none", said)
    log.info("%s", trained_in_words(learner))
    return engine


def _create_openrlhf(settings: Settings) -> Engine:
    from medserl.engines.openrlhf.constraints import missing_packages

    if missing_packages():
        raise ConfigError(
            f"engine 'openrlhf' needs {', '.join(missing_packages())}: pip install 'medserl[openrlhf]' "
            "(docs/scaling.md), or give --engine local"
        )
    from medserl.models import adapter_source

    if not settings.lora_rank and (adapter := adapter_source(settings)):
        raise ConfigError(
            f"lora_rank 0 trains all weights, and OpenRLHF cannot first add the adapter {adapter} to them: "
            "give --adapter none, or --engine local"
        )
    from medserl.engines.openrlhf.engine import OpenRLHFEngine

    return OpenRLHFEngine(settings)


def create_inference_engine(settings: Settings) -> InferenceEngine:
    """An engine that judges and cannot learn: vLLM where `inference_engine_name` says so, else as `create_engine`.

    Raises:
        ConfigError: vLLM is asked for and not installed, or cannot use the device.
        ModelError: the model cannot be loaded.
    """
    name = inference_engine_name(settings)
    if name != "vllm":
        return create_engine(settings.with_overrides(engine=name), trainable=False)
    from medserl.engines.vllm import load_vllm
    from medserl.models import adapter_source

    log.info("model %s, adapter %s, engine vllm", settings.model, adapter_source(settings) or "none")
    return load_vllm(settings)


def inference_engine_name(settings: Settings) -> Literal["local", "vllm", "scripted"]:
    """The engine named in the settings; for one that does not judge, and `auto`, vLLM if it is there and has a GPU.

    Weights in 4 bits are the local engine's: it reads notes with the very weights that a run had."""
    if settings.engine in ("local", "vllm", "scripted"):
        return settings.engine
    from medserl.models.loading import pick_device

    if settings.load_in_4bit:
        return "local"
    # vLLM takes the first visible GPU: one chosen by number is left to the local engine.
    device = pick_device("auto") if settings.device == "auto" else settings.device
    return "vllm" if find_spec("vllm") and device == "cuda" else "local"
