"""What the local engine saves and loads: weights that are numbers, and the adapter of the run alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from medserl.config import Settings
from medserl.data.readers import read_notes
from medserl.data.sample_paths import sample_path
from medserl.engines import create_engine
from medserl.engines.local import LocalEngine
from medserl.engines.scripted import ScriptedEngine
from medserl.errors import RunError
from medserl.files import sha256_of
from medserl.runs.runlog import RunFolder
from medserl.trainer import MedSeRLTrainer
from tests.local_engine import engine_of, played, weighted

pytestmark = pytest.mark.usefixtures("one_thread")


def spoil(engine: LocalEngine, value: float) -> None:
    with torch.no_grad():
        engine._parameters[-1].view(-1)[0] = value


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("lora_rank", [0, 4])
def test_weights_that_are_no_numbers_stop_the_run_after_an_update(
    tiny_llama: Path, lora_rank: int, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(tiny_llama, lora_rank=lora_rank)
    turns = weighted(played(engine))
    step = torch.optim.AdamW.step

    def overflow(self: Any, *arguments: Any) -> Any:
        done = step(self, *arguments)
        spoil(engine, value)
        return done

    monkeypatch.setattr(torch.optim.AdamW, "step", overflow)
    with pytest.raises(RunError, match="the weights are not finite after this update") as caught:
        engine.update(turns, learning_rate=1e-3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_weights_that_are_no_numbers_are_not_loaded(tiny_llama: Path, tmp_path: Path, lora_rank: int) -> None:
    engine = engine_of(tiny_llama, lora_rank=lora_rank)
    spoil(engine, math.nan)
    engine.save(tmp_path)
    with pytest.raises(RunError, match=f"the weights are not finite in {tmp_path}"):
        engine_of(tiny_llama, lora_rank=lora_rank).load(tmp_path)


def test_a_run_keeps_the_checkpoint_from_before_they_were_spoilt(tmp_path: Path) -> None:
    class Overflowing(ScriptedEngine):
        def update(self, turns: Any, *, learning_rate: float) -> Any:
            self.bias = math.inf if self.updates == 1 else self.bias
            return super().update(turns, learning_rate=learning_rate)

    settings = Settings(
        engine="scripted", rollout_batch_size=4, max_rounds=3, save_every=1, tensorboard=False, frozen_games=0,
        output_dir=str(tmp_path / "run"),
    )  # fmt: skip
    run = RunFolder.create(settings)
    with pytest.raises(RunError, match="round 2: the weights are not finite"):
        MedSeRLTrainer(settings, Overflowing(), read_notes(sample_path("train")).notes[:16], run=run).train()
    run.close()
    assert [folder.name for folder in run.checkpoints()] == ["round_1"]


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"lora_rank": 8}, "does not fit the model of this run: .*size mismatch"),
        ({"lora_targets": "q_proj"}, "its adapter is not that of this run"),
        ({"lora_targets": "all-linear"}, "its adapter is not that of this run"),
        ({"lora_rank": 0}, "does not fit the model of this run"),
    ],
)
def test_weights_of_another_model_are_one_line(
    tiny_llama: Path, tmp_path: Path, saved: dict[str, Any], message: str
) -> None:
    options = {"model": str(tiny_llama), "adapter": "none", "device": "cpu", "dtype": "float32", "lora_rank": 4}
    settings = Settings(**options, rollout_batch_size=4, tensorboard=False, output_dir=str(tmp_path))
    notes = ["A man has a fever. His right lung is dull."] * 4  # what fits into the tiny model's context
    trainer = MedSeRLTrainer(settings, notes=notes, run=RunFolder.create(settings))
    trainer.engine = create_engine(settings.with_overrides(**saved))
    folder = trainer.save_checkpoint()
    assert folder is not None
    before = sha256_of(folder)
    trainer.engine = create_engine(settings)
    with pytest.raises(RunError, match=message) as caught:
        trainer.load_checkpoint()
    assert "\n" not in str(caught.value) and sha256_of(folder) == before
    assert trainer.run is not None
    trainer.run.close()
