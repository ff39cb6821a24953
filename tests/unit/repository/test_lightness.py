"""Importing the rules, the settings or the command line must cost nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "ray", "vllm", "pandas", "scipy", "sklearn", "starlette", "uvicorn")


@pytest.mark.parametrize("module", ["medserl.game", "medserl.config", "medserl.cli"])
def test_a_fresh_import_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.split()
    assert "medserl" in loaded
    assert not set(HEAVY) & set(loaded)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom medserl.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        f"print('heavy:', *[name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout
    assert done.stdout.splitlines()[-1].strip() == "heavy:"
