"""How far a long phase is: n of m and the time left, in a display at a terminal, in a line now and then elsewhere.

Phases may lie within each other: at a terminal each has a row of its own, below the one that it is part of.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from medserl.display.console import console, display_on, live_screen, say
from medserl.display.shares import as_count, counted_in
from medserl.display.visible import visible_line

log = logging.getLogger("medserl")

T = TypeVar("T")

LINE_SHARE, PAUSE, PATIENCE = 0.1, 5.0, 60.0
"""Away from a terminal a line after each tenth, not within so many seconds of the last, and after so many anyway."""


class Count:
    """How far one phase is.

    `lines` false leaves the plain lines out, where something else tells how far it is. `pause` is the least number of
    seconds between two of them.
    """

    def __init__(
        self,
        text: str,
        total: int,
        *,
        done: int = 0,
        lines: bool = True,
        pause: float = PAUSE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.text, self.total, self.done = text, total, done
        self._lines, self._pause, self._clock = lines, pause, clock
        self._begun = self._told_at = clock()
        self._done_before = self._told = done
        self._row = _display.add_task(self._shown(""), total=total, completed=done, left="") if _display else None

    def advance(self, steps: int = 1) -> None:
        self.reach(self.done + steps)

    def reach(self, done: int) -> None:
        """`done` of `total` lie behind."""
        self.done = done
        if _display and self._row is not None:
            _display.update(self._row, completed=done, left=self._time_left(self._clock()))
        elif self._lines:
            self._tell()

    def skip(self, steps: int) -> None:
        """So many more were done before, and took no time: they say nothing of the time that is left."""
        self._done_before += steps
        self._told += steps
        self.advance(steps)

    def busy_with(self, part: str) -> None:
        """Names what is under way, where there is a display."""
        if _display and self._row is not None:
            _display.update(self._row, description=self._shown(part))

    def close(self) -> None:
        if _display and self._row is not None:
            _display.remove_task(self._row)

    def _shown(self, part: str) -> str:
        return visible_line(f"{self.text}: {part}" if part else self.text)

    def _tell(self) -> None:
        since, now = self._clock() - self._told_at, self._clock()
        tenth = self.done - self._told >= LINE_SHARE * self.total and since >= self._pause
        if self.done < self.total and (tenth or since >= PATIENCE):
            self._told, self._told_at = self.done, now
            log.info(
                "%s: %d of %d, %s", self.text, self.done, self.total, self._time_left(now) or "time left not known yet"
            )

    def _time_left(self, now: float) -> str:
        steps = self.done - self._done_before
        if steps <= 0 or steps < LINE_SHARE * (self.total - self._done_before):
            return ""  # the first ones tell little of the rest
        return f"about {duration((now - self._begun) / steps * (self.total - self.done))} left"


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 5 min`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


_display: Progress | None = None
_counts: list[Count] = []


@contextmanager
def counting(text: str, total: int, *, done: int = 0, lines: bool = True, pause: float = PAUSE) -> Iterator[Count]:
    """Shows how far the phase is until it ends; with the first phase the display begins, with the last one it ends."""
    with _displayed():
        count = Count(text, total, done=done, lines=lines, pause=pause)
        _counts.append(count)
        try:
            yield count
        finally:
            _counts.remove(count)
            count.close()


@contextmanager
def _displayed() -> Iterator[None]:
    global _display
    screen = live_screen()
    if _display or screen is None:
        yield
        return
    columns = (
        *([SpinnerColumn()] if screen.encoding.startswith("utf") else []),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.completed:.0f} of {task.total:.0f}", markup=False),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}", markup=False),
    )
    with display_on(screen) as (output, error):
        _display = Progress(*columns, console=screen, transient=True, redirect_stdout=output, redirect_stderr=error)
        try:
            with _display:
                yield
        finally:
            _display = None


def end_display() -> None:
    """Take the display away, whatever is under way: an error is about to be told, and its frames still hold phases."""
    if _display:
        _display.stop()


def track(
    items: Sequence[T], text: str, *, sizes: Callable[[T], int] = lambda _: 1, lines: bool = True, heading: bool = True
) -> Iterable[T]:
    """The items, counted as they are done with; `sizes` says how much each of them counts for.

    `heading` is a line of its own at the beginning, where there are `lines` at all.
    """
    if lines and heading:
        log.info("%s", text)
    with counting(text, sum(map(sizes, items)), lines=lines) as count:
        for item in items:
            yield item
            count.advance(sizes(item))


@contextmanager
def busy(text: str) -> Iterator[None]:
    """Names the part of the innermost phase that is under way, where there is a display."""
    if _counts:
        _counts[-1].busy_with(text)
    yield


# -- rounds --------------------------------------------------------------------------------------------------


class RoundPrinter:
    """One readable line a round; at a terminal, a display that names the part under way."""

    def __init__(self, total: int, done: int = 0) -> None:
        self.total = total
        self._told = False
        self._phase = counting("rounds", total, done=done, lines=False)

    def __enter__(self) -> RoundPrinter:
        self._count = self._phase.__enter__()
        self._count.busy_with("starting")
        return self

    def __exit__(self, *raised: Any) -> None:
        self._phase.__exit__(*raised)

    def show(self, metrics: Mapping[str, Any]) -> None:
        self._count.reach(metrics["round"])
        say(round_line(metrics, self.total))
        if console.outlet.trouble and not self._told:
            self._told = True
            log.warning(
                "standard output: %s; the run goes on, and logs/train.log has its rounds", console.outlet.trouble
            )


def round_line(metrics: Mapping[str, Any], total: int) -> str:
    """A round in one line: acceptance, how the Assessor did, who won, KL, time; validation where it was made."""
    parts = [f"round {metrics['round']:>3}/{total}"]
    if metrics.get("games"):
        parts += [f"vcf {_share('vcf_acceptance_rate', metrics)}", *_games(metrics)]
    if metrics.get("sft_loss") is not None:
        parts.append(f"SFT loss {metrics['sft_loss']:.3f} nats a token")
    if "games" in metrics:
        kl = [metrics.get("kl_assessor"), metrics.get("kl_injector")]
        parts += [f"kl {' / '.join(map(number, kl))}"] if any(each is not None for each in kl) else []
        parts.append(f"{sum(v for k, v in metrics.items() if k.startswith('seconds_')):.0f} s")
    named = {"eval_accuracy": "validation", "eval_pairwise_accuracy": "pairs"}
    judged = [f"{name} {_share(key, metrics)}" for key, name in named.items() if metrics.get(key) is not None]
    if judged:
        parts.append(", ".join(judged))
    return " | ".join(parts)


def _games(metrics: Mapping[str, Any]) -> list[str]:
    """How the games of the policy against itself ended, as far as there were some."""
    if metrics["assessor_accuracy"] is None:
        return ["no game judged"]
    wins = [
        f"{_share(f'injector_win_rate_{mode}', metrics)} {mode}"
        for mode in ("error", "benign")
        if metrics[f"injector_win_rate_{mode}"] is not None
    ]
    return [
        f"assessor {_share('assessor_accuracy', metrics)} right, flags {_share('assessor_flag_rate', metrics)}",
        f"injector wins {' / '.join(wins)}",
    ]


def _share(figure: str, metrics: Mapping[str, Any]) -> str:
    """`57%`, of fewer than ten games `3 of 4`."""
    return as_count(metrics[figure], counted_in(figure, metrics)) or _percent(metrics[figure])


def _percent(value: float | None) -> str:
    return "  -" if value is None else f"{100 * value:3.0f}%"


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:+z.3f}"
