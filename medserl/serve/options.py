"""What `medserl serve` can be asked to do; each field is one of its flags."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from medserl.errors import ConfigError

_SEVERAL = Parameter(consume_multiple=True, negative="")
DEFAULT_DECISIONS = Path("outputs/decisions.jsonl")


@dataclass(frozen=True)
class ServeOptions:
    """What is reviewed, and who may connect."""

    run: Path | None = None
    """Judge and play with the newest checkpoint of this run; its settings hold, but for those given here."""
    notes: str | None = None
    """Notes to review: any file that --prompt-data takes. Without --predictions they are judged as the page opens."""
    predictions: Path | None = None
    """What `medserl predict` wrote, of these notes or with their text in it."""
    decisions: Path | None = None
    """File of decisions; default beside the predictions or the notes, as NAME.decisions.jsonl."""
    threshold: float | None = None
    """Flag from this P(error) on, in place of the run's own threshold."""
    host: str = "127.0.0.1"
    """Address to listen on; beyond this machine a token is asked for."""
    port: int = 8765
    """0 takes a free one."""
    allow_host: Annotated[tuple[str, ...], _SEVERAL] = ()
    """More names under which the server is reached, such as that of a proxy."""
    token: Annotated[bool, Parameter(negative="")] = False
    """Ask for a token on this machine too, where others log in to it."""

    def __post_init__(self) -> None:
        """Raises ConfigError where an option cannot be followed."""
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"--port {self.port}: give 0 to 65535")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ConfigError(f"--threshold {self.threshold}: give a probability, 0 to 1")

    @property
    def decisions_file(self) -> Path:
        """Where decisions are written; notes of standard input, or of the hub, lie nowhere."""
        if self.decisions:
            return self.decisions
        notes = Path(self.notes.partition("?")[0]) if self.notes else None
        beside = self.predictions or (notes if notes and notes.exists() else None)
        return beside.with_name(f"{beside.stem}.decisions.jsonl") if beside else DEFAULT_DECISIONS
