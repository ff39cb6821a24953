"""Checkpoints of a run: folders `round_N`, each whole or not at all, with the SHA-256 of every file in `manifest.json`.

A checkpoint counts where its manifest is there, and is used where every file is as the manifest says. One without a
manifest is not used: it is incomplete, or of a version before 0.2.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from medserl.errors import MedSeRLError, OutputError, RunError, first_line
from medserl.files import private_folder, remove_folder, remove_leftovers, replace_folder, sha256_of, write_private

log = logging.getLogger("medserl")

STATE_FILE, MANIFEST = "trainer_state.json", "manifest.json"
_NAME = re.compile(r"round_(\d+)")


class Checkpoints:
    """The checkpoints below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, state: Mapping[str, Any], write_model: Callable[[Path], None], keep: int) -> Path:
        """Write `round_N` whole or not at all, then drop all but the `keep` newest and the best.

        The best is the one whose round `state["best"]` names, where it names one.

        Raises:
            OutputError: it could not be written (a full disk, say); older checkpoints are untouched.
        """
        target = self.folder / f"round_{state['round']}"
        scratch = self.folder / f".{target.name}.partial"
        try:
            remove_leftovers(self.folder, "round_*")
            write_model(private_folder(scratch))
            write_private(scratch / STATE_FILE, json.dumps(state, indent=1))
            write_private(scratch / MANIFEST, json.dumps({"sha256": _digests(scratch)}, indent=1))
            replace_folder(scratch, target)
        except Exception as error:
            shutil.rmtree(scratch, ignore_errors=True)
            if isinstance(error, MedSeRLError) and not isinstance(error, OutputError):
                raise  # it says itself what happened: a training rank has died, say
            raise OutputError(
                f"checkpoint {target} could not be written ({first_line(error)}); free some space, "
                f"then go on with --resume {self.folder.parent}"
            ) from error
        self._drop_old(keep, _best_of(state))
        return target

    def _drop_old(self, keep: int, best: str | None) -> None:
        for old in self.complete()[:-keep]:
            try:
                if old.name != best:
                    remove_folder(old)
            except OutputError as error:
                log.warning("an old checkpoint stays: %s", error)

    def complete(self) -> list[Path]:
        """Folders with a manifest, oldest first; what is in them is not looked at."""
        return [folder for folder in self._folders() if (folder / MANIFEST).is_file()]

    def _folders(self) -> list[Path]:
        try:
            found = [path for path in self.folder.iterdir() if _NAME.fullmatch(path.name)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RunError(f"{self.folder}: cannot be read: {error.strerror or error}") from None
        return sorted(found, key=_round_of)

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint that is whole, and its state; the log names newer ones that are not.

        None where there are no checkpoints.

        Raises:
            RunError: there are some, and none is whole.
        """
        folders = self._folders()
        damages: list[str] = []
        for folder in reversed(folders):
            damage = find_damage(folder)
            if damage is None:
                for each in damages:
                    log.warning("%s; taking %s in its place", each, folder.name)
                return folder, json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
            damages.append(f"checkpoint {folder} is damaged: {damage}")
        if damages:
            raise RunError(f"{damages[0]}, and no other is whole; start a new run")
        return None

    def best(self) -> Path | None:
        """The checkpoint that did best on the validation notes; None where no round was saved and validated, or none
        did better than the policy that training started from, of which there is no checkpoint (`best_round`).

        Raises:
            RunError: it is damaged.
        """
        number = self.best_round()
        if not number:
            return None
        name = f"round_{number}"
        damage = find_damage(self.folder / name)
        if damage:
            raise RunError(f"checkpoint {self.folder / name}, the best of the run, is damaged: {damage}")
        return self.folder / name

    def best_round(self) -> int | None:
        """The round that did best on the validation notes, 0 being the start of training; None without validation."""
        newest = self.newest()
        best = newest[1].get("best") if newest else None
        return best["round"] if best else None

    def set_aside_after(self, round_number: int) -> None:
        """Rename the (damaged) checkpoints of later rounds, so that they neither count nor stand in the way."""
        for folder in self._folders():
            if _round_of(folder) > round_number:
                aside = folder.with_name(f"damaged_{folder.name}")
                shutil.rmtree(aside, ignore_errors=True)
                folder.rename(aside)
                log.warning("%s is now called %s and is not used any more: delete it", folder, aside.name)
        remove_leftovers(self.folder, "round_*")


def find_damage(checkpoint: Path) -> str | None:
    """What is wrong with the files of a checkpoint, in words; None where it is whole."""
    try:
        digests = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["sha256"]
        if not isinstance(digests, dict) or STATE_FILE not in digests:
            return f"{MANIFEST} is no list of checksums"
        for name, digest in digests.items():
            if not (checkpoint / name).is_file():
                return f"{name} is missing"
            if sha256_of(checkpoint / name) != digest:
                return f"{name} is not as it was written"
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"{MANIFEST} cannot be read"
    except OSError as error:
        return f"{Path(str(error.filename)).name} cannot be read: {error.strerror}"
    return None


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}


def _round_of(folder: Path) -> int:
    return int(folder.name.removeprefix("round_"))


def _best_of(state: Mapping[str, Any]) -> str | None:
    best = state.get("best")
    return f"round_{best['round']}" if best else None
