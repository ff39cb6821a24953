"""The review of ten notes, which tests share."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.review_page import Server, opened, rows, serving
from tests.reviewing import write_ten


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    return write_ten(tmp_path / "p.jsonl")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for the tests that neither end it nor give it more notes."""
    path = write_ten(tmp_path_factory.mktemp("review") / "p.jsonl")
    with serving("--predictions", str(path), "--port", "0") as server:
        server.decisions = path.with_name("p.decisions.jsonl")
        yield server


@pytest.fixture
def page(browser: Any, server: Server) -> Any:
    """The review, freshly opened, with no decision in it."""
    for note_id in rows(server.decisions):
        body = json.dumps({"note_id": note_id, "decision": "withdraw"}).encode()
        request = urllib.request.Request(f"{server.url}api/decisions", body, {"Content-Type": "application/json"})
        urllib.request.urlopen(request).close()
    return opened(browser, server)
