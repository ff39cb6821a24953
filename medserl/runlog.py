"""A run's folder on disk (DESIGN, section 7): settings, log, metrics, episodes, checkpoints."""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import tomlkit
from filelock import FileLock, Timeout

from medserl import __version__
from medserl.config import Settings, read_config, validate
from medserl.errors import MedSeRLError, RunError
from medserl.models import sha256_of

log = logging.getLogger("medserl")

CONFIG, METRICS, EPISODES, TRAIN_LOG = "config.toml", "metrics.jsonl", "episodes.jsonl", "logs/train.log"
PROVENANCE, FROZEN_GAMES = "provenance.json", "frozen_opponent.jsonl"
STATE_FILE = "trainer_state.json"


class RunFolder:
    """One run's files. Only one process may hold a folder at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path / ".lock")
        self._tensorboard: Any = None
        self._wandb: Any = None

    @classmethod
    def create(cls, settings: Settings) -> RunFolder:
        """Make the folder of a new run and write its settings.

        Raises:
            RunError: the folder holds a run already, is in use, or cannot be written.
        """
        path = Path(settings.output_dir) if settings.output_dir else default_path(settings.model)
        run = cls._claim(path)
        if (path / METRICS).exists():
            run.close()
            raise RunError(f"{path}: there is a run in this folder; go on with --resume {path}, or choose another")
        (path / FROZEN_GAMES).unlink(missing_ok=True)  # of a run that was killed before its first row
        (path / "logs").mkdir(exist_ok=True)
        (path / "checkpoints").mkdir(exist_ok=True)
        document = tomlkit.document()
        document.add(tomlkit.comment(f"medserl {__version__}, git {git_revision() or 'unknown'}"))
        for key, value in settings.model_dump(exclude_none=True).items():
            document.add(key, value)
        (path / CONFIG).write_text(tomlkit.dumps(document), encoding="utf-8")
        run._open_writers(settings)
        return run

    @classmethod
    def reopen(cls, path: Path) -> tuple[RunFolder, Settings]:
        """A run folder to go on with, and the settings it was started with."""
        settings = read_settings(path)
        run = cls._claim(path)
        run._open_writers(settings)
        return run, settings

    @classmethod
    def _claim(cls, path: Path) -> RunFolder:
        try:
            path.mkdir(parents=True, exist_ok=True)
            run = cls(path)
            run._lock.acquire(timeout=0)
        except Timeout:
            raise RunError(f"{path}: another run is using this folder; choose another --output-dir") from None
        except OSError as error:
            raise RunError(f"{path}: cannot write there: {error.strerror or error}") from None
        return run

    def _open_writers(self, settings: Settings) -> None:
        if settings.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._tensorboard = SummaryWriter(str(self.path / "tensorboard"))
        if settings.wandb:
            try:
                import wandb
            except ImportError:
                raise RunError("wandb is not installed: pip install 'medserl[wandb]', or leave --wandb out") from None
            self._wandb = wandb.init(project="medserl", name=self.path.name, config=settings.model_dump())

    def log_provenance(self, data: Mapping[str, Path]) -> None:
        """What figures of this run rest on: versions of the code and the SHA-256 of each data file, by its use."""
        packages = ("torch", "transformers", "peft", "rapidfuzz", "sentencex")
        record = {
            "versions": {"medserl": __version__, "python": platform.python_version()}
            | {package: metadata.version(package) for package in packages},
            "git": git_revision() or "unknown",
            "sha256": {use: sha256_of(path) for use, path in data.items()},
        }
        (self.path / PROVENANCE).write_text(json.dumps(record, indent=1), encoding="utf-8")

    # -- a round's records --------------------------------------------------------------------------------------

    def log_round(self, metrics: Mapping[str, Any]) -> None:
        """One line in metrics.jsonl and train.log, and the numbers to TensorBoard and W&B where these are on."""
        self._append(METRICS, [metrics])
        line = " ".join(f"{key}={_plain(value)}" for key, value in metrics.items())
        stamp = datetime.now().isoformat(timespec="seconds")
        self._write(TRAIN_LOG, f"{stamp} {line}\n")
        numbers = {k: v for k, v in metrics.items() if isinstance(v, int | float)}
        if self._tensorboard:
            for key, value in numbers.items():
                self._tensorboard.add_scalar(key, value, metrics["round"])
        if self._wandb:
            self._wandb.log(numbers, step=metrics["round"])

    def log_episodes(self, records: Iterable[Mapping[str, Any]]) -> None:
        self._append(EPISODES, records)

    def _append(self, name: str, records: Iterable[Mapping[str, Any]]) -> None:
        self._write(name, _json_lines(records))

    def _write(self, name: str, text: str) -> None:
        try:
            with (self.path / name).open("a", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RunError(f"{self.path / name}: cannot be written: {error.strerror}") from error

    # -- the frozen opponent ------------------------------------------------------------------------------------

    def write_frozen_games(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Write `frozen_opponent.jsonl` whole or not at all. Raises RunError where it cannot be written."""
        path = self.path / FROZEN_GAMES
        try:
            _replace_text(path, _json_lines(records))
        except OSError as error:
            raise RunError(f"{path}: cannot be written: {error.strerror}") from error

    def read_frozen_games(self) -> list[dict[str, Any]] | None:
        """The rows of `frozen_opponent.jsonl`; None where the run has none. Raises RunError where they are broken."""
        path = self.path / FROZEN_GAMES
        if not path.exists():
            return None
        try:
            return read_rows(path)
        except (OSError, ValueError) as error:
            raise RunError(f"{path}: cannot be read: {error}") from None

    # -- checkpoints --------------------------------------------------------------------------------------------

    def save_checkpoint(self, state: Mapping[str, Any], write_model: Callable[[Path], None], keep: int) -> Path:
        """Write `checkpoints/round_N` whole or not at all, then drop all but the `keep` newest and the best.

        The best is the one whose round `state["best"]` names, where it names one.

        Raises:
            RunError: it could not be written (a full disk, say); older checkpoints are untouched.
        """
        folder = self.path / "checkpoints"
        target = folder / f"round_{state['round']}"
        scratch = folder / f".round_{state['round']}.partial"
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            scratch.mkdir(parents=True)
            write_model(scratch)
            (scratch / STATE_FILE).write_text(json.dumps(state, indent=1), encoding="utf-8")
            shutil.rmtree(target, ignore_errors=True)
            os.replace(scratch, target)
        except Exception as error:
            shutil.rmtree(scratch, ignore_errors=True)
            if isinstance(error, MedSeRLError):  # it says itself what happened: a training rank has died, say
                raise
            raise RunError(
                f"checkpoint {target} could not be written ({_first_line(error)}); free some space, "
                f"then go on with --resume {self.path}"
            ) from error
        best = _best_of(state)
        for old in self.checkpoints()[:-keep]:
            if old.name != best:
                shutil.rmtree(old)
        return target

    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        found = (self.path / "checkpoints").glob(f"round_*/{STATE_FILE}")
        return sorted((file.parent for file in found), key=lambda path: int(path.name.split("_")[1]))

    def latest_checkpoint(self) -> tuple[Path, dict[str, Any]] | None:
        saved = self.checkpoints()
        if not saved:
            return None
        return saved[-1], json.loads((saved[-1] / STATE_FILE).read_text(encoding="utf-8"))

    def best_checkpoint(self) -> Path | None:
        """The checkpoint that did best on the validation notes; None where no round was saved and validated."""
        latest = self.latest_checkpoint()
        name = _best_of(latest[1]) if latest else None
        return self.path / "checkpoints" / name if name else None

    def forget_after(self, round_number: int) -> None:
        """Drop the records of rounds that no checkpoint holds: a resumed run plays them again."""
        for name in (METRICS, EPISODES):
            path = self.path / name
            if path.exists():
                kept = [row for row in _complete_rows(path) if row["round"] <= round_number]
                _replace_text(path, _json_lines(kept))

    def close(self) -> None:
        for writer in (self._tensorboard, self._wandb):
            if writer:
                getattr(writer, "close", None) and writer.close()
                getattr(writer, "finish", None) and writer.finish()
        self._lock.release()


