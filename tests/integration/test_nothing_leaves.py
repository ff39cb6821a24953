"""Notes are sensitive: no command looks an address up or connects to one, and every library's reports are off."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from medserl.privacy import SWITCHES

COMMANDS = """
import socket, sys, json
from pathlib import Path

tried = []

def refused(self, address, *rest):
    if self.family != getattr(socket, "AF_UNIX", None):
        tried.append(f"connect {address}")
        raise OSError("no network in this test")
    return connect(self, address, *rest)

def unknown(host, *rest, **named):
    tried.append(f"look up {host}")
    raise socket.gaierror("no network in this test")

connect = socket.socket.connect
socket.socket.connect = socket.socket.connect_ex = refused
socket.getaddrinfo = socket.gethostbyname = unknown

import warnings
warnings.simplefilter("ignore")
from medserl.cli import main

for command in json.loads(sys.argv[1]):
    before = len(tried)
    main(command)
    for attempt in tried[before:]:
        print("ATTEMPT", command[0], attempt)
import huggingface_hub.constants
import threading
for thread in threading.enumerate():
    if thread is not threading.main_thread() and not thread.daemon:
        thread.join()
print("telemetry off:", huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY)
print("attempts:", tried)
"""


@pytest.fixture(scope="module")
def roomy_llama(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with room for the prompts."""
    folder = tmp_path_factory.mktemp("models") / "roomy"
    shutil.copytree(tiny_llama, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 8192}), encoding="utf-8")
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    tokenizer["model_max_length"] = 8192
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return folder


def test_no_command_tries_to_reach_anything(roomy_llama: Path, tmp_path: Path) -> None:
    """A model in a folder, notes in a file; the hub is not switched off, so what would ask it asks."""
    rows = [
        {
            "note_id": str(i),
            "correct_note": f"He has fever for {i} days. He takes aspirin.",
            "incorrect_note": f"He has fever for {i} days. He takes warfarin.",
        }
        for i in range(8)
    ]
    notes = tmp_path / "notes.jsonl"
    notes.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    model = ["--model", str(roomy_llama), "--device", "cpu", "--prompts", "term"]
    read = [*model, "--prompt-data", str(notes), "--validation-data", str(notes)]
    short = ["--max-new-tokens-injector", "4", "--max-new-tokens-assessor", "4", "--vcf-max-attempts", "1"]
    run, adapter = str(tmp_path / "run"), str(tmp_path / "adapter")
    commands = [
        ["sft", *read, *short, "--steps", "1", "--batch-size", "2", "--measure", "2", "--output", adapter],
        ["train", *read, *short, "--adapter", adapter, "--max-rounds", "1", "--rollout-batch-size", "2",
         "--eval-notes", "2", "--frozen-games", "2", "--output-dir", run],
        ["train", "--resume", run, "--max-rounds", "2"],
        ["evaluate", "--run", run, "--data", str(notes), "--limit", "2"],
        ["predict", str(notes), "--run", run, "--output", "found.csv", "--html", "found.html"],
        ["play", *model, *short, "--adapter", adapter],
        ["report", run],
        ["export", run, str(tmp_path / "shared")],
        ["export", run, str(tmp_path / "whole"), "--merged"],
    ]  # fmt: skip
    environment = {key: value for key, value in os.environ.items() if key not in ("HF_HUB_OFFLINE", "CI", *SWITCHES)}
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(commands)],
        capture_output=True, text=True, timeout=600, check=False, cwd=tmp_path,
        env={**environment, "HF_HUB_DISABLE_TELEMETRY": "0", "HF_HOME": str(tmp_path / "hf")},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-2:] == ["telemetry off: True", "attempts: []"], done.stdout
    # what libraries would say beside our own lines
    told = [line for line in done.stderr.splitlines() if not line.startswith(("info: ", "warning: "))]
    assert told == []


@pytest.mark.parametrize(
    "given", [{}, dict.fromkeys(SWITCHES, ""), {"HF_HUB_DISABLE_TELEMETRY": "0", "DO_NOT_TRACK": "0"}]
)
def test_reports_are_off_for_whoever_imports_medserl(given: dict[str, str]) -> None:
    """Also where the hub's library was imported before, and for processes that are started later."""
    code = (
        "import huggingface_hub.constants as hub\nimport medserl, os, subprocess, sys\n"
        "print(hub.HF_HUB_DISABLE_TELEMETRY, *[os.environ[name] for name in sys.argv[1:]])"
    )
    environment = {key: value for key, value in os.environ.items() if key not in SWITCHES}
    done = subprocess.run(
        [sys.executable, "-c", code, *SWITCHES],
        capture_output=True, text=True, timeout=60, check=True, env={**environment, **given},
    )  # fmt: skip
    assert done.stdout.split() == ["True", *SWITCHES.values()]
