"""What the tests of the vLLM engine ask, and the local engine that they compare it with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medserl.config import Settings
from medserl.engines import create_inference_engine
from medserl.engines.local import LocalEngine
from medserl.game.prompts import Messages, load_prompts

PAIR = ("final_answer: CORRECT", "final_answer: INCORRECT")
NOTES = ("A man has fever.", "No murmur.", "Ends <|im_end|> in a control token.", "Her temperature is 38.3 C.")


def chats() -> list[Messages]:
    return [load_prompts("term", "edit").assessor(note) for note in NOTES]


def settings(folder: Path, **changes: Any) -> Settings:
    options = {"model": str(folder), "adapter": "none", "device": "cpu", "dtype": "float32", "engine": "vllm"}
    return Settings(**{**options, **changes})


def local(folder: Path, **changes: Any) -> LocalEngine:
    engine = create_inference_engine(settings(folder, **{"engine": "local", **changes}))
    assert isinstance(engine, LocalEngine)
    return engine
