"""`medserl evaluate`: several systems on the same notes; tables, official scores, and what is signal in them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medserl import __version__
from medserl.config import Settings
from medserl.errors import ConfigError
from medserl.evaluation.blocks import (
    choose_thresholds,
    detection_block,
    group_blocks,
    official_blocks,
    official_results,
    probability_block,
)
from medserl.evaluation.calibration import Threshold
from medserl.evaluation.checkpoint_metrics import Scorers, load_scorers
from medserl.evaluation.inputs import Sources, Texts, choose_texts
from medserl.evaluation.metrics import DetectionMetrics, detection_metrics
from medserl.evaluation.official import OfficialScores
from medserl.evaluation.options import EvaluationOptions
from medserl.evaluation.predictions import write_predictions
from medserl.evaluation.submission import write_submission
from medserl.evaluation.systems import (
    BASELINES,
    Judgement,
    about_texts,
    ask_model,
    judge_by_baselines,
    read_judgement,
)
from medserl.evaluation.table import Row, comparison_table, write_tables
from medserl.files import private_folder, write_private
from medserl.runlog import git_revision

RECORD = "evaluation.json"
"""What was judged, by whom and how: options, files with hashes, counts, thresholds, scores that were left out."""

Official = Mapping[str, Mapping[str, OfficialScores]]


def evaluate(sources: Sources, models: Mapping[str, Settings], options: EvaluationOptions, seed: int) -> str:
    """Judge, score, and write all of it to the options' folder; returns the main tables as Markdown.

    `models` are the settings of each model by the system's name.

    Raises:
        MedSeRLError: something that cannot be read, loaded, compared or written.
    """
    files = [read_judgement(given) for given in options.predictions]
    _check_names([*BASELINES, *models, *(file.name for file in files)])
    texts = choose_texts(sources, options, seed, files)
    files = [about_texts(file, texts.judged) for file in files]
    subtasks = max([options.subtasks, *(file.subtasks for file in files)], key=len)
    judgements = [
        *judge_by_baselines(texts.train, texts.judged, texts.held_out, subtasks),
        *(ask_model(name, settings, texts.judged, texts.held_out, options) for name, settings in models.items()),
    ]
    _write_judgements(options.folder, judgements)
    judgements += files
    scorers = Scorers()
    if subtasks == "ABC":
        scorers = load_scorers(options.bertscore, options.bleurt)
    official = official_results(texts.judged, judgements, scorers)
    thresholds = choose_thresholds(texts.held_out, judgements)
    summary = _write_blocks(sources, texts, judgements, official, thresholds, options)
    systems = {name: _model_record(settings) for name, settings in models.items()}
    systems |= {file.name: {"file": given} for file, given in zip(files, options.predictions, strict=True)}
    _write_record(options.folder, _record(sources, texts, systems, official, thresholds, options, seed))
    return summary


def _check_names(names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ConfigError(f"two systems are called {name!r}; give a folder or file as NAME=PATH")
        seen.add(name)


def _write_judgements(folder: Path, judgements: Sequence[Judgement]) -> None:
    """Predictions and submission of each system."""
    private_folder(folder)
    for one in judgements:
        write_predictions(folder / f"{one.name}.predictions.jsonl", one.predictions)
        write_submission(folder / f"{one.name}.submission.txt", one.rows)


# -- tables ------------------------------------------------------------------------------------------------


def _write_blocks(
    sources: Sources,
    texts: Texts,
    judgements: Sequence[Judgement],
    official: Official,
    thresholds: Mapping[str, Threshold],
    options: EvaluationOptions,
) -> str:
    """Write the tables; returns those that are to be shown."""
    results = {one.name: detection_metrics(texts.judged, one.predictions) for one in judgements}
    comparisons = comparison_table(results)
    last = [row["sentence"] for row in comparisons if row["system"] == judgements[-1].name]
    blocks = [
        detection_block(results, [*last, *_remarks(sources, texts, results)]),
        *official_blocks(official),
        probability_block(texts.judged, judgements, results, thresholds, _threshold_lines(sources, texts, options)),
    ]
    groups = group_blocks(texts.judged, judgements)
    shown = "\n\n".join([_head(sources, texts), *(block.markdown() for block in blocks)])
    whole = [shown, *(block.markdown() for block in groups), _all_comparisons(comparisons)]
    table = [row for block in [*blocks, *groups] for row in block.rows()]
    write_tables(options.folder, "\n\n".join(filter(None, whole)), table, comparisons)
    return shown


def _head(sources: Sources, texts: Texts) -> str:
    errors = sum(text.is_error for text in texts.judged)
    pairs = len({text.pair_id for text in texts.judged if text.pair_id is not None})
    of_them = f"{errors} with an error" + (f", {pairs} pairs of twins" if pairs else "")
    return f"{len(texts.judged)} texts of {sources.judged.file.name} ({of_them}); percent, with 95 % intervals"


def _remarks(sources: Sources, texts: Texts, results: Mapping[str, DetectionMetrics]) -> list[str]:
    """What a reader of the table must know."""
    lines = [
        f"{name}: {found.missing} of {found.n_texts} texts are not predicted and count as wrong."
        for name, found in results.items()
        if found.missing
    ]
    if sources.judged.loaded.skipped:
        lines.append(f"{sources.judged.file.name}: {sources.judged.loaded.skipped_summary()}.")
    fitted = [name for name in BASELINES if name in results]
    if fitted:
        lines.append(f"{' and '.join(fitted)} are fitted on the {len(texts.train)} texts of {sources.train.file.name}.")
    return lines


def _threshold_lines(sources: Sources, texts: Texts, options: EvaluationOptions) -> list[str]:
    if not options.probabilities:
        return []
    if sources.validation is None or not texts.held_out:
        return ["no threshold: no validation notes of both classes besides the judged ones; give --validation-data"]
    return [
        f"each threshold has the best balanced accuracy on {len(texts.held_out)} texts of "
        f"{sources.validation.file.name}, none of which is judged here; what follows it is by it, not by the verdicts"
    ]


def _all_comparisons(comparisons: Sequence[Row]) -> str:
    if not comparisons:
        return ""
    lines = (f"- {row['sentence'].removesuffix('.')}; {row['test']}." for row in comparisons)
    return "\n".join(["## All comparisons", "", *lines])


# -- record ------------------------------------------------------------------------------------------------


def _record(
    sources: Sources,
    texts: Texts,
    systems: Mapping[str, Any],
    official: Official,
    thresholds: Mapping[str, Threshold],
    options: EvaluationOptions,
    seed: int,
) -> dict[str, Any]:
    return {
        "medserl": __version__,
        "git": git_revision(),
        "texts": {
            "sha256": texts.fingerprint,
            "n": len(texts.judged),
            "errors": sum(text.is_error for text in texts.judged),
            "published_only": texts.published_only,
            "fitted_on": len(texts.train),
            "held_out": len(texts.held_out),
        },
        "files": {
            use: {"name": source.file.name, "sha256": source.loaded.sha256, "rows_skipped": len(source.loaded.skipped)}
            for use, source in vars(sources).items()
            if source is not None
        },
        "options": {
            "subtasks": options.subtasks,
            "samples": options.samples,
            "probabilities": options.probabilities,
            "limit": options.limit,
            "seed": seed,
        },
        "systems": systems,
        "thresholds": {name: asdict(threshold) for name, threshold in thresholds.items()},
        "official": {
            name: {collection: _official_counts(scores) for collection, scores in collections.items()}
            for name, collections in official.items()
        },
    }


def _model_record(settings: Settings) -> dict[str, Any]:
    fields = ("model", "adapter", "prompts", "engine", "dtype", "temperature", "top_p", "thinking", "seed")
    return settings.model_dump(include=set(fields))


def _official_counts(scores: OfficialScores) -> dict[str, Any]:
    return {
        "n_texts": scores.n_texts,
        "n_predicted": scores.n_predicted,
        "n_both_corrected": scores.n_both_corrected,
        "n_both_na": scores.n_both_na,
        "left_out": dict(scores.left_out),
    }


def _write_record(folder: Path, record: Mapping[str, Any]) -> None:
    write_private(folder / RECORD, json.dumps(record, indent=1))
