"""Trouble with output ends no run without its checkpoint: readers that go, full disks, closed terminals, signals."""

from __future__ import annotations

import json
import os
import pty
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medserl.commands import train
from medserl.config import Settings
from medserl.runs.checkpoints import STATE_FILE
from medserl.runs.runlog import EPISODES, METRICS, UNWRITTEN, RunFolder, read_rows
from medserl.runs.stopping import stopped_by_signals

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="terminals, limits and /dev/full as Linux has them")

ROUNDS = 40
BASE: dict[str, Any] = {
    "engine": "scripted", "rollout_batch_size": 4, "max_rounds": ROUNDS, "save_every": 100, "eval_notes": 2,
    "frozen_games": 0,
}  # fmt: skip


def start(run: Path, rounds: int = ROUNDS, **options: Any) -> subprocess.Popen[str]:
    settings = {**BASE, "max_rounds": rounds, "output_dir": run}
    flags = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", "medserl.cli", "train", *flags]
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **{**streams, **options})


def until_round_2(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert any(line.lstrip().startswith("round   2/") for line in process.stdout)


def rounds(run: Path) -> list[int]:
    return [row["round"] for row in read_rows(run / METRICS)]


def assert_saved_and_free(run: Path) -> None:
    """The newest checkpoint is that of the last round, and nobody holds the folder."""
    folder, _ = RunFolder.reopen(run)
    newest = folder.latest_checkpoint()
    folder.close()
    assert newest is not None and newest[1]["round"] == rounds(run)[-1]


def test_a_reader_that_goes_ends_the_output_alone(tmp_path: Path) -> None:
    process = start(tmp_path / "run")
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline()
    process.stdout.close()
    complaints = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 141 and "Traceback" not in complaints
    assert rounds(tmp_path / "run")[-1] == ROUNDS
    assert_saved_and_free(tmp_path / "run")


def test_a_full_disk_below_standard_output_ends_the_output_alone(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        process = start(tmp_path / "run", stdout=full)
        _, complaints = process.communicate()
    assert process.returncode == 2 and "Traceback" not in complaints
    assert "standard output: No space left on device" in complaints.splitlines()[-1]
    assert rounds(tmp_path / "run")[-1] == ROUNDS
    assert_saved_and_free(tmp_path / "run")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_ends_the_run_after_its_round_with_a_checkpoint(tmp_path: Path, number: signal.Signals) -> None:
    process = start(tmp_path / "run")
    until_round_2(process)
    process.send_signal(number)
    _, complaints = process.communicate()
    assert process.returncode == 130 and "--resume" in complaints and "Traceback" not in complaints
    assert 2 <= rounds(tmp_path / "run")[-1] < ROUNDS
    assert_saved_and_free(tmp_path / "run")


def test_a_terminal_that_is_closed_ends_the_run_after_its_round_with_a_checkpoint(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()

    def take_the_terminal() -> None:
        import fcntl
        import termios

        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = start(tmp_path / "run", stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=take_the_terminal)
    os.close(theirs)
    shown = b""
    while b"round   2/" not in shown:
        shown += os.read(ours, 4096)
    os.close(ours)
    assert process.wait() == 130
    assert 2 <= rounds(tmp_path / "run")[-1] < ROUNDS
    assert_saved_and_free(tmp_path / "run")


# -- records that cannot be written ------------------------------------------------------------------------


def limited_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))


def test_records_that_do_not_fit_end_the_run_with_a_checkpoint_that_holds_them(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk. What is resumed is as if there had been none."""
    process = start(tmp_path / "run", rounds=8, preexec_fn=limited_files)
    _, complaints = process.communicate()
    last = complaints.splitlines()[-1]
    assert process.returncode == 2 and "Traceback" not in complaints
    assert f"{EPISODES}: cannot be written: File too large; round " in last and "is saved: free some space" in last
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    state = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
    assert 1 < state["round"] < 8 and EPISODES in state[UNWRITTEN]

    train(Settings(resume=str(tmp_path / "run")))
    straight = train(Settings(**{**BASE, "max_rounds": 8, "tensorboard": False}, output_dir=str(tmp_path / "straight")))
    assert (tmp_path / "run" / EPISODES).read_bytes() == (straight / EPISODES).read_bytes()
    assert rounds(tmp_path / "run") == rounds(straight)


def test_records_that_fit_nowhere_end_the_run_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from medserl.errors import OutputError
    from medserl.runs import checkpoints, runlog

    def full(path: Path, *_: Any) -> None:
        raise OutputError(f"{path}: cannot be written: No space left on device")

    monkeypatch.setattr(runlog, "append_private", full)
    monkeypatch.setattr(checkpoints, "write_private", full)
    with pytest.raises(OutputError, match=r"No space left on device; checkpoint .*round_1 could not be written") as it:
        train(Settings(**{**BASE, "max_rounds": 2, "validation_data": "none"}, output_dir=str(tmp_path)))
    assert "\n" not in str(it.value)
    RunFolder.reopen(tmp_path)[0].close()


def test_a_log_that_cannot_be_written_is_said_once_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = RunFolder.create(Settings(output_dir=str(tmp_path), tensorboard=False))
    (tmp_path / "logs" / "train.log").mkdir()
    for number in (1, 2):
        run.log_round({"round": number})
    run.close()
    assert rounds(tmp_path) == [1, 2]
    (message,) = caplog.messages
    assert message.startswith("the run goes on without its log: ")


# -- signals -----------------------------------------------------------------------------------------------


class Stop:
    """In the place of the event of a run."""

    def __init__(self) -> None:
        self.times = 0

    def set(self) -> None:
        self.times += 1


@pytest.fixture
def hung_up() -> Any:
    before = signal.getsignal(signal.SIGHUP)
    yield lambda handler: signal.signal(signal.SIGHUP, handler)
    signal.signal(signal.SIGHUP, before)


def test_a_closing_terminal_sends_more_than_one_signal(hung_up: Callable[[Any], Any]) -> None:
    hung_up(signal.SIG_DFL)
    stop = Stop()
    with stopped_by_signals(stop):  # type: ignore[arg-type]
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGHUP)
    assert stop.times == 1 and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


def test_nohup_is_respected(hung_up: Callable[[Any], Any]) -> None:
    hung_up(signal.SIG_IGN)
    stop = Stop()
    with stopped_by_signals(stop):  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGHUP)
    assert stop.times == 0


@pytest.mark.parametrize("first", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_second_signal_stops_at_once(hung_up: Callable[[Any], Any], first: signal.Signals) -> None:
    hung_up(signal.SIG_DFL)
    stop = Stop()
    with stopped_by_signals(stop):  # type: ignore[arg-type]
        os.kill(os.getpid(), first)
        assert stop.times == 1 and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
