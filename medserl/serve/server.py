"""`medserl serve`: everything put together, and served until Ctrl-C."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

from medserl.config import Settings
from medserl.display.console import say
from medserl.errors import ConfigError
from medserl.serve.options import ServeOptions

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from medserl.prediction.assessor import Assessor

log = logging.getLogger("medserl")

SERVE_NEEDS = ("starlette", "uvicorn")


def serve(settings: Settings, options: ServeOptions) -> None:
    """Serve the page until it is stopped.

    Raises:
        ConfigError: the web server is not installed, or cannot listen there.
        DataError, RunError: notes, predictions, decisions or the run cannot be used.
    """
    missing = [name for name in SERVE_NEEDS if find_spec(name) is None]
    if missing:
        raise ConfigError(f"`medserl serve` needs {' and '.join(missing)}: pip install 'medserl[serve]'")
    from medserl.serve.app import Desk, create_app
    from medserl.serve.backlog import Backlog
    from medserl.serve.decisions import DecisionFile
    from medserl.serve.guard import Access, is_loopback
    from medserl.serve.inputs import items_in, items_of
    from medserl.serve.model import Model
    from medserl.serve.review import Review

    access = Access.of(options.host, options.allow_host, token=options.token)
    judge = _assessor(settings, options)
    items, unjudged = items_of(options, settings)
    with ExitStack() as held:
        decisions = DecisionFile.open(options.decisions_file)
        held.callback(decisions.close)
        review = Review(items, decisions)
        listener = _listener(options.host, options.port)
        held.callback(listener.close)
        model = Model(judge)
        held.callback(model.close)
        say(f"review: http://{_shown(options.host)}:{listener.getsockname()[1]}/")
        say(f"{len(review)} notes; {len(decisions)} decisions in {decisions.path}")
        if access.token:
            say(f"token: {access.token}")
        if not is_loopback(options.host):
            log.warning("others can connect, and notes travel unencrypted: use a trusted network, or an SSH tunnel")
        say("Ctrl-C ends it. Research software, not a medical device.")
        backlog = Backlog(review, model, unjudged)
        read = partial(items_in, settings=settings)
        _run(create_app(Desk(review, model, backlog, str(decisions.path), read), access), listener)
        say(f"ended; {len(decisions)} decisions in {decisions.path}")


def _assessor(settings: Settings, options: ServeOptions) -> Assessor:
    """The model, which is loaded when it is first asked something. Raises RunError where the run has none."""
    from medserl.prediction.assessor import Assessor

    if options.run:
        return Assessor.from_run(options.run, options.threshold, settings=settings)
    return Assessor(settings, options.threshold)


def _listener(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises ConfigError where none can."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        why = f"--host {host} --port {port}: cannot listen there: {error.strerror or error}"
        raise ConfigError(f"{why}; give another --port, or 0 for a free one") from None


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _run(app: ASGIApp, listener: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM; requests under way are finished."""
    import uvicorn

    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,  # a token or a note's id must not end in a log
        server_header=False,
        proxy_headers=False,
        ws="none",
        limit_concurrency=64,
        timeout_graceful_shutdown=5,
    )
    terminated = signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the file is let go of in order
    try:
        asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))
    except KeyboardInterrupt:
        pass  # the usual way to end it
    finally:
        signal.signal(signal.SIGTERM, terminated)