def read_settings(run: Path) -> Settings:
    """The settings that a run was started with.

    Raises:
        RunError: the folder holds no run.
    """
    if not (run / CONFIG).is_file():
        raise RunError(f"{run}: no {CONFIG} there, so this is no run folder")
    return validate(read_config(run / CONFIG), str(run / CONFIG))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl or episodes.jsonl; a last line cut short by a kill is left out."""
    return list(_complete_rows(path)) if path.exists() else []


def _complete_rows(path: Path) -> Iterable[dict[str, Any]]:
    # Bytes, cut at newlines alone: a kill may leave half a character, and U+2028 inside a string is no line's end.
    *complete, rest = path.read_bytes().split(b"\n")
    for line in complete:
        yield json.loads(line)
    if rest:
        log.warning("%s: the last line is incomplete and was left out", path)


def _json_lines(records: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _replace_text(path: Path, text: str) -> None:
    """Write the file whole or not at all: a kill leaves what was there before."""
    scratch = path.with_suffix(".partial")
    with scratch.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(scratch, path)


def default_path(model: str) -> Path:
    name = Path(model).name.replace(":", "_")
    return Path("outputs") / f"medserl_{name}_{datetime.now():%Y%m%d_%H%M%S}"


def git_revision() -> str | None:
    """Revision of the code that runs, with `+changes` where the tree is not clean; None outside a checkout."""
    here = Path(__file__).parent
    with suppress(OSError):
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty=+changes", "--abbrev=12"],
            cwd=here, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if found.returncode == 0:
            return found.stdout.strip()
    return None


def _plain(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value).replace(" ", "_")


def _best_of(state: Mapping[str, Any]) -> str | None:
    best = state.get("best")
    return f"round_{best['round']}" if best else None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
