"""Engines run the model. `create_engine` picks one by the settings."""

from __future__ import annotations

import logging

from medserl.config import Settings
from medserl.engines.base import Engine

log = logging.getLogger("medserl")


def create_engine(settings: Settings, *, trainable: bool = True) -> Engine:
    """The engine that `settings.engine` names; `auto` is the local one.

    Raises:
        ModelError: the model cannot be loaded.
    """
    if settings.engine == "scripted":
        from medserl.engines.scripted import ScriptedEngine

        return ScriptedEngine()
    from medserl.engines.local import LocalEngine
    from medserl.models import adapter_source, load_model

    log.info("model %s, adapter %s", settings.model, adapter_source(settings) or "none")
    return LocalEngine(load_model(settings, trainable=trainable), settings)
