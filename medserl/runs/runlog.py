"""A run's folder on disk (docs/runs.md): settings, log, metrics, episodes, checkpoints."""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import subprocess
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Any

import tomlkit
from filelock import FileLock, Timeout

from medserl import __version__
from medserl.config import Settings, read_config, validate
from medserl.errors import DataError, OutputError, RunError
from medserl.files import FILE_MODE, append_private, private_folder, remove_leftovers, sha256_of, write_private
from medserl.runs.checkpoints import Checkpoints
from medserl.runs.records import json_lines, lines_up_to, read_rows, rounds_in
from medserl.runs.tracking import Tracking

__all__ = ["CONFIG", "EPISODES", "FROZEN_GAMES", "METRICS", "PROVENANCE", "TRAIN_LOG", "RunFolder", "read_rows"]
from medserl.display.visible import visible_line

log = logging.getLogger("medserl")

CONFIG, METRICS, EPISODES, TRAIN_LOG = "config.toml", "metrics.jsonl", "episodes.jsonl", "logs/train.log"
PROVENANCE, FROZEN_GAMES = "provenance.json", "frozen_opponent.jsonl"
UNWRITTEN, FROZEN_SHA256 = "unwritten_records", "frozen_opponent_sha256"


class RunFolder:
    """One run's files. Only one process may hold a folder at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path / ".lock", mode=FILE_MODE)
        self._checkpoints = Checkpoints(path / "checkpoints")
        self._tracking = Tracking()
        self._unwritten: dict[str, str] = {}
        self._log_failed = False

    @classmethod
    def create(
        cls,
        settings: Settings,
        data: Mapping[str, Path] | None = None,
        notes: Mapping[str, Any] | None = None,
        own: Mapping[str, str] | None = None,
    ) -> RunFolder:
        """Make the folder of a new run and write its settings, and what it is made of.

        `data` are files by their use, `notes` says what was read from them and what judges the run.
        `own` are files of the run itself, by name, that hold notes which came in no file.

        Raises:
            RunError: the folder holds a run already, is in use, or cannot be written.
        """
        path = Path(settings.output_dir) if settings.output_dir else default_path(settings.model)
        run = cls._claim(path)
        try:
            if (path / METRICS).exists() or run.checkpoints():
                raise RunError(f"{path}: there is a run in this folder; go on with --resume {path}, or choose another")
            for name in (FROZEN_GAMES, EPISODES):  # of a run that was killed before its first row
                (path / name).unlink(missing_ok=True)
            private_folder(path / "logs")
            private_folder(path / "checkpoints")
            for name, content in (own or {}).items():
                write_private(path / name, content)
            write_private(path / PROVENANCE, json.dumps(provenance(data or {}, notes or {}), indent=1))
            document = tomlkit.document()
            document.add(tomlkit.comment(f"medserl {__version__}, git {git_revision() or 'unknown'}"))
            for key, value in settings.model_dump(exclude_none=True).items():
                document.add(key, value)
            write_private(path / CONFIG, tomlkit.dumps(document))  # last: with it the folder is a run
            run.start_tracking(settings, first_round=0)
        except OSError as error:
            run.close()
            raise OutputError(f"{path}: cannot write there: {_reason(error)}") from error
        except BaseException:
            run.close()
            raise
        return run

    @classmethod
    def reopen(cls, path: Path) -> tuple[RunFolder, Settings]:
        """A run folder to go on with, and the settings it was started with. `start_tracking` waits for the round."""
        settings = read_settings(path)
        if "model" not in settings.model_fields_set:  # every run writes it
            raise RunError(f"{path / CONFIG}: no model in it, so this is not what a run wrote")
        return cls._claim(path), settings

    @classmethod
    def _claim(cls, path: Path) -> RunFolder:
        try:
            private_folder(path)
            run = cls(path)
            run._lock.acquire(timeout=0)
            for name in (CONFIG, PROVENANCE, METRICS, EPISODES, FROZEN_GAMES):
                remove_leftovers(path, name)
        except Timeout:
            raise RunError(f"{path}: another run is using this folder; choose another --output-dir") from None
        except (OSError, OutputError, NotImplementedError) as error:
            raise OutputError(f"{path}: cannot write there: {_reason(error)}") from None
        return run

    def start_tracking(self, settings: Settings, first_round: int) -> None:
        """Log to TensorBoard and W&B too, where the settings ask for it; `first_round` is the first to be logged."""
        self._tracking.start(self.path, settings.model_dump(), first_round)

    def record_changes(self, changes: Mapping[str, tuple[Any, Any]], round_number: int) -> None:
        """Write settings that were changed on resuming into config.toml, what they were as a comment below.

        Raises:
            RunError: the file cannot be read or written.
        """
        path = self.path / CONFIG
        try:
            document = tomlkit.parse(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as error:
            raise RunError(f"{path}: cannot be read: {error}") from None
        for name, (old, new) in changes.items():
            document[name] = new
            stamp = datetime.now().isoformat(timespec="seconds")
            document.add(tomlkit.comment(f"{stamp}, after round {round_number}: {name} was {old!r}, now {new!r}"))
        write_private(path, tomlkit.dumps(document))

    def require_same_data(self, data: Mapping[str, Path]) -> None:
        """The files that the run was started on are as they were: other notes are other games.

        Raises:
            RunError: a file has changed, or it cannot be told.
        """
        recorded = self._provenance()
        if not recorded:
            return
        before, versions = recorded["sha256"], recorded["versions"]
        for name, version in _versions().items():
            if versions.get(name, version) != version:
                log.warning("the run began with %s %s and goes on with %s", name, versions[name], version)
        for use, digest in digests(data).items():
            if before.get(use, digest) != digest:
                raise RunError(
                    f"{use} {data[use]} has changed since the run began (SHA-256 {before[use][:12]}..., now "
                    f"{digest[:12]}...), so its games would be others; put the old file back, or start a new run"
                )

    def require_same_notes(self, notes: Mapping[str, Any]) -> None:
        """What is read and what is held out is what the run began with.

        Raises:
            RunError: it is not, or it cannot be told.
        """
        recorded = self._provenance().get("notes") or {}
        changed = [name for name, value in recorded.items() if notes.get(name) != value]
        if changed:
            raise RunError(
                f"{self.path}: {', '.join(changed)} of the notes is not what the run began with, so it cannot go on "
                "with the same games; put the old files back, or start a new run"
            )

    def _provenance(self) -> dict[str, Any]:
        """What the run was started on; empty, with a line in the log, where that is not there any more."""
        path = self.path / PROVENANCE
        try:
            recorded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            recorded["sha256"] = {use: str(digest) for use, digest in recorded["sha256"].items()}
            recorded["versions"] = dict(recorded["versions"])
            recorded["notes"] = dict(recorded.get("notes", {}))
        except FileNotFoundError:
            log.warning("%s is missing, so nothing tells whether the data are still those of this run", path)
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise RunError(
                f"{path}: cannot be read ({_reason(error)}), so nothing tells whether the data are still those of this "
                "run; delete it to go on without that check"
            ) from None
        return recorded

    # -- a round's records --------------------------------------------------------------------------------------

    def log_round(self, metrics: Mapping[str, Any], episodes: Iterable[Mapping[str, Any]] = ()) -> None:
        """The games of a round and its metrics; these also to train.log, TensorBoard and W&B.

        Raises:
            OutputError: metrics or games cannot be written; the next checkpoint will hold them.
        """
        failed: OutputError | None = None
        for name, records in ((EPISODES, episodes), (METRICS, [metrics])):
            lines = json_lines(records)
            try:
                self._append(name, lines)
            except OutputError as error:
                self._unwritten[name] = lines
                failed = failed or error
        if failed:
            raise failed
        self._log_line(metrics)
        self._tracking.log({k: v for k, v in metrics.items() if isinstance(v, int | float)}, metrics["round"])

    def log_episodes(self, records: Iterable[Mapping[str, Any]]) -> None:
        self._append(EPISODES, json_lines(records))

    def _append(self, name: str, lines: str) -> None:
        if lines:
            append_private(self.path / name, lines)

    def _log_line(self, metrics: Mapping[str, Any]) -> None:
        """One line in train.log, for people: trouble with it is said once and ends nothing."""
        stamp = datetime.now().isoformat(timespec="seconds")
        line = " ".join(f"{_word(key)}={_word(value)}" for key, value in metrics.items())
        try:
            append_private(self.path / TRAIN_LOG, f"{stamp} {line}\n")
        except OutputError as error:
            if not self._log_failed:
                log.warning("the run goes on without its log: %s", error)
            self._log_failed = True

    # -- the frozen opponent ------------------------------------------------------------------------------------

    def write_frozen_games(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Write `frozen_opponent.jsonl` whole or not at all. Raises OutputError where it cannot be written."""
        write_private(self.path / FROZEN_GAMES, json_lines(records))

    def read_frozen_games(self) -> list[dict[str, Any]] | None:
        """The rows of `frozen_opponent.jsonl`; None where the run has none. Raises RunError where they are broken."""
        path = self.path / FROZEN_GAMES
        if not path.exists():
            return None
        rows = []
        try:
            with path.open("rb") as file:
                rows = [json.loads(line) for line in file]
        except (OSError, ValueError, RecursionError) as error:
            raise RunError(f"{path}: cannot be read: {error}") from None
        if not all(isinstance(row, dict) for row in rows):
            raise RunError(f"{path}: cannot be read: a line is no JSON object")
        return rows

    def require_same_frozen_games(self, state: Mapping[str, Any]) -> None:
        """The stored games are those of the state of a checkpoint: against others no curve would mean anything.

        Raises:
            RunError: they are not.
        """
        path = self.path / FROZEN_GAMES
        before = state.get(FROZEN_SHA256)
        if before and path.is_file() and digests({FROZEN_GAMES: path})[FROZEN_GAMES] != before:
            raise RunError(f"{path}: is not as it was written; delete it to go on without frozen_* figures")

    # -- checkpoints --------------------------------------------------------------------------------------------

    def save_checkpoint(self, state: Mapping[str, Any], write_model: Callable[[Path], None], keep: int) -> Path:
        """As `Checkpoints.save`; records that could not be written are kept in it."""
        own: dict[str, Any] = {UNWRITTEN: self._unwritten} if self._unwritten else {}
        if (self.path / FROZEN_GAMES).is_file():
            own[FROZEN_SHA256] = digests({FROZEN_GAMES: self.path / FROZEN_GAMES})[FROZEN_GAMES]
        return self._checkpoints.save({**state, **own}, write_model, keep)

    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return self._checkpoints.complete()

    def latest_checkpoint(self) -> tuple[Path, dict[str, Any]] | None:
        """As `Checkpoints.newest`: the newest one that is whole, with its state."""
        return self._checkpoints.newest()

    def best_checkpoint(self) -> Path | None:
        """As `Checkpoints.best`: the one that did best on the validation notes."""
        return self._checkpoints.best()

    def best_round(self) -> int | None:
        """As `Checkpoints.best_round`: 0 where no checkpoint did better than what training started from."""
        return self._checkpoints.best_round()

    def forget_after(self, round_number: int, unwritten: Mapping[str, str] | None = None) -> None:
        """Drop what no checkpoint holds, records and checkpoints of later rounds: a resumed run plays them again.

        `unwritten` are the records of this round that the checkpoint keeps, as lines by the name of their file.
        """
        self._checkpoints.set_aside_after(round_number)
        for name in (METRICS, EPISODES):
            path, kept = self.path / name, (unwritten or {}).get(name, "")
            if path.exists() or kept:
                lines = lines_up_to(path, round_number - 1 if kept else round_number)
                write_private(path, chain(lines, [kept.encode("utf-8", "surrogatepass")]))
            lost = sorted(set(range(1, round_number + 1)) - rounds_in(path))
            if lost:
                log.warning("%s has no record of %d rounds that were played (first: %d)", path, len(lost), lost[0])

    def close(self) -> None:
        self._tracking.close()
        self._lock.release()


