"""`medserl pipeline`: warm-up, online self-play, evaluation, report, one after the other in one process.

Every stage is the command of its name with the same settings. Its model is dropped before the next one loads its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from medserl.config import Settings, validate
from medserl.display.console import say
from medserl.errors import ConfigError, RunError

log = logging.getLogger("medserl")

STAGES = ("warmup", "train", "evaluate", "report")
ENVIRONMENT_STAGE = "env"
"""The stage of `scripts/run_medserl_pipeline.sh` before these; where this runs, it is done."""
HELD_OUT_FILE = "held_out.jsonl"
"""The file of a run folder that holds the notes which judged the run, where they are a part of the training file."""
DEMONSTRATION_ROUNDS = 5
"""Rounds where no flag, file or variable says how long the run is."""


@dataclass(frozen=True)
class PipelineOptions:
    """What the pipeline can be asked besides settings; each field is one of its flags."""

    run: Path | None = None
    """Run folder; default outputs/medserl_pipeline_<time>."""
    stage: str = STAGES[0]
    """Begin with this stage, of the run that --run names: warmup, train, evaluate or report."""
    rebuild_warmup: bool = False
    """Warm up again, though a warm-up adapter is shipped or given."""
    warmup_data: str | None = None
    """Pairs to warm up on, where the training notes hold none: a file, or sample. Default: the training notes."""
    warmup_steps: int | None = None
    """Stop the warm-up after so many steps."""
    test_data: str | None = None
    """Labelled notes to evaluate on: a file, or sample. Default: those that go with the training notes."""
    base_notes: int = 50
    """Of these notes the untrained base model judges so many, drawn by the seed; 0 for all."""


class Pipeline:
    """The stages, as far as they are due."""

    def __init__(self, settings: Settings, options: PipelineOptions) -> None:
        """Raises ConfigError or RunError where a stage is asked for that cannot be."""
        self.settings, self.options = settings, options
        if options.base_notes < 0:
            raise ConfigError(f"--base-notes {options.base_notes}: give 0 or more")
        self.first = _first_stage(options.stage)
        self.folder = self._run_folder()
        self.adapter = Path(f"{self.folder}-warmup") if self._needs_warm_up() else None

    def _run_folder(self) -> Path:
        given = [Path(p) for p in (self.options.run, self.settings.resume, self.settings.output_dir) if p]
        if len(set(given)) > 1:
            raise ConfigError(f"--run {given[0]}, but another setting says {given[1]}: name one run folder")
        if given:
            return given[0]
        if self.first > STAGES.index("train"):
            raise ConfigError(f"--stage {self.options.stage} needs --run RUN, the run that it is to go on with")
        return Path("outputs") / f"medserl_pipeline_{datetime.now():%Y%m%d_%H%M%S}"

    def _needs_warm_up(self) -> bool:
        from medserl.models import shipped_warmup

        if self.settings.resume or self.first > STAGES.index("train"):
            return False
        unprepared = self.settings.adapter == "auto" and shipped_warmup(self.settings) is None
        if not self.options.rebuild_warmup and (not unprepared or self.settings.engine == "scripted"):
            return False
        if not self.settings.lora_rank:
            raise ConfigError(
                "lora_rank 0 trains all weights, and a warm-up makes a LoRA adapter: "
                "give --adapter none to start from the model as it is"
            )
        return True

    def play(self) -> None:
        """Run the stages that are due.

        Raises:
            KeyboardInterrupt: a signal ended a stage; those after it are left out.
        """
        from medserl.models.unused_memory import free_unused_memory

        stages: list[Callable[[], None]] = [self._warm_up, self._train, self._evaluate, self._report]
        for stage in stages[self.first :]:
            stage()
            free_unused_memory()

    # -- stages ---------------------------------------------------------------------------------------------------

    def _warm_up(self) -> None:
        from medserl.commands import warm_up
        from medserl.sft import WarmUp

        if self.adapter is None:
            return
        changes: dict[str, Any] = {}
        if self.options.warmup_data:
            changes["prompt_data"] = self.options.warmup_data
        if self.settings.adapter == "auto":
            changes["adapter"] = "none"  # rebuilt, not gone on with
        settings = self._given(**changes)
        _announce(f"warm-up: both roles are taught on the pairs of {settings.prompt_data}")
        warm_up(
            settings,
            WarmUp(steps=self.options.warmup_steps),
            self.adapter,
            measure=settings.eval_notes,
            without_pairs="add --warmup-data sample to warm up on the sample's pairs, or give --adapter FOLDER",
        )

    def _train(self) -> None:
        from medserl.commands import train

        settings = self._given() if self.settings.resume else self._given(**self._of_a_new_run())
        length = f"{settings.max_rounds} rounds" if settings.max_rounds else f"epochs: {settings.max_epochs}"
        _announce(f"online self-play: {length}, {settings.rollout_batch_size} notes a round{_about(settings)}")
        try:
            train(settings)
        except KeyboardInterrupt:
            log.warning("the pipeline ends here; medserl pipeline --resume %s goes on", self.folder)
            raise

    def _of_a_new_run(self) -> dict[str, Any]:
        changes: dict[str, Any] = {"output_dir": str(self.folder)}
        if self.adapter:
            changes["adapter"] = str(self.adapter)
        if not self.settings.model_fields_set & {"max_rounds", "max_epochs"}:
            changes["max_rounds"] = DEMONSTRATION_ROUNDS
        return changes

    def _evaluate(self) -> None:
        from medserl.commands import evaluate
        from medserl.data.sample_names import is_sample
        from medserl.data.sources import test_source
        from medserl.evaluation.options import EvaluationOptions
        from medserl.runs.runlog import read_settings

        played = read_settings(self.folder)
        warm = played.adapter != "none"
        notes = self.options.test_data or test_source(played, self.folder / HELD_OUT_FILE)
        _announce(f"evaluation: base, {'warm-up, ' if warm else ''}trained, on {notes}")
        if notes == "sample" and not is_sample(played.prompt_data):
            log.warning("the sample's invented notes are judged: give --test-data FILE for labelled notes of your own")
        systems = ("base", "warmup", "trained") if warm else ("base", "trained")
        evaluate(
            self._given(without=("adapter", "output_dir", "resume")),
            EvaluationOptions(data=notes, run=self.folder, compare=systems, base_notes=self.options.base_notes),
        )

    def _report(self) -> None:
        from medserl.reports.html import write_report

        if not self.folder.is_dir():
            raise RunError(f"{self.folder}: no such run folder")
        _announce("report")
        say(f"report: {write_report(self.folder)}")

    def _given(self, without: tuple[str, ...] = (), **changes: Any) -> Settings:
        """The settings that were given, and no others, with some changed: a run's own hold for the rest."""
        given = self.settings.model_dump(include=self.settings.model_fields_set - set(without))
        return validate({**given, **changes})


def _first_stage(name: str) -> int:
    if name == ENVIRONMENT_STAGE:
        return 0
    if name not in STAGES:
        raise ConfigError(f"--stage {name}: give one of {' '.join((ENVIRONMENT_STAGE, *STAGES))}")
    return STAGES.index(name)


def _announce(text: str) -> None:
    say(f"\n== {text}")


def _about(settings: Settings) -> str:
    from medserl.models.embedded import EMBEDDED

    known = settings.model == EMBEDDED and settings.engine in ("auto", "local") and settings.device in ("auto", "cpu")
    return " (about 1 minute a round on two CPU cores)" if known else ""
