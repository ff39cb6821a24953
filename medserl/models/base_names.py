"""What a base model is called where others read it: in an adapter's configuration, in a card. Never a path.

A folder is called as the hub calls it only where that is known to be true. `_name_or_path` in a config.json names what
a model was made from as often as what it is, so it counts where the folder's own name says the same.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path, PureWindowsPath
from typing import Any

UNNAMED = "base-model"
"""For a folder that has no name of its own, such as the root."""

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_HUB_CACHE = re.compile(r"models--([\w.-]+?)--([\w.-]+)", re.ASCII)


def base_name(model: str) -> str:
    """The public name of a model that is given as a folder or as the hub's `owner/name`."""
    if Path(model).is_dir():
        return folder_name(Path(model))
    return model if is_hub_name(model) else last_part(model) or UNNAMED


def is_hub_name(text: object) -> bool:
    """Whether it has the form `owner/name`."""
    return isinstance(text, str) and _HUB_NAME.fullmatch(text) is not None and not text.startswith((".", "~", "-"))


def last_part(path: str) -> str:
    """The name at the end of a path, of whichever system; empty where there is none."""
    return PureWindowsPath(path).name if path not in (".", "..") else Path(path).resolve().name


def folder_name(folder: Path) -> str:
    """The public name of the model in a local folder: what the hub's cache, its card or its config.json tell of it,
    else the folder's own name."""
    place = folder.resolve()
    cached = _HUB_CACHE.fullmatch(place.parent.parent.name)
    if cached and place.parent.name == "snapshots":
        return f"{cached[1]}/{cached[2]}"
    own = place.name or UNNAMED
    declared = card_metadata(folder).get("model_name")
    if is_hub_name(declared):
        return str(declared)
    made_from = hub_name_in_config(folder)
    return made_from if made_from and made_from.partition("/")[2].casefold() == own.casefold() else own


def hub_name_in_config(folder: Path) -> str | None:
    """The hub name that a folder's config.json gives as what the model was loaded from."""
    with suppress(OSError, ValueError, AttributeError, RecursionError):
        name = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("_name_or_path")
        return name if is_hub_name(name) else None
    return None


def folder_licence(folder: Path) -> str | None:
    """The licence that the card in a model's folder names."""
    licence = card_metadata(folder).get("license")
    return licence if isinstance(licence, str) and licence else None


def card_metadata(folder: Path) -> dict[str, Any]:
    """The metadata block of the README.md in a folder; empty where there is none that can be read."""
    from huggingface_hub import ModelCard
    from yaml import YAMLError

    with suppress(OSError, ValueError, TypeError, YAMLError):
        text = (folder / "README.md").read_text(encoding="utf-8")
        return dict(ModelCard(text).data.to_dict()) if text.startswith("---") else {}
    return {}
