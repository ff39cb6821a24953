"""Who is judged: models with or without an adapter, baselines, and files of predictions; and what each one said."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from medserl.config import Settings
from medserl.engines import create_inference_engine
from medserl.errors import ConfigError, DataError, RunError, listed, shorten
from medserl.evaluation.baselines import tfidf_predictions
from medserl.evaluation.completions import CompletionCache, model_identity
from medserl.evaluation.official import scored_texts
from medserl.evaluation.options import EvaluationOptions
from medserl.evaluation.predict import predict
from medserl.evaluation.predictions import (
    LabelledText,
    Prediction,
    check_unique,
    read_predictions,
)
from medserl.evaluation.submission import (
    SubmissionRow,
    read_submission,
    row_predictions,
    submission_id,
    submission_rows,
)
from medserl.game.prompts import load_prompts
from medserl.rollout import VCFRolloutGenerator
from medserl.rounds.fitting import fitting_places
from medserl.runs.runlog import RunFolder, read_settings

log = logging.getLogger("medserl")

_NAMED = re.compile(r"([^=/\\]+)=(.+)")
_FILE_ENDINGS = re.compile(r"(\.predictions|\.submission)?\.(jsonl|txt)$")

TFIDF = "tf-idf"
BASE = "base"
"""What the model is called before any training."""


@dataclass(frozen=True)
class Judgement:
    """What one system said.

    `predictions` are on the texts that are judged, `rows` the same in the shared task's terms, `held_out` those on the
    validation texts (none from a file). `subtasks` are the ones that the system answers. `asked` are the ids of the
    texts that it was asked about, where these are not all.
    """

    name: str
    predictions: list[Prediction]
    rows: list[SubmissionRow]
    subtasks: str
    held_out: tuple[Prediction, ...] = ()
    asked: frozenset[str] | None = None

    def of(self, texts: Sequence[LabelledText]) -> Sequence[LabelledText]:
        """Those of the texts that the system was asked about."""
        return texts if self.asked is None else [text for text in texts if text.text_id in self.asked]


# -- models ------------------------------------------------------------------------------------------------


def run_settings(settings: Settings, run: Path | None) -> Settings:
    """The settings of the run, where there is one, but for those that were given."""
    if run is None:
        return settings
    return read_settings(run).with_overrides(**settings.model_dump(include=settings.model_fields_set))


def resolve_systems(settings: Settings, names: Sequence[str], run: Path | None) -> dict[str, Settings]:
    """Settings of each system: `base`, `warmup`, `trained` or `best` (of `run`), or an adapter's or a model's folder.

    A folder's system is called by the folder's name, or as in `NAME=FOLDER`.

    Raises:
        ConfigError, RunError: a name that is none of these or stands twice, or a run without a checkpoint.
    """
    started = run_settings(settings, run)
    found: dict[str, Settings] = {}
    for given in names or (["base", "warmup", "trained"] if run else ["warmup"]):
        name, source = split_name(given)
        if name in found:
            raise ConfigError(f"--compare: two systems are called {name!r}; give one as NAME=FOLDER")
        found[name] = _resolve(source, started, run)
    return found


def split_name(given: str) -> tuple[str, str]:
    """Name and source of `NAME=SOURCE`, or of a source alone, which is then called by its last part."""
    named = _NAMED.fullmatch(given)
    if named and not Path(given).exists():
        return named[1], named[2]
    return Path(given).resolve().name, given


def _resolve(name: str, settings: Settings, run: Path | None) -> Settings:
    if name == BASE:
        return settings.with_overrides(adapter="none")
    if name == "warmup":
        return settings
    if name in ("trained", "best"):
        if run is None:
            raise ConfigError(f"--compare {name} needs --run RUN, the run whose newest or best checkpoint is meant")
        if name == "best" and RunFolder(run).best_round() == 0:
            log.warning(
                "best: no checkpoint of %s did better on its validation notes than what training started from, so that "
                "is judged under this name",
                run,
            )
            return settings
        return _resolve(str(_checkpoint(name, RunFolder(run))), settings, run)
    found = system_of(Path(name), settings)
    if found is not settings:
        return found
    raise ConfigError(f"--compare {name}: neither base, warmup, trained, best nor the folder of an adapter or a model")


def system_of(folder: Path, settings: Settings) -> Settings:
    """The settings with the adapter or the model of this folder; the very same where there is neither."""
    if (folder / "adapter_config.json").is_file():
        return settings.with_overrides(adapter=str(folder))
    if (folder / "config.json").is_file():
        return settings.with_overrides(model=str(folder), adapter="none")
    return settings


def _checkpoint(name: str, run: RunFolder) -> Path:
    latest = run.latest_checkpoint()
    if latest is None:
        raise RunError(f"{run.path}: no checkpoint in this run yet")
    if name == "trained":
        return latest[0]
    best = run.best_checkpoint()
    if best is None:
        raise RunError(f"{run.path}: no checkpoint of this run was judged on validation notes")
    return best


def ask_model(
    name: str,
    settings: Settings,
    texts: Sequence[LabelledText],
    held_out: Sequence[LabelledText],
    options: EvaluationOptions,
) -> Judgement:
    """What a model says of the texts that it can read, and of the held-out ones while it is loaded."""
    prompts = load_prompts(settings.prompts, settings.injector_format)
    engine = create_inference_engine(settings)
    rollout = VCFRolloutGenerator(engine, prompts, settings)
    try:
        with CompletionCache(options.folder, model_identity(settings)) as cache:
            ask = partial(
                predict,
                rollout,
                samples=options.samples,
                probabilities=True,
                cache=cache,
            )
            said = with_too_long(texts, ask(_readable(rollout, texts, name), name))
            said_held_out = []
            if held_out:
                label = f"{name}, validation"
                said_held_out = ask(_readable(rollout, held_out, label), label)
    finally:
        engine.close()
    return Judgement(name, said, _scored_rows(texts, said), prompts.subtasks, tuple(said_held_out))


def _readable(rollout: VCFRolloutGenerator, texts: Sequence[LabelledText], use: str) -> list[LabelledText]:
    """The texts that fit into the model's context."""
    places = fitting_places(
        rollout,
        [text.text for text in texts],
        [text.text_id for text in texts],
        [text.sentences for text in texts],
        use,
    )
    return [texts[place] for place in places]


