"""The scripts of `benchmarks/learning`, and a run of their arms with the scripted engine.

A scripted policy cannot be judged from its checkpoint, so `trained` stands for the same player as `warmup` here.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.places import ROOT

sys.path.append(str(ROOT / "benchmarks" / "learning"))  # where its scripts find each other
QUICK = ("engine=scripted", "max_rounds=3", "rollout_batch_size=8", "eval_every=2", "eval_notes=4", "frozen_games=8")


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"learning_{name}", ROOT / "benchmarks" / "learning" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def run(
    folder: Path,
    *arms: str,
    seeds: tuple[str, ...] = ("0",),
    extra: tuple[str, ...] = (),
    arguments: tuple[str, ...] = (),
) -> list[str]:
    """Runs the arms; returns the commands of `medserl` and the controls that it took."""
    module, commands = script("run"), []
    real, control = module.medserl, module.play_control

    def medserl(command: str, *arguments: Any) -> Any:
        commands.append(command)
        if command == "evaluate" and "--run" in arguments:
            *_, data, _, target = arguments
            code = real("evaluate", "--engine", "scripted", "--compare", "warmup", "--data", data, "--output", target)
            shutil.copy(target / "warmup.predictions.jsonl", target / "trained.predictions.jsonl")
            return code
        return real(command, *arguments)

    def play_control(name: str, *places: Any) -> Any:
        commands.append(f"controls {name}")
        return control(name, *places)

    module.medserl, module.play_control = medserl, play_control
    places = ["--outputs", str(folder / "outputs"), "--results", str(folder / "results")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            sys, "argv", ["run.py", "--arms", *arms, "--seeds", *seeds, *places, *arguments, "--set", *QUICK, *extra]
        )
        module.main()
    return commands
