"""Several systems on the same labelled notes: predictions, one table, and what is signal in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medserl.config import Settings
from medserl.data.notes import Note
from medserl.engines import create_engine
from medserl.errors import ConfigError, RunError
from medserl.evaluation.baselines import baseline_predictions
from medserl.evaluation.metrics import by_group, detection_metrics, pair_outcomes, text_outcomes
from medserl.evaluation.predict import predict
from medserl.evaluation.predictions import LabelledText, Prediction, labelled_texts, write_predictions
from medserl.evaluation.statistics import compare_sentence
from medserl.evaluation.table import markdown, rows, write_tables
from medserl.game.prompts import load_prompts
from medserl.rollout import VCFRolloutGenerator
from medserl.runlog import RunFolder, read_settings


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
    systems: Mapping[str, Settings], notes: Sequence[Note], folder: Path, train_notes: Sequence[Note]
) -> str:
    """Judge the notes with every system and write `folder`; returns the table and what is signal in it, as Markdown."""
    texts = labelled_texts(notes)
    folder.mkdir(parents=True, exist_ok=True)
    predictions = dict(baseline_predictions(train_notes, texts))
    for name, settings in systems.items():
        label = Path(name).name
        predictions[label] = _judge(settings, texts, label)
        write_predictions(folder / f"{label}.predictions.jsonl", predictions[label])
    text, table = _tables(texts, predictions)
    write_tables(folder, text, table)
    return text


def _judge(settings: Settings, texts: Sequence[LabelledText], label: str) -> list[Prediction]:
    engine = create_engine(settings, trainable=False)
    prompts = load_prompts(settings.prompts, settings.injector_format)
    try:
        return predict(VCFRolloutGenerator(engine, prompts, settings), texts, label)
    finally:
        engine.close()


def _tables(
    texts: Sequence[LabelledText], predictions: Mapping[str, Sequence[Prediction]]
) -> tuple[str, list[dict[str, Any]]]:
    results = {name: detection_metrics(texts, said) for name, said in predictions.items()}
    parts = [f"{len(texts)} texts, percent with 95 % intervals", "", markdown(results)]
    table = rows(results)
    for attribute in ("split", "error_type"):
        groups = {name: by_group(texts, said, attribute) for name, said in predictions.items()}
        for group in next(iter(groups.values())):
            figures = {name: metrics[group] for name, metrics in groups.items()}
            table += rows(figures, f"{attribute}={group}")
            if attribute == "split":
                parts += ["", f"{attribute} {group}", "", markdown(figures)]
    parts += ["", *_sentences(texts, predictions)]
    return "\n".join(parts), table


def _sentences(texts: Sequence[LabelledText], predictions: Mapping[str, Sequence[Prediction]]) -> list[str]:
    """The last system against each one before it: on pairs where there are any, else on texts."""
    *others, last = predictions
    outcomes, unit = pair_outcomes, "pairs"
    if not pair_outcomes(texts, predictions[last]):
        outcomes, unit = text_outcomes, "texts"
    mine = outcomes(texts, predictions[last])
    return [compare_sentence(last, mine, other, outcomes(texts, predictions[other]), unit) for other in others]
