"""Where a run's figures go besides its own files: TensorBoard, and W&B where it is asked for.

Trouble with either is said once and ends nothing.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from medserl.errors import OutputError, RunError
from medserl.files import append_private, private_folder, write_private

log = logging.getLogger("medserl")

TENSORBOARD, WANDB_ID = "tensorboard", "wandb_run_id"


class Tracker(Protocol):
    def log(self, figures: Mapping[str, float], step: int) -> None: ...

    def close(self) -> None: ...


class Tracking:
    """All trackers of a run. One that fails is said to, and left out from there on."""

    def __init__(self) -> None:
        self._trackers: dict[str, Tracker] = {}

    def start(self, run: Path, settings: Mapping[str, Any], first_round: int) -> None:
        """Open those that the settings ask for; `first_round` is the first that will be logged.

        Raises:
            RunError: W&B is asked for and cannot start.
        """
        if settings["tensorboard"]:
            with self._watched("TensorBoard"):
                self._trackers["TensorBoard"] = TensorBoard(run / TENSORBOARD, first_round)
        if settings["wandb"]:
            self._trackers["W&B"] = WeightsAndBiases(run, settings)

    def log(self, figures: Mapping[str, float], step: int) -> None:
        for name, tracker in list(self._trackers.items()):
            with self._watched(name):
                tracker.log(figures, step)

    def close(self) -> None:
        for name, tracker in list(self._trackers.items()):
            with self._watched(name):
                tracker.close()
        self._trackers.clear()

    def _watched(self, name: str) -> _Watched:
        return _Watched(self._trackers, name)


class _Watched:
    """Inside, an error is said and the tracker dropped; W&B raises whatever the network and its service give it."""

    def __init__(self, trackers: dict[str, Tracker], name: str) -> None:
        self._trackers, self._name = trackers, name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _at: object) -> bool:
        if not isinstance(error, Exception):
            return False
        self._trackers.pop(self._name, None)
        log.warning("%s is off from here on, and the run goes on: %s", self._name, first_line(error))
        return True


class TensorBoard:
    """Scalars in TensorBoard's event format, written at once and by ourselves.

    `torch.utils.tensorboard.SummaryWriter` writes in a thread, which prints a traceback where the disk is full.
    """

    def __init__(self, folder: Path, first_round: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        private_folder(folder)
        # TensorBoard reads files in the order of their names.
        self.path = folder / f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self._write(Event(file_version="brain.Event:2"))
        # What an earlier process logged of these rounds, which no checkpoint holds, is not shown any more.
        self._write(Event(step=first_round, session_log=SessionLog(status=SessionLog.START)))

    def log(self, figures: Mapping[str, float], step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in figures.items()]
        self._write(Event(step=step, summary=Summary(value=values)))

    def _write(self, event: Any) -> None:
        from io import BytesIO

        from tensorboard.summary.writer.record_writer import RecordWriter

        event.wall_time = time.time()
        record = BytesIO()
        RecordWriter(record).write(event.SerializeToString())
        append_private(self.path, record.getvalue())

    def close(self) -> None:
        """Nothing is held open."""


class WeightsAndBiases:
    """One W&B run for each of ours, however often it is resumed: its id is kept in the run folder."""

    def __init__(self, run: Path, settings: Mapping[str, Any]) -> None:
        wandb = require_wandb()
        kept = run / WANDB_ID
        try:
            identity = kept.read_text(encoding="utf-8").strip() if kept.exists() else secrets.token_hex(4)
            self._run = wandb.init(
                project="medserl",
                name=run.name,
                id=identity,
                resume="allow",
                dir=str(run),
                config=dict(settings),
                settings=wandb.Settings(console="off", silent=True),
            )
            write_private(kept, f"{identity}\n")
        except OutputError:
            raise
        except Exception as error:
            raise _cannot_start(error) from error

    def log(self, figures: Mapping[str, float], step: int) -> None:
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        self._run.finish()


def require_wandb() -> Any:
    """The module, ready to start without asking anybody anything.

    Raises:
        RunError: it is not installed, or it would send figures away and has no key for that.
    """
    try:
        import wandb
    except ImportError:
        raise RunError("wandb is not installed: pip install 'medserl[wandb]', or leave --wandb out") from None
    sends = os.environ.get("WANDB_MODE") not in ("offline", "disabled", "dryrun")
    try:
        ready = not sends or wandb.login(prompt=False, verify=False)
    except Exception as error:
        raise _cannot_start(error) from error
    if not ready:
        raise RunError(
            "W&B has no key: set WANDB_API_KEY, or run `wandb login`, or set WANDB_MODE=offline, or leave --wandb out"
        )
    return wandb


def _cannot_start(error: Exception) -> RunError:
    return RunError(f"W&B cannot start ({first_line(error)}); set WANDB_MODE=offline, or leave --wandb out")


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
