"""The page and its JSON API as a Starlette application; `guard` stands before it.

    GET  /api/findings                the list, the most suspicious first; with ?note_id=ID all about one note
    POST /api/judge                   {"notes": [{"text": ..., "note_id": ...}]}
    POST /api/open                    {"name": "notes.xlsx", "content": base64}: notes, or what `medserl predict` wrote
    POST /api/decisions               {"note_id": ..., "decision": "accept", ...}: accept, reject, comment or withdraw
    POST /api/play                    {"note_id": ..., "mode": "error", "error_type": ...}, or "text" for "note_id"

Whatever goes wrong is `{"error": "one line"}`: 404 for a note that is not there, 422 for what cannot be used, a note
that is too long or a model that fails among it, 503 where too many requests wait for the model.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from medserl import __version__
from medserl.display.game import who_won
from medserl.errors import DataError, MedSeRLError
from medserl.game.note import ERROR_TYPES, ErrorType
from medserl.game.roles import Mode
from medserl.reports.games import game_shown
from medserl.reports.html import package_text
from medserl.serve.backlog import Backlog
from medserl.serve.guard import Access, Guard
from medserl.serve.inputs import OPENED
from medserl.serve.model import Busy, Model
from medserl.serve.review import MOST_COMMENT, Action, Item, Review

MOST_NOTES = 64
"""Notes of one request."""
_CSS, _JS = "text/css; charset=utf-8", "text/javascript; charset=utf-8"
_FILES = {"/base.css": _CSS, "/page.css": _CSS, "/game.js": _JS, "/ask.js": _JS, "/more.js": _JS, "/page.js": _JS}
"""What the page loads; `base.css` and `game.js` are those of reports."""
_OF_REPORTS = ("base.css", "game.js")

Id = Annotated[str, StringConstraints(min_length=1)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


B = TypeVar("B", bound=_Body)


class _GivenNote(_Body):
    text: str
    note_id: Id | None = None


class _Judge(_Body):
    notes: Annotated[list[_GivenNote], Field(min_length=1, max_length=MOST_NOTES)]


class _Decide(_Body):
    note_id: Id
    decision: Action
    comment: str | None = None
    sentence: int | None = None
    correction: str | None = None
    error_type: ErrorType | None = None


class _Play(_Body):
    note_id: Id | None = None
    text: str | None = None
    mode: Mode = "error"
    error_type: ErrorType | None = None


class _Open(_Body):
    name: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    content: str

    def decoded(self) -> bytes:
        """Raises DataError where the content is no base64."""
        try:
            return base64.b64decode(self.content, validate=True)
        except ValueError:
            raise DataError("content: give the file as base64") from None


@dataclass
class Desk:
    """What the requests work on. `read` gives the notes of a file by its name and content, with what was found."""

    review: Review
    model: Model
    backlog: Backlog
    decisions: str
    read: Callable[[str, bytes], list[Item]]

    # -- the page -----------------------------------------------------------------------------------------------

    async def page(self, _: Request) -> Response:
        return HTMLResponse(_page())

    async def file(self, request: Request) -> Response:
        """One of the page's files, by its route: no path of a request is ever looked up on the disk."""
        name = request.scope["path"]
        return Response(_text(name.removeprefix("/")), media_type=_FILES[name])

    # -- the API ------------------------------------------------------------------------------------------------

    async def findings(self, request: Request) -> Response:
        note_id = request.query_params.get("note_id")
        if note_id is not None:
            if note_id not in self.review:
                raise HTTPException(404, f"no note {note_id[:80]!r} here")
            return JSONResponse(self.review.detail(note_id))
        return JSONResponse(
            {
                "findings": self.review.listing(),
                "threshold": self.review.threshold,
                "decisions_file": self.decisions,
                "left_to_judge": self.backlog.left,
                "trouble": self.backlog.trouble,
            }
        )

    async def judge(self, request: Request) -> Response:
        body = await _read(request, _Judge)
        items = [self.review.checked(note.note_id, note.text) for note in body.notes]
        judged, threshold = await self.model.judge(items)
        self.review.add(judged, threshold)
        return JSONResponse({"findings": [self.review.detail(item.note_id) for item in judged]})

    async def open(self, request: Request) -> Response:
        body = await _read(request, _Open)
        items = await run_in_threadpool(self.read, body.name, body.decoded())
        self.review.add(items)
        unjudged = self.review.unjudged(items)
        self.backlog.start(unjudged)
        return JSONResponse({"note_ids": [item.note_id for item in items], "to_judge": len(unjudged)})

    async def decide(self, request: Request) -> Response:
        body = await _read(request, _Decide)
        if body.note_id not in self.review:
            raise HTTPException(404, f"no note {body.note_id[:80]!r} here")
        sentence, correction = self.review.suggestion(body.note_id)
        if "sentence" in body.model_fields_set:
            correction = correction if body.sentence == sentence else None
            sentence = body.sentence
        if "correction" in body.model_fields_set:
            correction = body.correction
        decided = await run_in_threadpool(
            self.review.decide,
            body.note_id,
            body.decision,
            comment=body.comment,
            sentence=sentence,
            correction=correction,
            error_type=body.error_type,
        )
        return JSONResponse(decided)

    async def play(self, request: Request) -> Response:
        body = await _read(request, _Play)
        if (body.note_id is None) == (body.text is None):
            raise DataError("give either note_id or text")
        if body.note_id is not None and body.note_id not in self.review:
            raise HTTPException(404, f"no note {body.note_id[:80]!r} here")
        item = self.review.item(body.note_id) if body.note_id else self.review.checked(None, body.text or "")
        episode = await self.model.play(item, body.mode, body.error_type)
        return JSONResponse({"game": game_shown(episode.record(0)), "outcome": who_won(episode)})


