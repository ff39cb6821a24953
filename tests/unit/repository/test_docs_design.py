"""docs/design.md against the tree: every file and name that it cites is there, and its layers are the tested ones."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.places import ROOT
from tests.unit.repository.test_layers import LAYERS

PAGE = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
STEPS = re.findall(r"^\| (\d+)\. [^|]+ \| ([^|]+) \| ([^|]+) \|$", PAGE, re.MULTILINE)


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", text)


def defined_in(path: Path) -> set[str]:
    """Names of the functions, methods, classes and constants of a file; a method's with its class before it too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    names |= {f"{each.name}.{node.name}" for each in classes for node in each.body if isinstance(node, ast.FunctionDef)}
    return names | {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def test_every_step_from_note_to_gradient_is_where_it_says() -> None:
    assert [int(number) for number, _, _ in STEPS] == list(range(1, len(STEPS) + 1)) and len(STEPS) >= 15
    for number, files, names in STEPS:
        defined = set().union(*(defined_in(ROOT / file) for file in quoted(files)))
        assert set(quoted(names)) <= defined, f"step {number}: {files} defines no {set(quoted(names)) - defined}"


def test_every_file_cited_is_there() -> None:
    cited = [name for name in quoted(PAGE) if re.fullmatch(r"(medserl|tests|docs)/[\w./]+", name)]
    assert len(cited) > 25
    assert [name for name in cited if not (ROOT / name).exists()] == []


def test_every_room_has_a_line() -> None:
    packages = PAGE.partition("## The packages")[2].partition("### ")[0]
    named = {
        name.rstrip("/").removesuffix(".py")
        for line in packages.splitlines()
        for name in quoted(line.split("|")[1] if "|" in line else "")
    }
    assert named >= {name for layer in LAYERS for name in layer}
    assert [name for name in named if not list((ROOT / "medserl").glob(f"{name}*"))] == []


def test_the_layers_are_those_that_the_test_draws() -> None:
    lines = re.findall(r"^\d+\. (`.+)$", PAGE, re.MULTILINE)
    assert [tuple(quoted(line)) for line in lines] == [tuple(layer) for layer in LAYERS]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("SHIPPED", "game/prompts/__init__.py"),
        ("load_prompts", "game/prompts/__init__.py"),
        ("AssessorReward", "game/rewards.py"),
        ("reading_reward", "game/referee.py"),
        ("Engine", "engines/base.py"),
    ],
)
def test_what_is_to_be_extended_is_there(name: str, file: str) -> None:
    assert name in quoted(PAGE) and name in defined_in(ROOT / "medserl" / file)


def test_no_module_cites_a_design_that_is_not_in_the_repository() -> None:
    folders = (ROOT / "medserl", ROOT / "src", ROOT / "scripts")
    texts = [(path, path.read_text(encoding="utf-8")) for folder in folders for path in folder.rglob("*.py")]
    assert [path for path, text in texts if re.search(r"\bDESIGN\b", text)] == []
    pages = {(path, page) for path, text in texts for page in re.findall(r"\bdocs/[\w-]+\.md", text)}
    assert len(pages) > 10
    assert [(path, page) for path, page in pages if not (ROOT / page).is_file()] == []
