"""docs/python.md: every block runs as it stands, one after the other in one folder."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.places import ROOT

PAGE = ROOT / "docs" / "python.md"
BLOCK = re.compile(r"(?:<!-- (\w+) -->\n)?```python\n(.*?)```", re.DOTALL)
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS: dict[str, list[tuple[int, str]]] = {}
for _found in BLOCK.finditer(TEXT):
    BLOCKS.setdefault(_found[1] or "plain", []).append((TEXT[: _found.start(2)].count("\n"), _found[2]))


def run(kind: str) -> int:
    """Runs the blocks of a kind, each by itself; a failure names the line of the page."""
    for lines, code in BLOCKS[kind]:
        exec(compile("\n" * lines + code, str(PAGE), "exec"), {"__name__": "__main__"})
    return len(BLOCKS[kind])


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_examples_run(tmp_path: Path) -> None:
    assert run("plain") >= 9
    assert (tmp_path / "outputs/mine/metrics.jsonl").is_file()


@pytest.mark.model
def test_the_example_of_the_embedded_model_runs() -> None:
    assert run("model") == 1


@pytest.mark.skipif(not find_spec("verifiers"), reason="verifiers is not installed: pip install 'medserl[verifiers]'")
def test_the_example_of_an_environment_runs() -> None:
    assert run("verifiers") == 1


def test_no_block_is_left_out() -> None:
    assert set(BLOCKS) == {"plain", "model", "verifiers"}
    assert sum(map(len, BLOCKS.values())) == TEXT.count("```python")
