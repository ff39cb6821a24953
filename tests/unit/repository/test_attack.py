"""benchmarks/attack.py at a small size, and that it finds what it looks for."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest

from medserl.game.vcf import Reason, VCFResult
from tests.places import ROOT

SCRIPT = ROOT / "benchmarks" / "attack.py"


@pytest.fixture
def attack() -> ModuleType:
    spec = importlib.util.spec_from_file_location("attack", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["attack"] = module
    spec.loader.exec_module(module)
    return module


def test_a_small_attack_is_held_off(attack: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert attack.main(["--pairs", "1500", "--completions", "1500", "--seed", "7"]) == 0
    printed = capsys.readouterr().out
    assert "1,500 pairs through the VCF" in printed and "1,500 completions through the parsers" in printed
    assert printed.count(": 0 failed") == 2
    for outcome in ("passed", "no_change", "too_many_edits", "several_sentences", "INCORRECT", "injection"):
        assert outcome in printed


def raises(original: str, modified: str) -> VCFResult:
    raise ValueError("a bug")


def wrong(original: str, modified: str) -> VCFResult:
    return VCFResult(False, Reason.TOO_MANY_EDITS, 0.5, 999)


@pytest.mark.parametrize(("broken", "named"), [(raises, "ValueError"), (wrong, "wrong distance")])
def test_it_counts_what_fails(
    attack: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], broken: object, named: str
) -> None:
    monkeypatch.setattr(attack, "apply_vcf", broken)
    assert attack.main(["--pairs", "40", "--completions", "1"]) == 1
    assert f"FAILED: {named}" in capsys.readouterr().out
