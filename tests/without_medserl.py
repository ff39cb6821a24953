"""A model asked by the Python of its card, in a process without MedSeRL, and what MedSeRL says to the same."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from medserl.config import Settings
from medserl.engines import create_engine
from medserl.engines.base import Sampling
from medserl.game.prompts import load_prompts
from medserl.sharing.examples import HERE

SENTENCES = ["He has a fever.", "He takes aspirin."]
NOTE = " ".join(SENTENCES)

ASK_AS_THE_CARD_SAYS = """
import json, re, sys, warnings
warnings.simplefilter("ignore")
told = []
for folder, changes in json.loads(sys.argv[1]):
    card = open(f"{folder}/README.md", encoding="utf-8").read()
    code = re.search(r"### transformers.*?```python\\n(.*?)\\n```", card, re.S)[1]
    for old, new in changes:
        code, count = re.subn(old, lambda _: new, code, flags=re.S)
        assert count, old
    names = {"print": lambda *_: None}
    exec(code, names)
    length = names["inputs"]["input_ids"].shape[1]
    told.append([names["text"], names["output"][0, length:].tolist(), names["answer"]])
assert not any(name.partition(".")[0] == "medserl" for name in sys.modules)
print(json.dumps(told))
"""


def hub_cache(folder: Path, name: str, model: Path) -> Path:
    """A cache of the hub's in which the model lies under its name; returns where."""
    snapshot = folder / f"models--{name.replace('/', '--')}" / "snapshots" / ("0" * 40)
    snapshot.parent.mkdir(parents=True)
    shutil.copytree(model, snapshot)
    refs = snapshot.parent.parent / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40, encoding="utf-8")
    return snapshot


def ask_without_medserl(cache: Path, *asked: tuple[Path, list[tuple[str, str]]]) -> list[tuple[str, list[int], str]]:
    """Prompt, tokens and text that the Python of each folder's card gives, with some of it replaced."""
    shown = (r"sentences = \[.*?\n\]", f"sentences = {SENTENCES}")
    cases = [[str(folder), [(re.escape(repr(HERE)), repr(str(folder))), shown, *more]] for folder, more in asked]
    done = subprocess.run(
        [sys.executable, "-c", ASK_AS_THE_CARD_SAYS, json.dumps(cases)],
        capture_output=True, text=True, timeout=900, check=False, cwd=cache,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [tuple(each) for each in json.loads(done.stdout.splitlines()[-1])]


def said_by_medserl(settings: Settings, room: int) -> tuple[str, list[int], str]:
    engine: Any = create_engine(settings, trainable=False)
    messages = load_prompts(settings.prompts, settings.injector_format).assessor(NOTE, sentences=SENTENCES)
    completion = engine.generate([messages], Sampling(room, temperature=0))[0]
    return engine.chat.text(messages), list(completion.token_ids), completion.text
