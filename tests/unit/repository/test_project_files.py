"""What stands beside the code: one version, a citation, issue forms, and no address that the project does not have."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

import medserl
from medserl.sharing.card import CITATION
from tests.places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CITED = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def test_the_version_stands_in_one_place() -> None:
    assert "version" not in PROJECT["project"] and PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "medserl.__version__"}
    assert CITED["version"] == medserl.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert changelog.partition("\n## ")[2].startswith(medserl.__version__)


def test_the_citation_is_the_cards() -> None:
    assert CITED["cff-version"] == "1.2.0" and CITED["message"] and CITED["authors"]
    assert f"title = {{{CITED['title']}}}" in CITATION
    assert CITED["license"] == PROJECT["project"]["license"]
    for reference in CITED["references"]:
        assert reference["title"] and reference["authors"]


def test_no_invented_address_is_anywhere() -> None:
    """The project has no public home: an address of one would be somebody else's some day."""
    invented = "github.com/" + "medserl"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    texts = [ROOT / name for name in tracked.split("\0") if name and not name.endswith((".xz", ".png", ".safetensors"))]
    assert len(texts) > 300
    assert [path for path in texts if path.is_file() and invented in path.read_text("utf-8", "replace").lower()] == []
    assert "urls" not in PROJECT["project"]


@pytest.mark.parametrize("form", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml")), ids=lambda p: p.stem)
def test_issue_forms_ask_for_no_patients_note(form: Path) -> None:
    found = yaml.safe_load(form.read_text(encoding="utf-8"))
    assert found["name"] and found["description"]
    assert "**Paste no patient's note**" in found["body"][0]["attributes"]["value"].replace(".**", "**")
    asked = [part["id"] for part in found["body"][1:]]
    assert asked and len(asked) == len(set(asked))
