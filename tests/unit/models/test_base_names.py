"""A base model's public name is true, and no path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.models import public_name
from medserl.models.base_names import base_name, folder_licence
from medserl.models.embedded import EMBEDDED, EMBEDDED_HUB

LETTERS = st.characters(exclude_characters="\x00", exclude_categories=("Cs",))


def model_in(folder: Path, card: str = "", **config: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if card:
        (folder / "README.md").write_text(card, encoding="utf-8")
    return folder


def test_the_embedded_default_is_called_as_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDSERL_CACHE", str(tmp_path))
    kept = model_in(tmp_path / "models" / EMBEDDED)
    assert public_name(EMBEDDED) == public_name(str(kept)) == EMBEDDED_HUB
    assert public_name(str(model_in(tmp_path / "elsewhere" / EMBEDDED))) == EMBEDDED


def test_a_name_of_the_hub_stays() -> None:
    assert [public_name(name) for name in ("Qwen/Qwen3-4B", "gpt2")] == ["Qwen/Qwen3-4B", "gpt2"]


def test_a_folder_of_the_hubs_cache_has_the_hubs_name(tmp_path: Path) -> None:
    folder = model_in(tmp_path / "hub" / "models--Qwen--Qwen3-0.6B" / "snapshots" / "0123abc")
    assert base_name(str(folder)) == "Qwen/Qwen3-0.6B"
    assert base_name(str(model_in(folder / "finetuned"))) == "finetuned"


@pytest.mark.parametrize(
    ("name", "card", "config", "expected"),
    [
        ("mine", "", {}, "mine"),
        ("mine", "---\nmodel_name: acme/clinical\n---\n", {}, "acme/clinical"),
        ("mine", "---\nmodel_name: clinical\n---\n", {}, "mine"),
        ("mine", "---\nbase_model: acme/other\n---\n", {}, "mine"),
        ("mine", "---\n: : {\n---\n", {}, "mine"),
        ("mine", "---\n- a\n---\n", {}, "mine"),
        ("Qwen3-4B", "", {"_name_or_path": "Qwen/Qwen3-4B"}, "Qwen/Qwen3-4B"),
        ("zephyr", "", {"_name_or_path": "mistralai/Mistral-7B-v0.1"}, "zephyr"),  # what it was tuned from
        ("mine", "", {"_name_or_path": "/home/somebody/mine"}, "mine"),
        ("mine", "", {"_name_or_path": 3}, "mine"),
    ],
)
def test_a_folder_is_called_as_its_files_truly_say(
    tmp_path: Path, name: str, card: str, config: dict[str, object], expected: str
) -> None:
    assert base_name(str(model_in(tmp_path / name, card, **config))) == expected


@given(st.lists(st.text(LETTERS, min_size=1, max_size=12), min_size=1, max_size=5))
def test_no_name_holds_a_path(parts: list[str]) -> None:
    for path in ("/" + "/".join(parts), "C:\\" + "\\".join(parts), "../" + "/".join(parts)):
        name = base_name(path)
        assert name
        assert not {"/", "\\"} & set(name)


def test_the_licence_is_that_of_the_card(tmp_path: Path) -> None:
    assert folder_licence(model_in(tmp_path / "a", "---\nlicense: mit\n---\n")) == "mit"
    assert folder_licence(model_in(tmp_path / "b", "license: mit")) is None
    assert folder_licence(model_in(tmp_path / "c")) is None
