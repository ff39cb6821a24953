"""Any one file of a run folder is damaged: resuming and the report work, or end in one line that names the file."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from medserl.cli import main
from medserl.data.sample_paths import sample_path
from medserl.runs.runlog import METRICS, read_rows
from tests.synthetic_run import write_evaluation

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="open files cannot be deleted there")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rounds with two checkpoints, a frozen opponent, events, an evaluation and a report."""
    folder = tmp_path_factory.mktemp("damage")
    for split, count in (("train", 8), ("validation", 2)):
        lines = sample_path(split).read_text(encoding="utf-8").splitlines(keepends=True)[:count]  # type: ignore[arg-type]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    path = folder / "run"
    main([
        "train", "--engine", "scripted", "--prompt-data", str(folder / "train.jsonl"), "--validation-data",
        str(folder / "validation.jsonl"), "--rollout-batch-size", "2", "--max-rounds", "2", "--save-every", "1",
        "--eval-notes", "2", "--frozen-games", "2", "--output-dir", str(path),
    ])  # fmt: skip
    write_evaluation(path / "eval")
    main(["report", str(path)])
    return path


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garble(path: Path) -> None:
    """A byte of ten becomes another, none of them in ASCII."""
    path.write_bytes(bytes(byte ^ 0xA5 if i % 10 == 3 else byte for i, byte in enumerate(path.read_bytes())))


def nest(path: Path) -> None:
    path.write_bytes(b"[" * 100_000)


def make_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


DAMAGES: list[Callable[[Path], None]] = [truncate, empty, garble, nest, Path.unlink, make_a_folder, loop]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_each_file_in_turn(
    run: Path, tmp_path: Path, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    names = sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())
    assert len(names) > 15
    resumed = 0
    for number, name in enumerate(names):
        copy = Path(shutil.copytree(run, tmp_path / str(number)))
        damage(copy / name)
        for arguments in (["report", str(copy)], ["train", "--resume", str(copy), "--max-rounds", "3"]):
            capsys.readouterr()
            if _runs(arguments):
                resumed += arguments[0] == "train" and read_rows(copy / METRICS)[-1]["round"] == 3
                continue
            *before, last = capsys.readouterr().err.splitlines()
            assert last.startswith("error: ") and not any(line.startswith("error: ") for line in before), (name, last)
            assert Path(name).name in last or name.startswith((".lock", "eval")), (name, last)
        shutil.rmtree(copy)
    assert resumed > len(names) // 2


def _runs(arguments: list[str]) -> bool:
    """Whether the command does what it is for; if not, it ends with exit code 2, and with nothing else."""
    try:
        main(arguments)
    except SystemExit as ended:
        if ended.code != 2:
            raise
        return False
    return True
