"""What `medserl evaluate` can be asked to do; each field is one of its flags."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from medserl.errors import ConfigError

_SEVERAL = Parameter(consume_multiple=True, negative="")


@dataclass(frozen=True)
class EvaluationOptions:
    """Which systems judge which notes, and how."""

    data: str = "sample"
    """Labelled notes: a file, or sample (the embedded test set)."""
    compare: Annotated[tuple[str, ...], _SEVERAL] = ()
    """Systems: base, warmup, trained, best (of --run), or folders of adapters or models; NAME=FOLDER names one."""
    run: Path | None = None
    """Run folder; `trained` is its newest checkpoint, `best` its best. Its settings hold, but for those given here."""
    cross_play: Annotated[tuple[Path, ...], _SEVERAL] = ()
    """Runs whose Injectors play against all their Assessors: of the start, and of the middle one and the newest of
    the checkpoints that are kept; on --limit notes (32), in both modes."""
    predictions: Annotated[tuple[str, ...], _SEVERAL] = ()
    """Files to score without any model: submissions of the shared task, or our predictions.jsonl."""
    samples: int = 1
    """Sample so many answers a text and take the majority; 1 is one greedy answer."""
    thresholds: bool = False
    """Judge by a threshold on P(INCORRECT) too, which is chosen on --validation-data."""
    bertscore: Path | None = None
    """Local folder of microsoft/deberta-xlarge-mnli, for BERTScore of corrections."""
    bleurt: Path | None = None
    """Local folder of the checkpoint BLEURT-20, for BLEURT of corrections."""
    limit: int = 0
    """Use only so many notes, drawn by the seed; 0 for all."""
    base_notes: int = 0
    """Have the untrained `base` judge only so many of the notes, drawn by the seed; 0 for all. Each system is compared
    with it on these alone."""
    published_only: bool = False
    """Of a MEDEC row with an error judge the published text alone, without its corrected twin."""
    output: Path | None = None
    """Folder of tables, predictions and submissions; default RUN/eval, else outputs/eval."""

    def __post_init__(self) -> None:
        """Raises ConfigError where an option cannot be followed."""
        for name, value, least in (
            ("samples", self.samples, 1),
            ("limit", self.limit, 0),
            ("base-notes", self.base_notes, 0),
        ):
            if value < least:
                raise ConfigError(f"--{name} {value}: give {least} or more")
        if self.cross_play and (self.compare or self.run or self.predictions):
            raise ConfigError("--cross-play is an evaluation of its own: leave --compare, --run and --predictions out")
        if self.folder.exists() and not self.folder.is_dir():
            raise ConfigError(f"--output {self.folder}: a file is there; name a folder for tables and predictions")
        for name, folder in (("bertscore", self.bertscore), ("bleurt", self.bleurt)):
            if folder is not None and not folder.is_dir():
                raise ConfigError(f"--{name} {folder}: no such folder")

    @property
    def folder(self) -> Path:
        """Where everything is written."""
        return self.output or (self.run / "eval" if self.run else Path("outputs/eval"))
