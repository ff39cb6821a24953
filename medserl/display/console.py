"""The one door to the terminal: standard output and standard error, for people.

Whatever is printed here is made visible (`display.visible`), written in the encoding that the stream has, and never
ends a command: a reader who has gone, a closed stream or a full disk is remembered, and the exit code tells it.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, cast

from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderableType, RenderResult
from rich.control import Control
from rich.segment import Segment

from medserl.display.visible import visible, visible_line

BROKEN_PIPE = 141
"""Exit code where the reader of standard output has gone: 128 + SIGPIPE, as a shell gives it."""

LEAST_WIDTH = 20
"""Columns that tables and frames are laid out for at least."""

QUIET = {
    "TQDM_DISABLE": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}
"""Switches of libraries whose bars and lines would mix with ours, set where the user has not."""


class Outlet:
    """Standard output or standard error as it is at the time of writing; an error of writing is kept in `trouble`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lost: tuple[Any, OSError] | None = None

    @property
    def _stream(self) -> Any:
        stream = getattr(sys, self._name)  # None where it was closed before the start
        return getattr(stream, "rich_proxied_file", stream)

    @property
    def trouble(self) -> OSError | None:
        """Why nothing more can be written, or None."""
        return self._lost[1] if self._lost and self._lost[0] is self._stream else None

    @property
    def encoding(self) -> str:
        return getattr(self._stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        with suppress(AttributeError, ValueError):
            return bool(self._stream.isatty())
        return False

    def fileno(self) -> int:
        return int(self._stream.fileno())

    def write(self, text: str) -> int:
        """Characters that the encoding lacks are written as escapes."""
        if self._stream is not None and not self.trouble:
            shown = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
            self._attempt(lambda: self._stream.write(shown))
        return len(text)

    def flush(self) -> None:
        if self._stream is not None and not self.trouble:
            self._attempt(lambda: self._stream.flush())

    def _attempt(self, action: Any) -> None:
        try:
            action()
        except OSError as error:
            self._give_up(error)
        except ValueError:  # closed by now
            self._give_up(OSError(errno.EBADF, os.strerror(errno.EBADF)))

    def _give_up(self, error: OSError) -> None:
        self._lost = (self._stream, error)
        with suppress(
            OSError, ValueError, AttributeError
        ):  # what is left in the buffer must not be tried again at exit
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


class Screen(Console):
    """A console that shows strings as they are, never as markup, and makes all that is printed visible."""

    def __init__(self, stream: str) -> None:
        self.outlet = Outlet(stream)
        super().__init__(
            file=cast("IO[str]", self.outlet), stderr=stream == "stderr", highlight=False, markup=False, emoji=False
        )

    def print(self, *objects: Any, **options: Any) -> None:
        """Lines of text are left for the terminal to wrap; everything else is laid out to its width."""
        options.setdefault("soft_wrap", all(isinstance(each, str) for each in objects))
        super().print(*(self._made_visible(each) for each in objects), **options)

    @staticmethod
    def _made_visible(thing: Any) -> Any:
        if isinstance(thing, str):
            return visible(thing)
        return thing if isinstance(thing, Control | Segment) else _Visible(thing)

    @property
    def size(self) -> ConsoleDimensions:
        """A terminal narrower than `LEAST_WIDTH` breaks the lines itself."""
        found = super().size
        return ConsoleDimensions(max(found.width, LEAST_WIDTH), found.height)

    @size.setter
    def size(self, wanted: tuple[int, int]) -> None:
        self._width, self._height = wanted

    @property
    def is_live(self) -> bool:
        """Whether lines on it can be drawn anew."""
        return self.is_terminal and not self.is_dumb_terminal


class _Visible:
    """A renderable whose text, once laid out, is made visible: what its maker did not think of is no danger."""

    def __init__(self, inner: RenderableType) -> None:
        self.inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.inner, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


console, errors = Screen("stdout"), Screen("stderr")

_live: list[Screen] = []


def live_screen() -> Screen | None:
    """Where something that moves can be shown: at a terminal, standard output first."""
    return next((screen for screen in (console, errors) if screen.is_live), None)


@contextmanager
def display_on(screen: Screen) -> Iterator[tuple[bool, bool]]:
    """While this is under way, lines for a terminal are printed above the display on `screen`.

    Yields whether it has to catch standard output, and standard error, for what others print past this module.
    """
    _live.append(screen)
    try:
        yield console.is_live, errors.is_live
    finally:
        _live.remove(screen)


def _above_display(screen: Screen) -> Screen:
    return _live[-1] if _live and screen.is_live else screen


def say(text: RenderableType = "") -> None:
    """What was asked for, on standard output."""
    _above_display(console).print(text)


def complain(text: str, style: str | None = None) -> None:
    """One line on standard error."""
    _above_display(errors).print(visible_line(text), style=style)


class _ConsoleHandler(logging.Handler):
    """Log records as plain lines on standard error, above any display."""

    def emit(self, record: logging.LogRecord) -> None:
        complain(f"{record.levelname.lower()}: {record.getMessage()}")


def _warn(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """A library's warning as one line above any display, without the line of its code that it is about."""
    complain(f"warning: {category.__name__}: {' '.join(str(message).split())}")


def set_up_logging() -> None:
    """Show MedSeRL's own log from INFO on; other libraries' notices to their developers are not for users."""
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|torch)\b")
    warnings.showwarning = _warn
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    logger = logging.getLogger("medserl")
    logger.setLevel(logging.INFO)
    if not logger.handlers:
        logger.addHandler(_ConsoleHandler())