def read_settings(run: Path) -> Settings:
    """The settings that a run was started with.

    Raises:
        RunError: the folder holds no run.
    """
    if not os.path.isfile(run / CONFIG):  # unlike Path.is_file it never raises
        raise RunError(f"{run}: no {CONFIG} there, so this is no run folder")
    return validate(read_config(run / CONFIG, written=True), str(run / CONFIG))


def provenance(data: Mapping[str, Path], notes: Mapping[str, Any]) -> dict[str, Any]:
    """What figures of a run rest on: versions of the code, the SHA-256 of each data file by its use, and its notes."""
    return {"versions": _versions(), "git": git_revision() or "unknown", "sha256": digests(data), "notes": dict(notes)}


def _versions() -> dict[str, str]:
    packages = ("torch", "transformers", "peft", "rapidfuzz", "sentencex")
    own = {"medserl": __version__, "python": platform.python_version()}
    return own | {package: metadata.version(package) for package in packages}


def digests(data: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 of each file, or of all files of a folder, by its use.

    Raises:
        DataError: one cannot be read.
    """
    found = {}
    for use, path in data.items():
        try:
            found[use] = sha256_of(path)
        except OSError as error:
            raise DataError(f"{use} {path}: cannot be read: {error.strerror or error}") from None
    return found


def default_path(model: str) -> Path:
    name = Path(model).name.replace(":", "_")
    return Path("outputs") / f"medserl_{name}_{datetime.now():%Y%m%d_%H%M%S}"


def git_revision() -> str | None:
    """Revision of the code that runs, with `+changes` where the tree is not clean; None outside a checkout."""
    here = Path(__file__).parent.parent
    with suppress(OSError):
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty=+changes", "--abbrev=12"],
            cwd=here, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if found.returncode == 0:
            return found.stdout.strip()
    return None


def _reason(error: BaseException) -> str:
    cause = error.__cause__ or error
    return str(getattr(cause, "strerror", None) or cause)


def _word(value: Any) -> str:
    """One word of a line of `key=value`: nothing in it can pass for another key, or another line."""
    return f"{value:.6g}" if isinstance(value, float) else re.sub(r"[\s=]", "_", visible_line(str(value)))
