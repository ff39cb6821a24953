"""How far a long phase is: a display at a terminal, a line now and then elsewhere, and nothing lands in the display."""

from __future__ import annotations

import io
import logging
import re
import sys
import warnings

import pytest

from medserl import cli
from medserl.display import progress
from medserl.display.console import Screen, console, errors, say, set_up_logging
from medserl.display.markdown import say_markdown
from medserl.display.progress import Count, busy, counting, duration, track
from medserl.errors import RunError


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def lines_of(caplog: pytest.LogCaptureFixture, total: int, seconds_a_step: float, done: int = 0) -> list[str]:
    clock = Clock()
    with caplog.at_level(logging.INFO, "medserl"):
        count = Count("reading", total, done=done, clock=clock)
        for _ in range(total - done):
            clock.now += seconds_a_step
            count.advance()
    return [record.getMessage() for record in caplog.records]


def test_a_line_after_each_tenth(caplog: pytest.LogCaptureFixture) -> None:
    expected = [f"reading: {n} of 100, about {duration(100 - n)} left" for n in range(10, 100, 10)]
    assert lines_of(caplog, 100, 1.0) == expected


def test_a_line_a_minute_where_a_tenth_takes_longer(caplog: pytest.LogCaptureFixture) -> None:
    lines = lines_of(caplog, 20, 30.0)
    assert lines[0] == "reading: 2 of 20, about 9 min left"
    assert len(lines) == 9


def test_a_quick_phase_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    assert lines_of(caplog, 1000, 0.001) == []


def test_time_left_is_by_what_was_done_here(caplog: pytest.LogCaptureFixture) -> None:
    """A resumed run has not played its first rounds in no time."""
    assert lines_of(caplog, 100, 10.0, done=80)[0] == "reading: 86 of 100, about 2 min left"


@pytest.mark.parametrize("order", ["skip first", "skip later"])
def test_what_was_done_before_takes_no_time(caplog: pytest.LogCaptureFixture, order: str) -> None:
    clock = Clock()
    with caplog.at_level(logging.INFO, "medserl"):
        count = Count("judging", 100, clock=clock)
        if order == "skip first":
            count.skip(60)
        clock.now += 50
        count.advance(10)
        if order == "skip later":
            count.skip(60)
        clock.now += 50
        count.advance(10)
    assert caplog.records[-1].getMessage() == "judging: 80 of 100, about 2 min left"


def test_the_first_steps_tell_no_time(caplog: pytest.LogCaptureFixture) -> None:
    """Rows of a batch end late: of the first one nothing follows."""
    lines = lines_of(caplog, 27, 90.0)
    assert lines[0] == "reading: 1 of 27, time left not known yet"
    assert lines[2] == "reading: 3 of 27, about 36 min left"