async def _read(request: Request, kind: type[B]) -> B:
    """The body of a request. Raises DataError, one line, where it is not as it should be."""
    try:
        return kind.model_validate_json(await request.body())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{name}: {first['msg']}" if name else first["msg"]) from None


def create_app(desk: Desk, access: Access) -> ASGIApp:
    """The application, guarded."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        desk.backlog.start()
        yield
        await desk.backlog.stop()

    routes = [
        Route("/", desk.page),
        *(Route(name, desk.file) for name in _FILES),
        Route("/api/findings", desk.findings),
        Route("/api/judge", desk.judge, methods=["POST"]),
        Route("/api/open", desk.open, methods=["POST"]),
        Route("/api/decisions", desk.decide, methods=["POST"]),
        Route("/api/play", desk.play, methods=["POST"]),
    ]
    errors: dict[Any, Callable[..., Any]] = {
        HTTPException: _http_error,
        MedSeRLError: _unusable,
        Busy: _busy,
        Exception: _defect,
    }
    return Guard(Starlette(routes=routes, exception_handlers=errors, lifespan=lifespan), access, {"/", *_FILES})


def _http_error(_: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


def _unusable(_: Request, error: MedSeRLError) -> Response:
    return JSONResponse({"error": str(error)}, 422)


def _busy(_: Request, __: Busy) -> Response:
    why = "too many requests wait for the model; try again in a moment"
    return JSONResponse({"error": why}, 503, headers={"Retry-After": "5"})


def _defect(_: Request, error: Exception) -> Response:
    """The traceback goes to the terminal; the page gets a line without any words of a note."""
    why = f"the server failed at this request ({type(error).__name__}); its terminal says more, and all else goes on"
    return JSONResponse({"error": why}, 500)


@cache
def _page() -> str:
    return (
        Environment(loader=PackageLoader("medserl.serve", "web"), autoescape=True, undefined=StrictUndefined)
        .get_template("page.html.jinja")
        .render(version=__version__, error_types=ERROR_TYPES, most_comment=MOST_COMMENT, opened=OPENED)
    )


@cache
def _text(name: str) -> str:
    if name in _OF_REPORTS:
        return package_text(name)
    return (Path(__file__).parent / "web" / name).read_text(encoding="utf-8")
