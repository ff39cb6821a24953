"""What `medserl predict` can be asked to do; each field is one of its flags."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medserl.errors import ConfigError

ENDINGS = (".jsonl", ".csv")


@dataclass(frozen=True)
class PredictOptions:
    """What is judged with, and where the findings go; each field is one of the command's flags."""

    run: Path | None = None
    """Judge with the newest checkpoint of this run; its settings hold, but for those given here."""
    threshold: float | None = None
    """Flag from this P(error) on. Default: the run's own, chosen on its validation notes."""
    output: Path | None = None
    """File to write, .jsonl or .csv; default outputs/NOTES.predictions.jsonl."""
    sort: Literal["suspicion", "input"] = "suspicion"
    """Order of the rows: the most suspicious first, or as they came."""
    html: Path | None = None
    """Also write the flagged notes as a page that opens in any browser."""

    def __post_init__(self) -> None:
        """Raises ConfigError where an option cannot be followed."""
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ConfigError(f"--threshold {self.threshold:g}: give a probability, between 0 and 1")
        if self.output is not None and self.output.suffix not in ENDINGS and not _is_device(self.output):
            raise ConfigError(f"--output {self.output}: name a file that ends in .jsonl or .csv")
        if self.html is not None and self.html.suffix not in (".html", ".htm"):
            raise ConfigError(f"--html {self.html}: name a file that ends in .html")

    def file(self, notes: str) -> Path:
        """Where the findings in these notes go."""
        from medserl.data.sources import STANDARD_INPUT

        stem = "standard_input" if notes == STANDARD_INPUT else Path(notes.partition("?")[0]).name.partition(".")[0]
        return self.output or Path("outputs") / f"{stem or 'notes'}.predictions.jsonl"


def _is_device(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()
