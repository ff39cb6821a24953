"""The guard: a gap that rounding explains passes, a larger one stops the run in one line."""

from __future__ import annotations

from typing import Any

import pytest

from medserl.engines.base import UpdateStats
from medserl.engines.gap import EXPLAINED, explained_gap, require_same_policy
from medserl.engines.scripted import ScriptedEngine
from medserl.errors import RunError
from medserl.trainer import MedSeRLTrainer


def stats(rms: float, explained: float | None) -> UpdateStats:
    return UpdateStats(
        loss=0.0, grad_norm=1.0, clip_fraction=0.0, entropy=1.0, logprob_gap=rms / 2, optimizer_steps=1, tokens=10,
        logprob_gap_rms=rms, logprob_gap_max=3 * rms, gap_explained=explained,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", EXPLAINED)
@pytest.mark.parametrize("another", [False, True])
def test_a_gap_passes_up_to_what_the_type_explains(dtype: str, another: bool) -> None:
    explained = explained_gap(dtype, another_program=another)
    assert explained == EXPLAINED[dtype] * (2 if another else 1)
    require_same_policy(stats(explained, explained))
    with pytest.raises(RunError, match=r"other log-probabilities .* no gradient_checkpointing") as caught:
        require_same_policy(stats(1.01 * explained, explained))
    assert "\n" not in str(caught.value)


def test_a_gap_that_is_no_number_does_not_pass() -> None:
    with pytest.raises(RunError):
        require_same_policy(stats(float("nan"), 0.01))


def test_older_weights_may_play() -> None:
    with pytest.raises(RunError):
        require_same_policy(stats(5.0, 0.01))
    require_same_policy(stats(5.0, None))  # the same gap, where what played is known to be older


def test_the_loop_stops_and_names_the_round(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = ScriptedEngine()
    monkeypatch.setattr(engine, "update", lambda *_, **__: stats(0.9, 0.01))
    trainer: Any = MedSeRLTrainer(engine=engine)
    trainer.round = 3
    with pytest.raises(RunError, match=r"^round 3: when it learns.*0\.9 apart .* at most 2\.7"):
        trainer._update([])