def with_too_long(texts: Sequence[LabelledText], said: Sequence[Prediction]) -> list[Prediction]:
    """A prediction of every text, in order: those that the model was not asked about have no verdict, and why."""
    by_id = {one.text_id: one for one in said}
    return [by_id.get(text.text_id) or Prediction(text.text_id, None, no_verdict="too_long") for text in texts]


# -- baselines and files -----------------------------------------------------------------------------------


def judge_by_words(
    train: Sequence[LabelledText], texts: Sequence[LabelledText], held_out: Sequence[LabelledText], subtasks: str
) -> Judgement:
    """TF-IDF, fitted on training texts of both classes, none of which is judged.

    It flags texts and names no sentence, so its submission is a complete one, and a poor one, to any subtask.
    """
    said = tfidf_predictions(train, [*texts, *held_out])
    on_texts, on_held_out = said[: len(texts)], said[len(texts) :]
    return Judgement(TFIDF, on_texts, _scored_rows(texts, on_texts), subtasks, tuple(on_held_out))


def read_judgement(given: str) -> Judgement:
    """The judgement in a file: `.jsonl` as we write predictions, anything else a submission of the shared task.

    Raises:
        DataError: the file cannot be read, or nothing is in it.
    """
    name, source = split_name(given)
    name = _FILE_ENDINGS.sub("", name)
    if source.endswith(".jsonl"):
        said = read_predictions(source)
        rows = submission_rows(said)
        answered = "ABC" if any(one.correction for one in said) else "A"
        if answered == "A" and any(one.error_sentence_id is not None for one in said):
            answered = "AB"
    else:
        rows = read_submission(source, skip_malformed=True)
        said, answered = row_predictions(rows), "ABC"
    if not said:
        raise DataError(f"{source}: no prediction in this file")
    return Judgement(name, said, rows, answered)


def about_texts(judgement: Judgement, texts: Sequence[LabelledText]) -> Judgement:
    """The judgement without what it says of other texts; the log names these, and those that it says nothing of.

    Ids may be as they are in a submission, which cannot hold white space (`submission_id`).

    Raises:
        DataError: it is about none of the texts, or about one twice.
    """
    known = {text.text_id for text in texts}
    by_submission = {submission_id(text_id): text_id for text_id in known}

    def own(text_id: str) -> str:
        return text_id if text_id in known else by_submission.get(text_id, text_id)

    said = [replace(one, text_id=own(one.text_id)) for one in judgement.predictions]
    check_unique([one.text_id for one in said], f"{judgement.name}: prediction for text")
    about = [one for one in said if one.text_id in known]
    if not about:
        raise DataError(
            f"{judgement.name}: about none of the judged texts; {shorten(said[0].text_id)!r} is not one of their ids"
        )
    others = [one.text_id for one in said if one.text_id not in known]
    if others:
        log.warning(
            "%s: passed over %d of its predictions, on texts that are not judged (%s)",
            judgement.name, len(others), listed(others),
        )  # fmt: skip
    return replace(
        judgement, predictions=about, rows=[replace(row, text_id=own(row.text_id)) for row in judgement.rows]
    )


def _scored_rows(texts: Sequence[LabelledText], said: Sequence[Prediction]) -> list[SubmissionRow]:
    scored = {text.text_id for text in scored_texts(texts)}
    return submission_rows(one for one in said if one.text_id in scored)
