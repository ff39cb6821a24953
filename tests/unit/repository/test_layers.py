"""Who may import whom: the arrows between the packages of `medserl` point one way, without exception."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import medserl

PACKAGE = Path(medserl.__file__).parent

LAYERS = (
    ("errors", "privacy"),
    ("game",),
    ("config", "files", "display"),
    ("knowledge", "models", "reinforce_pp"),
    ("data", "engines", "runs"),
    ("rollout",),
    ("rounds",),
    ("evaluation",),
    ("reports",),
    ("prediction", "sharing", "start", "environment"),
    ("serve", "sft", "trainer"),
    ("commands",),
    ("pipeline",),
    ("cli",),
)
"""From the ground up: each package or module imports only what stands on a lower line."""

NARROW = {
    "errors": set(),
    "privacy": set(),
    "game": {"errors"},
    "config": {"errors", "game"},
    "files": {"errors"},
    "display": {"game"},
    "knowledge": {"errors", "game"},
    "models": {"config", "errors", "files", "game"},
    "reinforce_pp": {"config"},
    "data": {"config", "display", "errors", "files", "game", "knowledge"},
    "rollout": {"config", "engines", "game", "knowledge"},
}
"""Who knows less than stands below: the rules know no medicine, the model's folder knows no notes, and so on."""


def modules() -> Iterator[Path]:
    return PACKAGE.rglob("*.py")


def package(module: str) -> str:
    """The package, or module at the top, that `medserl.a.b` belongs to; nothing for `medserl` itself."""
    return module.split(".")[1] if "." in module else ""


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module of ours that is imported anywhere in a file, in functions and for type checkers too.

    `from medserl import __version__` is none: of the package itself only that name is taken.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "medserl")
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            if node.module == "medserl":
                yield from (f"medserl.{alias.name}" for alias in node.names if alias.name != "__version__")
            elif node.module and node.module.startswith("medserl."):
                yield node.module


def arrows() -> dict[str, set[str]]:
    """The packages that each of them imports from, itself left out."""
    found: dict[str, set[str]] = {}
    for path in modules():
        mine = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if mine == "__init__":  # names are loaded from everywhere when they are first used
            continue
        there = {package(name) for name in imported(ast.parse(path.read_text(encoding="utf-8")))}
        found.setdefault(mine, set()).update(there - {mine})
    return found


def test_every_room_has_its_place() -> None:
    assert sorted(arrows()) == sorted(name for layer in LAYERS for name in layer)


@pytest.mark.parametrize("package", [name for layer in LAYERS for name in layer])
def test_imports_point_down(package: str) -> None:
    level = next(i for i, layer in enumerate(LAYERS) if package in layer)
    below = {name for layer in LAYERS[:level] for name in layer}
    assert arrows()[package] <= NARROW.get(package, below) <= below


def test_no_arrow_runs_back() -> None:
    assert list(TopologicalSorter(arrows()).static_order())


def test_an_arrow_back_would_be_seen() -> None:
    code = "def late():\n    from medserl.trainer import MedSeRLTrainer\n    import medserl.data.medec\n"
    assert {package(name) for name in imported(ast.parse(code))} == {"trainer", "data"}
