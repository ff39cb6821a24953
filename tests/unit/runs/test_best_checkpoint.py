"""The checkpoint that did best on validation notes is kept, named on resume, and can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from medserl.commands import train
from medserl.config import Settings
from medserl.errors import RunError
from medserl.evaluation.systems import resolve_systems
from medserl.evaluation.validation import Validation
from medserl.runs.runlog import RunFolder

SCORES = [0.2, 0.5, 0.9, 0.4, 0.9]  # before training, then rounds 1 to 4; the second 0.9 is not better


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return run_with(SCORES, tmp_path, monkeypatch)


def run_with(each: Sequence[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    scores = iter(each)

    def evaluate(self: Validation, *_: Any) -> dict[str, float | None]:
        return {"eval_accuracy": 0.0, "eval_pairwise_accuracy": next(scores)}

    monkeypatch.setattr(Validation, "evaluate", evaluate)
    settings = Settings(
        engine="scripted", rollout_batch_size=4, max_rounds=4, eval_every=1, save_every=100, keep_checkpoints=1,
        tensorboard=False, frozen_games=0, output_dir=str(tmp_path / "run"),
    )  # fmt: skip
    return train(settings)


def test_the_best_round_is_kept_beside_the_newest(run: Path) -> None:
    assert [folder.name for folder in RunFolder(run).checkpoints()] == ["round_2", "round_4"]
    assert RunFolder(run).best_checkpoint() == run / "checkpoints" / "round_2"


def test_the_best_round_can_be_compared(run: Path) -> None:
    for name, folder in (("best", "round_2"), ("trained", "round_4")):
        (run / "checkpoints" / folder / "adapter_config.json").write_text("{}", encoding="utf-8")
        assert Path(resolve_systems(Settings(), [name], run)[name].adapter).name == folder


@pytest.mark.parametrize("start", [0.9, 0.95])
def test_the_start_is_the_best_where_no_round_did_better(
    start: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_with([start, *SCORES[1:]], tmp_path, monkeypatch)
    assert "no validated round did better" in caplog.text
    assert RunFolder(run).best_round() == 0
    assert RunFolder(run).best_checkpoint() is None
    assert [folder.name for folder in RunFolder(run).checkpoints()] == ["round_4"]
    caplog.clear()
    found = resolve_systems(Settings(), ["best", "warmup"], run)
    assert found["best"] == found["warmup"]
    assert f"no checkpoint of {run} did better" in caplog.text


def test_a_round_that_did_better_than_the_start_is_the_best(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert RunFolder(run).best_round() == 2
    assert "did better" not in caplog.text


def test_a_run_without_validation_has_no_best(tmp_path: Path) -> None:
    run = train(Settings(
        engine="scripted", rollout_batch_size=4, max_rounds=1, validation_data="none", tensorboard=False,
        output_dir=str(tmp_path / "run"),
    ))  # fmt: skip
    assert RunFolder(run).best_checkpoint() is None
    with pytest.raises(RunError, match="validation"):
        resolve_systems(Settings(), ["best"], run)
