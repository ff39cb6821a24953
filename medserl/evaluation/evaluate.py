"""`medserl evaluate`: several systems on the same notes; tables, official scores, and what is signal in them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from medserl import __version__
from medserl.config import Settings
from medserl.data.sample_names import is_sample
from medserl.errors import ConfigError
from medserl.evaluation.blocks import (
    choose_thresholds,
    detection_block,
    discrimination_block,
    group_blocks,
    official_blocks,
    official_results,
    probability_block,
)
from medserl.evaluation.checkpoint_metrics import Scorers, load_scorers
from medserl.evaluation.guessing import FLAG_RATES, GUESSING
from medserl.evaluation.inputs import Sources, Texts, choose_texts, texts_for
from medserl.evaluation.metrics import detection_metrics
from medserl.evaluation.official import OfficialScores
from medserl.evaluation.options import EvaluationOptions
from medserl.evaluation.places import claim_folder, give_up, write_evaluation_record
from medserl.evaluation.predictions import write_predictions
from medserl.evaluation.remarks import no_verdict_counts, remarks
from medserl.evaluation.submission import submission_id, write_submission
from medserl.evaluation.systems import (
    TFIDF,
    Judgement,
    about_texts,
    ask_model,
    judge_by_words,
    read_judgement,
)
from medserl.evaluation.table import TableRow, comparison_table, escape_markdown, write_tables
from medserl.evaluation.thresholds import Threshold
from medserl.runs.runlog import git_revision

log = logging.getLogger("medserl")

Official = Mapping[str, Mapping[str, OfficialScores]]


def evaluate(
    sources: Sources, models: Mapping[str, Settings], options: EvaluationOptions, seed: int
) -> tuple[str, Path]:
    """Judge, score, and write all of it; returns the main tables as Markdown, and the folder they are in.

    `models` are the settings of each model by the system's name. The folder is the options', or one in it where that
    holds an evaluation of something else (`places`).

    Raises:
        MedSeRLError: something that cannot be read, loaded, compared or written.
    """
    files = [read_judgement(given) for given in options.predictions]
    _check_names([*FLAG_RATES, GUESSING, TFIDF, *models, *(file.name for file in files)])
    texts = choose_texts(sources, options, seed, files)
    files = [about_texts(file, texts.judged) for file in files]
    systems = {name: _model_record(settings) for name, settings in models.items()}
    systems |= {file.name: {"file": given} for file, given in zip(files, options.predictions, strict=True)}
    record = _record(sources, texts, systems, options, seed)
    record["settings"] = {name: settings.model_dump(mode="json") for name, settings in models.items()}
    folder = claim_folder(options, record, sources.judged.file.stem)
    try:
        asked = [_ask(name, settings, texts, options, seed) for name, settings in models.items()]
        subtasks = max((one.subtasks for one in [*asked, *files]), key=len, default="A")
        judgements = [judge_by_words(texts.train, texts.judged, texts.held_out, subtasks)] if texts.train else []
        judgements += asked
    except BaseException:
        give_up(folder)
        raise
    _write_judgements(folder, judgements)
    judgements += files
    scorers = Scorers()
    if "C" in subtasks:
        scorers = load_scorers(options.bertscore, options.bleurt)
    official = official_results(texts.judged, judgements, scorers)
    thresholds = choose_thresholds(texts.held_out, judgements)
    summary = _write_blocks(folder, sources, texts, judgements, official, thresholds, scorers, options)
    write_evaluation_record(folder, record | _results(texts, judgements, official, thresholds))
    return summary, folder


def _ask(name: str, settings: Settings, texts: Texts, options: EvaluationOptions, seed: int) -> Judgement:
    """What a model says of the texts that it is asked about."""
    shown = texts_for(name, texts.judged, options, seed)
    found = ask_model(name, settings, shown, texts.held_out, options)
    if len(shown) == len(texts.judged):
        return found
    return replace(found, asked=frozenset(text.text_id for text in shown))


def _check_names(names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ConfigError(f"two systems are called {name!r}; give a folder or file as NAME=PATH")
        seen.add(name)


def _write_judgements(folder: Path, judgements: Sequence[Judgement]) -> None:
    """Predictions and submission of each system."""
    changed = sum(submission_id(row.text_id) != row.text_id for one in judgements[:1] for row in one.rows)
    if changed:
        log.warning(
            "%d ids hold white space or a percent sign, which a line of a submission cannot: "
            "there they are written as %%20 and the like, and read again as they were",
            changed,
        )
    for one in judgements:
        write_predictions(folder / f"{one.name}.predictions.jsonl", one.predictions)
        write_submission(folder / f"{one.name}.submission.txt", one.rows)


# -- tables ------------------------------------------------------------------------------------------------


def _write_blocks(
    folder: Path,
    sources: Sources,
    texts: Texts,
    judgements: Sequence[Judgement],
    official: Official,
    thresholds: Mapping[str, Threshold],
    scorers: Scorers,
    options: EvaluationOptions,
) -> str:
    """Write the tables; returns those that are to be shown."""
    results = {one.name: detection_metrics(one.of(texts.judged), one.predictions) for one in judgements}
    comparisons = comparison_table(results)
    last = [row["sentence"] for row in comparisons if row["system"] == judgements[-1].name]
    blocks = [
        detection_block(results, [*last, *remarks(sources, texts, results)]),
        discrimination_block(results),
        *official_blocks(texts.judged, official, scorers),
        probability_block(texts.judged, judgements, results, thresholds, _threshold_lines(sources, texts, options)),
    ]
    blocks = [block for block in blocks if block.rows() or block.lines]
    groups = group_blocks(texts.judged, judgements)
    shown = "\n\n".join([_head(sources, texts), *(block.markdown() for block in blocks)])
    whole = [shown, *(block.markdown() for block in groups), _all_comparisons(comparisons)]
    table = [row for block in [*blocks, *groups] for row in block.rows()]
    write_tables(folder, "\n\n".join(filter(None, whole)), table, comparisons)
    return shown


def _head(sources: Sources, texts: Texts) -> str:
    errors = sum(text.is_error for text in texts.judged)
    pairs = len({text.pair_id for text in texts.judged if text.pair_id is not None})
    of_them = f"{errors} with an error" + (f", {pairs} pairs of twins" if pairs else "")
    file = escape_markdown(sources.judged.file.name)
    return f"{len(texts.judged)} texts of {file} ({of_them}); percent, with 95 % intervals"


def _threshold_lines(sources: Sources, texts: Texts, options: EvaluationOptions) -> list[str]:
    if not options.thresholds:
        return []
    if sources.validation is None or not texts.held_out:
        return ["no threshold: no validation notes of both classes besides the judged ones; give --validation-data"]
    return [
        f"each threshold has the best balanced accuracy on {len(texts.held_out)} texts of "
        f"{escape_markdown(sources.validation.file.name)}, none of which is judged here; what follows it is by it, "
        "not by the verdicts"
    ]


def _all_comparisons(comparisons: Sequence[TableRow]) -> str:
    if not comparisons:
        return ""
    lines = (f"- {row['sentence'].removesuffix('.')}; {row['test']}." for row in comparisons)
    return "\n".join(["## All comparisons", "", *lines])


# -- record ------------------------------------------------------------------------------------------------


def _record(
    sources: Sources, texts: Texts, systems: Mapping[str, Any], options: EvaluationOptions, seed: int
) -> dict[str, Any]:
    """What is asked: known before anything is judged."""
    return {
        "medserl": __version__,
        "git": git_revision(),
        "texts": {
            "sha256": texts.fingerprint,
            "n": len(texts.judged),
            "errors": sum(text.is_error for text in texts.judged),
            "published_only": texts.published_only,
            "sample": is_sample(str(sources.judged.file)),
            "notes": texts.seen.record(),
            "fitted_on": len(texts.train),
            "held_out": len(texts.held_out),
        },
        "files": {
            use: {"name": source.file.name, "sha256": source.loaded.sha256, "rows_skipped": len(source.loaded.skipped)}
            for use, source in vars(sources).items()
            if source is not None
        },
        "options": {
            "samples": options.samples,
            "thresholds": options.thresholds,
            "limit": options.limit,
            **({"base_notes": options.base_notes} if options.base_notes else {}),
            "seed": seed,
        },
        "systems": systems,
    }


def _results(
    texts: Texts, judgements: Sequence[Judgement], official: Official, thresholds: Mapping[str, Threshold]
) -> dict[str, Any]:
    """What came of it, beside the tables."""
    return {
        "finished": datetime.now().isoformat(timespec="seconds"),
        "no_verdict": {one.name: no_verdict_counts(one.of(texts.judged), one.predictions) for one in judgements},
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