def test_durations() -> None:
    assert [duration(s) for s in (0.2, 40, 100, 3600, 11100)] == ["1 s", "40 s", "2 min", "60 min", "3 h 5 min"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def at_terminal(monkeypatch: pytest.MonkeyPatch, output: io.StringIO, error: io.StringIO) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr(sys, "stderr", error)
    for screen in (console, errors):
        monkeypatch.setattr(screen, "_environ", {"TERM": "xterm", "COLUMNS": "100"})
        monkeypatch.setattr(screen, "_width", 100)
        monkeypatch.setattr(screen, "is_interactive", True)


def screen_lines(written: str) -> list[str]:
    """What a terminal shows in the end: escape sequences taken out where they only colour, rows rewritten."""
    rows: list[str] = [""]
    row = 0
    for text, code in re.findall(r"([^\x1b]*)(\x1b\[[0-9;?]*[A-Za-z])?", written):
        for char in text:
            if char == "\n":
                row += 1
                rows += [""] * (row + 1 - len(rows))
            elif char == "\r":
                pass
            else:
                rows[row] += char
        if code.endswith("2K"):
            rows[row] = ""
        elif code.endswith("A"):
            row = max(0, row - int(code[2:-1] or 1))
    return [line.rstrip() for line in rows if line.strip()]


@pytest.mark.parametrize("both", [True, False])
def test_lines_stand_above_the_display_and_it_goes_when_it_ends(monkeypatch: pytest.MonkeyPatch, both: bool) -> None:
    """Results, log records, warnings, and what a library prints past the console."""
    output = Terminal()
    error = output if both else io.StringIO()
    at_terminal(monkeypatch, output, error)
    set_up_logging()
    with counting("warm-up", 4) as count:
        assert progress._display is not None
        for step in range(4):
            count.advance()
            with busy("update"):
                say(f"result {step}")
                logging.getLogger("medserl").warning("mind [red]step %d[/red]", step)
                print(f"library {step}")
        progress._display.refresh()
        assert "4 of 4" in output.getvalue() and "left" in output.getvalue()
    assert progress._display is None
    shown = screen_lines(output.getvalue())
    expected = [f"{kind} {n}" for n in range(4) for kind in ("result", "library")]
    assert [line for line in shown if line in expected] == expected
    assert not any("of 4" in line for line in shown), "the display is gone"
    where = shown if both else error.getvalue().splitlines()
    assert [line for line in where if "mind" in line] == [f"warning: mind [red]step {n}[/red]" for n in range(4)]


def test_phases_within_phases_have_rows_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    output = Terminal()
    at_terminal(monkeypatch, output, output)
    with counting("rounds", 3, done=1, lines=False):
        for _ in track(range(2), "validation [b]x[/b]: reading 2 notes", lines=False):
            assert progress._display is not None
            progress._display.refresh()
    text = output.getvalue()
    assert "1 of 3" in text and "validation [b]x[/b]: reading 2 notes" in text and "0 of 2" in text


def test_an_error_is_told_without_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    output = Terminal()
    at_terminal(monkeypatch, output, output)

    def fails(**_: object) -> None:
        for _ in track(range(9), "reading"):
            raise RunError("round 1: it broke")

    monkeypatch.setattr(cli, "app", lambda *_, **__: fails())
    with pytest.raises(SystemExit):
        cli.main(["train"])
    assert screen_lines(output.getvalue()) == ["info: reading", "error: round 1: it broke"]
    assert output.getvalue().count("\x1b[?25l") == output.getvalue().count("\x1b[?25h") == 1, "the cursor is back"


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    output = Terminal()
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr(console, "_environ", {"TERM": "dumb"})
    monkeypatch.setattr(errors, "_environ", {"TERM": "dumb"})
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with counting("warm-up", 4) as count:
        count.advance()
        assert progress._display is None
    assert output.getvalue() == ""


def test_a_library_warning_is_one_line_of_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging()
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.warn("mind\nthis \x1b[31m", UserWarning, stacklevel=1)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: ") and "mind" in line and "\x1b" not in line


# -- tables -----------------------------------------------------------------------------------------------------

TABLE = """12 texts, percent

| system | accuracy | pairs right |
| --- | --- | --- |
| base\\|x | 50.0 (40.1 to 60.2) | - |
| [red]own[/red] | 61.3 (57.2 to 65.2) | 12.0 (3.0 to 20.1) |

- own is better.
"""


def test_markdown_stays_markdown_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    say_markdown(TABLE)
    assert capsys.readouterr().out == TABLE + "\n"


@pytest.mark.parametrize("width", [100, 60, 20])
def test_a_table_at_a_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    output = Terminal()
    at_terminal(monkeypatch, output, output)
    monkeypatch.setattr(console, "_width", width)
    say_markdown(TABLE)
    text = "\n".join(screen_lines(output.getvalue()))
    assert "| --- |" not in text and "base|x" in text and "[red]own[/red]" in text
    assert "61.3 (57.2 to 65.2)" in " ".join(text.split()), "a figure is never cut"
    assert ("accuracy:" in text) == (width == 20)
    for line in text.splitlines():
        assert len(line) <= width


def test_screens_are_one_for_each_stream() -> None:
    assert isinstance(console, Screen) and isinstance(errors, Screen)
    assert errors.stderr and not console.stderr
