"""A wheel, built and installed in a fresh environment: the default runs in any folder, without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import medserl
from tests.places import ROOT

NOTE = "A man has type 2 diabetes. He is treated with metformin. He feels well today."


def run(*command: str | Path, folder: Path) -> str:
    plain = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    plain["OMP_NUM_THREADS"] = "1"  # threads that wait for each other on a busy machine take minutes
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, env=plain, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: what a build leaves behind is not to lie in the checkout."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    source.mkdir()
    files = run("git", "ls-files", "-z", "medserl", "pyproject.toml", "README.md", "LICENSE", folder=ROOT)
    for name in filter(None, files.split("\0")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    quiet = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation")
    run(sys.executable, "-m", "pip", "wheel", *quiet, "--wheel-dir", place, source, folder=place)
    (built,) = place.glob("medserl-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """The `bin` of a fresh environment with the wheel alone; its dependencies are those of the tested environment."""
    home = wheel.parent / "environment"
    venv.create(home, with_pip=False)
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", home / "bin/python")
    run(*pip, "install", "--no-deps", "--no-index", wheel, folder=wheel.parent)
    packages = [path for path in sys.path if Path(path).name == "site-packages"]
    (site,) = home.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text("\n".join(packages) + "\n", encoding="utf-8")  # those .pth lead no further
    return home / "bin"


def test_the_wheel_is_whole(wheel: Path) -> None:
    assert wheel.name.startswith(f"medserl-{medserl.__version__}-")
    tracked = set(run("git", "ls-files", "medserl", folder=ROOT).split())
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if ".dist-info/" not in name} == tracked


def test_it_is_the_wheel_that_runs(installed: Path, tmp_path: Path) -> None:
    code = "import medserl; print(medserl.__file__)"
    assert run(installed / "python", "-c", code, folder=tmp_path).startswith(str(installed.parent))
    assert run(installed / "medserl", "--version", folder=tmp_path).strip() == medserl.__version__


def test_a_run_on_the_sample_and_its_report(installed: Path, tmp_path: Path) -> None:
    """The sample is built in the cache: it is no part of the wheel."""
    flags = ("--engine", "scripted", "--rollout-batch-size", "8", "--max-rounds", "1", "--output-dir", "mine")
    run("env", f"MEDSERL_CACHE={tmp_path / 'cache'}", installed / "medserl", "train", *flags, folder=tmp_path)
    run(installed / "medserl", "report", "mine", folder=tmp_path)
    assert "Invented patients" in (tmp_path / "mine/report.html").read_text(encoding="utf-8")


@pytest.mark.model
def test_the_default_model_plays_a_game(installed: Path, tmp_path: Path) -> None:
    """With the weights and the taught adapter that come without a checkout."""
    (tmp_path / "note.txt").write_text(NOTE, encoding="utf-8")
    shown = run(installed / "medserl", "play", "--note", "note.txt", folder=tmp_path)
    assert "attempt 1: VCF" in shown
