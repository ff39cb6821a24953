"""TensorBoard and W&B: one run however often it is resumed, no steps twice, and their trouble ends nothing."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from medserl.config import Settings
from medserl.errors import RunError
from medserl.runs.runlog import METRICS, RunFolder, read_rows
from medserl.runs.tracking import TENSORBOARD, TensorBoard, Tracking, require_wandb

ROUND = {"mean_reward": 0.5, "accepted_games": 3}


def steps(folder: Path, tag: str = "mean_reward") -> list[tuple[int, float]]:
    """As TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(folder))
    shown.Reload()
    return [(event.step, event.value) for event in shown.Scalars(tag)] if tag in shown.Tags()["scalars"] else []


def new_run(path: Path, **changes: Any) -> RunFolder:
    return RunFolder.create(Settings(output_dir=str(path), **changes))


# -- TensorBoard -------------------------------------------------------------------------------------------


def test_rounds_that_are_played_again_are_shown_once(tmp_path: Path) -> None:
    killed = new_run(tmp_path)
    for number in range(4):
        killed.log_round({"round": number, "mean_reward": 0.25 * number, "none": None, "text": "x"})
    killed._lock.release()  # and no word more: a kill
    run, settings = RunFolder.reopen(tmp_path)
    run.start_tracking(settings, first_round=2)
    for number in (2, 3, 4):
        run.log_round({"round": number, "mean_reward": -1.0})
    run.close()
    assert steps(tmp_path / TENSORBOARD) == [(0, 0.0), (1, 0.25), (2, -1.0), (3, -1.0), (4, -1.0)]
    assert steps(tmp_path / TENSORBOARD, "none") == steps(tmp_path / TENSORBOARD, "text") == []


def test_a_run_without_a_checkpoint_is_shown_from_its_new_beginning(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        writer = TensorBoard(tmp_path, first_round=0)
        writer.log({"mean_reward": value}, 0)
    assert steps(tmp_path) == [(0, 2.0)]


def test_events_are_their_owners_alone_and_there_at_once(tmp_path: Path) -> None:
    writer = TensorBoard(tmp_path / TENSORBOARD, first_round=0)
    writer.log(ROUND, 1)
    assert writer.path.stat().st_mode & 0o777 == 0o600
    assert steps(tmp_path / TENSORBOARD, "accepted_games") == [(1, 3.0)]


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_full_disk_ends_tensorboard_and_not_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = new_run(tmp_path)
    (events,) = (tmp_path / TENSORBOARD).iterdir()
    events.unlink()
    events.symlink_to("/dev/full")
    for number in (1, 2, 3):
        run.log_round({"round": number, **ROUND})
    run.close()
    assert [row["round"] for row in read_rows(tmp_path / METRICS)] == [1, 2, 3]
    (warning,) = caplog.messages
    assert warning.startswith("TensorBoard is off from here on, and the run goes on: ") and "No space" in warning


def test_a_folder_that_cannot_be_made_ends_tensorboard_and_not_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / TENSORBOARD).write_text("in the way")
    run = new_run(tmp_path)
    run.log_round({"round": 1, **ROUND})
    run.close()
    assert "TensorBoard is off from here on" in caplog.text


# -- W&B, by a module of its name --------------------------------------------------------------------------


class FakeWandB(types.ModuleType):
    """What we use of it; every call is remembered."""

    def __init__(self, key: str | None = "key", fails: str = "") -> None:
        super().__init__("wandb")
        self.calls: list[tuple[str, Any]] = []
        self.fails = fails
        self.key = key

    def login(self, *, prompt: bool, verify: bool) -> bool:
        assert not prompt and not verify, "it asks a person, or the network"
        return bool(self.key or os.environ.get("WANDB_API_KEY"))

    def Settings(self, **settings: Any) -> dict[str, Any]:
        return settings

    def init(self, **options: Any) -> FakeWandB:
        self._called("init", options)
        return self

    def log(self, figures: dict[str, Any], step: int) -> None:
        self._called("log", (step, figures))

    def finish(self) -> None:
        self._called("finish", None)

    def _called(self, name: str, what: Any) -> None:
        self.calls.append((name, what))
        if name == self.fails:
            raise ConnectionError("no route to host\nmore words")


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandB:
    return install(monkeypatch, FakeWandB())


def install(monkeypatch: pytest.MonkeyPatch, module: FakeWandB) -> FakeWandB:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_a_resumed_run_is_one_run_there(tmp_path: Path, wandb: FakeWandB) -> None:
    new_run(tmp_path, tensorboard=False, wandb=True).close()
    run, settings = RunFolder.reopen(tmp_path)
    run.start_tracking(settings, first_round=3)
    run.log_round({"round": 3, **ROUND})
    run.close()
    first, second = (options for name, options in wandb.calls if name == "init")
    assert first["id"] == second["id"] and first["resume"] == second["resume"] == "allow"
    assert first["id"].isalnum() and first["dir"] == str(tmp_path)
    assert ("log", (3, {"round": 3, **ROUND})) in wandb.calls and wandb.calls[-1][0] == "finish"


def test_without_a_key_it_says_so_and_asks_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = install(monkeypatch, FakeWandB(key=None))
    with pytest.raises(RunError, match=r"W&B has no key: set WANDB_API_KEY, .*WANDB_MODE=offline") as caught:
        new_run(tmp_path, wandb=True)
    assert "\n" not in str(caught.value) and not module.calls
    monkeypatch.setenv("WANDB_MODE", "offline")
    new_run(tmp_path, wandb=True).close()
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert require_wandb() is module


def test_a_start_that_fails_is_one_line_and_leaves_the_folder_free(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, FakeWandB(fails="init"))
    with pytest.raises(RunError, match=r"W&B cannot start \(no route to host\); set WANDB_MODE=offline") as caught:
        new_run(tmp_path, wandb=True)
    assert "\n" not in str(caught.value)
    new_run(tmp_path).close()


@pytest.mark.parametrize("call", ["log", "finish"])
def test_trouble_later_is_said_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    install(monkeypatch, FakeWandB(fails=call))
    run = new_run(tmp_path, wandb=True)
    for number in (1, 2):
        run.log_round({"round": number, **ROUND})
    run.close()
    assert caplog.messages == ["W&B is off from here on, and the run goes on: no route to host"]
    assert steps(tmp_path / TENSORBOARD) == [(1, 0.5), (2, 0.5)]


def test_it_is_missed_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(RunError, match=r"wandb is not installed: pip install 'medserl\[wandb\]'"):
        require_wandb()


def test_a_signal_is_no_trouble_of_a_tracker() -> None:
    class Interrupted:
        def log(self, *_: Any) -> None:
            raise KeyboardInterrupt

    tracking = Tracking()
    tracking._trackers["it"] = Interrupted()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        tracking.log({}, 1)
