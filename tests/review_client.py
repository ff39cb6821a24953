"""The JSON API of a review, served to a client of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from medserl.config import Settings
from medserl.serve.app import Desk, create_app
from medserl.serve.backlog import Backlog
from medserl.serve.decisions import DecisionFile
from medserl.serve.guard import Access
from medserl.serve.inputs import items_in
from medserl.serve.model import Model
from medserl.serve.review import Item, Review
from tests.reviewing import ScriptedJudge, finding_of, text_of

HERE = "http://127.0.0.1:8765"
PATHS = ("/api/findings", "/api/judge", "/api/open", "/api/decisions", "/api/play")
READ, WRITE = PATHS[0], PATHS[1:]


@contextmanager
def serving(
    folder: Path, access: Access | None = None, model: Model | None = None, unjudged: int = 0
) -> Iterator[TestClient]:
    decisions = DecisionFile.open(folder / "d.jsonl")
    judged = [Item(f"note {n}", text_of(n), finding_of(n), 0.5) for n in range(3)]
    new = [Item(f"new {n}", text_of(n)) for n in range(unjudged)]
    model = model or Model(ScriptedJudge())
    review = Review([*judged, *new], decisions)
    read = partial(items_in, settings=Settings(engine="scripted"))
    desk = Desk(review, model, Backlog(review, model, new), "d.jsonl", read)
    app = create_app(desk, access or Access.of("127.0.0.1"))
    with TestClient(app, base_url=HERE, raise_server_exceptions=False) as client:
        yield client
    model.close()
    decisions.close()


def one_line(response: Any, status: int) -> str:
    """The error of a refusal, which is one line of JSON and nothing else."""
    assert response.status_code == status, response.text
    body = response.json()
    assert list(body) == ["error"]
    assert "\n" not in body["error"]
    return body["error"]
