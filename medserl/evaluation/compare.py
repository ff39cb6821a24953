"""Several systems on the same labelled notes: predictions, one table, and what is signal in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from medserl.config import Settings, validate
from medserl.data.notes import Note
from medserl.engines import create_engine
from medserl.errors import ConfigError, RunError
from medserl.evaluation.baselines import majority_predictions, tfidf_predictions
from medserl.evaluation.metrics import detection_metrics
from medserl.evaluation.predict import predict
from medserl.evaluation.predictions import labelled_texts, write_predictions
from medserl.evaluation.table import comparison_table
from medserl.game.prompts import load_prompts
from medserl.rollout import VCFRolloutGenerator
from medserl.runlog import CONFIG, RunFolder, read_settings


def resolve_systems(settings: Settings, names: Sequence[str], run: Path | None) -> dict[str, Settings]:
    """Settings of each system: `base`, `warmup`, `trained` (of `run`), or the folder of an adapter or a model.

    Raises:
        ConfigError, RunError: a name that is none of these, or a run without a checkpoint.
    """
    started = read_settings(run) if run else settings
    names = names or (["base", "warmup", "trained"] if run else ["warmup"])
    return {name: _resolve(name, started, run) for name in names}


def _resolve(name: str, settings: Settings, run: Path | None) -> Settings:
    if name == "base":
        return settings.with_overrides(adapter="none")
    if name == "warmup":
        return settings
    if name == "trained":
        if run is None:
            raise ConfigError("--compare trained needs --run RUN, the run whose newest checkpoint is meant")
        folder = RunFolder(run).latest_checkpoint()
        if folder is None:
            raise RunError(f"{run}: no checkpoint in this run yet")
        return _resolve(str(folder[0]), settings, run)
    path = Path(name)
    if (path / "adapter_config.json").is_file():
        return settings.with_overrides(adapter=name)
    if (path / "config.json").is_file():
        return settings.with_overrides(model=name, adapter="none")
    raise ConfigError(f"--compare {name}: neither base, warmup, trained nor the folder of an adapter or a model")
