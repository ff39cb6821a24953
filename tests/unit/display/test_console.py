"""Output that is no UTF-8 terminal, has no reader, no room, no width or no trust: no traceback, and nothing raw."""

from __future__ import annotations

import errno
import io
import logging
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from rich.markdown import Markdown
from rich.panel import Panel
from rich.text import Text

from medserl.cli import main
from medserl.display.console import Outlet, complain, console, say, set_up_logging

TRAIN = ("train", "--engine", "scripted", "--no-tensorboard", "--max-rounds", "2", "--rollout-batch-size", "4",
         "--validation-data", "none")  # fmt: skip
PLAY = ("play", "--engine", "scripted")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp1252", "utf-16"])
@pytest.mark.parametrize("command", [PLAY, ("play", "--help"), ("train", "--kl-coef", "≥")])
def test_any_encoding_will_do(encoding: str, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    with suppress(SystemExit):
        main(command)
    stream.flush()
    assert len(written.getvalue().decode(encoding)) > 50


def test_a_character_that_the_encoding_lacks_is_an_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    say("≥ 5 µg")
    assert written.getvalue() == b"\\u2265 5 \\xb5g\n"


@pytest.mark.parametrize("width", [1, 8, 20, 400])
def test_any_width_will_do(width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(console, "_width", width)
    monkeypatch.setattr(console, "_height", 25)
    for command in (PLAY, ("play", "--help"), ("--help",)):
        main(command)
    shown = capsys.readouterr().out
    for line in shown.splitlines():
        assert width < 20 or len(line) <= width or line.startswith(("attempt", "Usage"))


class Broken(io.StringIO):
    """A stream that cannot be written from some point on."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


@pytest.mark.parametrize(
    ("error", "code"),
    [(BrokenPipeError(errno.EPIPE, "gone"), 141), (OSError(errno.ENOSPC, "No space left on device"), 2)],
)
@pytest.mark.parametrize("arguments", [PLAY, TRAIN, ("--help",), ("train", "--help")])
def test_a_command_finishes_where_its_output_cannot_be_written(
    error: OSError,
    code: int,
    arguments: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "stdout", Broken(error))
    run_folder = tmp_path / "run"
    output = ["--output-dir", str(run_folder)] if arguments == TRAIN else []
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, *output])
    assert stopped.value.code == code
    said = capsys.readouterr().err
    assert ("No space left" in said) == (code == 2)
    if arguments == TRAIN:
        assert (run_folder / "checkpoints/round_2").is_dir()
        assert "logs/train.log" in said


def test_a_reader_that_goes_and_closed_streams_leave_no_traceback() -> None:
    """Of one command at a shell: the rest of them go through the same door."""
    asked = f"{sys.executable} -m medserl.cli train --help"
    shell = f"{asked} | head -n 1; echo ${{PIPESTATUS[0]}}; {asked} >&-; echo $?; {asked} <&- >/dev/full; echo $?"
    done = subprocess.run(
        ["bash", "-c", shell], capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "TERM": "dumb", "COLUMNS": "20"},
    )  # fmt: skip
    assert done.stdout.splitlines()[-3:] == ["141", "0", "2"]
    assert done.stderr.splitlines() == ["error: standard output: No space left on device"]


def test_a_stream_closed_in_between_is_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    outlet = Outlet("stdout")
    stream.close()
    outlet.write("text")
    assert outlet.trouble and outlet.trouble.errno == errno.EBADF
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert outlet.trouble is None, "another stream is another matter"


# -- what is shown -----------------------------------------------------------------------------------------------

NASTY = "\x1b]0;title\x07[red]x[/red]\x9b2J\u202e"


def test_everything_shown_is_made_visible_and_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging()
    say(NASTY)
    say(Text(NASTY))
    say(Panel(Text(NASTY), title=Text(NASTY)))
    say(Markdown(NASTY))
    complain(f"error: {NASTY}")
    logging.getLogger("medserl").warning("%s: left out", NASTY)
    text = "".join(capsys.readouterr())
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(text)
    assert text.count("[red]x[/red]") == 7
    assert r"\x1b]0;title\x07" in text


def test_a_log_record_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging()
    logging.getLogger("medserl").warning("bad\nerror: forged\r\ndone")
    assert capsys.readouterr().err == r"warning: bad\nerror: forged\r\ndone" + "\n"


def test_a_file_name_cannot_command_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*TRAIN, "--prompt-data", str(tmp_path / f"{NASTY}.csv"), "--output-dir", str(tmp_path / "run")])
    said = capsys.readouterr().err
    assert "\x1b" not in said and "[red]x[/red]" in said
