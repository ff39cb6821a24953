"""Several systems on the same labelled notes: predictions, one table, and what is signal in it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from medserl.config import Settings
from medserl.engines import create_engine
from medserl.errors import ConfigError, RunError
from medserl.evaluation.baselines import majority_predictions, tfidf_predictions
from medserl.evaluation.metrics import Attribute, by_group, detection_metrics
from medserl.evaluation.predict import predict
from medserl.evaluation.predictions import LabelledText, Prediction, write_predictions
from medserl.evaluation.table import comparison_table, markdown, rows, write_tables
from medserl.game.prompts import load_prompts
from medserl.rollout import VCFRolloutGenerator
from medserl.runlog import RunFolder, read_settings

log = logging.getLogger("medserl")

ATTRIBUTES: tuple[Attribute, ...] = ("split", "error_type", "length")


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


def compare_systems(
    systems: Mapping[str, Settings], texts: Sequence[LabelledText], folder: Path, train: Sequence[LabelledText]
) -> str:
    """Judge the texts with every system and write `folder`; returns the table and what is signal in it, as Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    predictions = baseline_predictions(train, texts)
    for name, settings in systems.items():
        label = Path(name).name
        predictions[label] = _judge(settings, texts, label)
        write_predictions(folder / f"{label}.predictions.jsonl", predictions[label])
    results = {name: detection_metrics(texts, said) for name, said in predictions.items()}
    comparisons = comparison_table(results)
    parts = [f"{len(texts)} texts; percent, with 95 % intervals", "", markdown(results)]
    table = rows(results)
    for attribute in ATTRIBUTES:
        groups = {name: by_group(texts, said, attribute) for name, said in predictions.items()}
        for group in next(iter(groups.values())):
            figures = {name: metrics[group] for name, metrics in groups.items()}
            table += rows(figures, f"{attribute}={group}")
            if attribute == "split":
                parts += ["", f"### {group}", "", markdown(figures)]
    sentences = [row["sentence"] for row in comparisons if row["system"] == list(results)[-1]]
    text = "\n".join([*parts, "", *(f"- {sentence}" for sentence in sentences)])
    write_tables(folder, text, table, comparisons)
    return text


def baseline_predictions(
    train: Sequence[LabelledText], texts: Sequence[LabelledText]
) -> dict[str, list[Prediction]]:
    """Majority and TF-IDF by name; none, with a line in the log, where the training notes hold only one class."""
    if len({text.is_error for text in train}) < 2:
        log.warning("no baselines: the training notes hold no labelled pair to fit them on")
        return {}
    return {"majority": majority_predictions(train, texts), "tf-idf": tfidf_predictions(train, texts)}


def _judge(settings: Settings, texts: Sequence[LabelledText], label: str) -> list[Prediction]:
    engine = create_engine(settings, trainable=False)
    prompts = load_prompts(settings.prompts, settings.injector_format)
    try:
        return predict(VCFRolloutGenerator(engine, prompts, settings), texts, label)
    finally:
        engine.close()
