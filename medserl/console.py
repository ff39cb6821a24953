"""What a person sees while MedSeRL works: one line a round, a spinner or bar at a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track as rich_track
from rich.status import Status

console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

T = TypeVar("T")
_status: Status | None = None


class _ConsoleHandler(logging.Handler):
    """Log records as plain lines on standard error, above any spinner."""

    def emit(self, record: logging.LogRecord) -> None:
        errors.print(f"{record.levelname.lower()}: {record.getMessage()}", markup=False)


def set_up_logging() -> None:
    """Show MedSeRL's own log from INFO on; other libraries' notices to their developers are not for users."""
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|trl|torch)\b")
    logger = logging.getLogger("medserl")
    logger.setLevel(logging.INFO)
    if not logger.handlers:
        logger.addHandler(_ConsoleHandler())


def say(text: str = "") -> None:
    console.print(text, markup=False)


def track(items: Iterable[T], description: str, total: int) -> Iterable[T]:
    """The items, with a progress bar at a terminal and one line elsewhere."""
    if console.is_terminal:
        return rich_track(items, description, total=total, console=console, transient=True)
    say(description)
    return items


@contextmanager
def busy(text: str) -> Iterator[None]:
    """Names the phase under way in the spinner, where there is one."""
    if _status:
        _status.update(text)
    yield


class RoundPrinter:
    """One readable line a round; at a terminal, a spinner that names the phase under way."""

    def __init__(self, total: int) -> None:
        self.total = total

    def __enter__(self) -> RoundPrinter:
        global _status
        if console.is_terminal:
            _status = console.status("starting")
            _status.start()
        return self

    def __exit__(self, *_: object) -> None:
        global _status
        if _status:
            _status.stop()
            _status = None

    def show(self, metrics: Mapping[str, Any]) -> None:
        say(round_line(metrics, self.total))


def round_line(metrics: Mapping[str, Any], total: int) -> str:
    """A round in one line: acceptance, how the Assessor did, who won, KL, time; validation where it was made."""
    parts = [f"round {metrics['round']:>3}/{total}"]
    if "vcf_acceptance_rate" in metrics:
        parts += [
            f"vcf {percent(metrics['vcf_acceptance_rate'])}",
            f"assessor {percent(metrics['assessor_accuracy'])} right, flags {percent(metrics['assessor_flag_rate'])}",
            f"injector wins {percent(metrics['injector_win_rate_error'])} error"
            f" / {percent(metrics['injector_win_rate_benign'])} benign",
            f"kl {number(metrics.get('kl_assessor'))} / {number(metrics.get('kl_injector'))}",
            f"{sum(v for k, v in metrics.items() if k.startswith('seconds_')):.0f} s",
        ]
    if "eval_accuracy" in metrics:
        parts.append(
            f"validation {percent(metrics['eval_accuracy'])}, pairs {percent(metrics['eval_pairwise_accuracy'])}"
        )
    return " | ".join(parts)


def percent(value: float | None) -> str:
    return "  -" if value is None else f"{100 * value:3.0f}%"


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"
