"""Who may ask: the checks that every request passes before it reaches the notes, as one ASGI middleware.

    Host      must name this machine, or a page elsewhere could have its own name point here (DNS rebinding)
    token     where others than this machine can connect; sent as `Authorization: Bearer TOKEN`, never in an address
    Origin    of a writing request must be this very page, and its body JSON, so that no form elsewhere can write
    body      no larger than `MOST_BYTES`

There is no CORS: no header lets another origin read an answer. Every answer carries a content security policy that
loads nothing from elsewhere and runs no script but the page's own file.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import secrets
import socket
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 4 * 1024 * 1024
"""Of a request's body."""

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

ANSWER_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Access:
    """Under which names the server answers, and the token that it asks for; None for no token.

    `addresses` is set where the server listens on all of the machine's addresses: any bare address is then accepted as
    Host, because only a name can be made to point elsewhere.
    """

    names: Collection[str]
    addresses: bool = False
    token: str | None = None

    @classmethod
    def of(cls, host: str, more_names: Collection[str] = (), *, token: bool = False) -> Access:
        """The rules for a server that listens on `host`. Beyond the loopback there is always a token."""
        names = {host.casefold(), *(name.casefold() for name in more_names)}
        if is_loopback(host):
            names |= LOOPBACK_NAMES
        everywhere = host in ("0.0.0.0", "::")
        if everywhere:
            names |= {socket.gethostname().casefold(), *LOOPBACK_NAMES}
        asked = token or not is_loopback(host)
        return cls(frozenset(names), everywhere, secrets.token_urlsafe(32) if asked else None)

    def knows(self, host: str) -> bool:
        """Whether a Host header (`name`, `name:port`, `[::1]:port`) names this server."""
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            return False
        if not name or any(sign in host for sign in "/?#@\\ "):
            return False
        return name in self.names or (self.addresses and _is_address(name))

    def admits(self, authorization: str) -> bool:
        """Whether the Authorization header holds the token."""
        if self.token is None:
            return True
        scheme, _, given = authorization.partition(" ")
        return scheme.casefold() == "bearer" and hmac.compare_digest(given.strip().encode(), self.token.encode())


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to `host`."""
    if host.casefold() == "localhost":
        return True
    return _is_address(host) and ipaddress.ip_address(host).is_loopback


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """Refuses what may not pass, each in one line of JSON, and adds `ANSWER_HEADERS` to every answer."""

    def __init__(self, app: ASGIApp, access: Access, open_paths: Collection[str] = ()) -> None:
        """`open_paths` need no token: in what they give there is no note."""
        self.app = app
        self.access = access
        self.open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no WebSockets here
            await send({"type": "websocket.close", "code": 1008})
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(ANSWER_HEADERS)
            await send(message)

        refused = self._refusal(scope)
        if refused:
            await _refuse(answer, *refused)
        else:
            await self.app(scope, _limited(receive), answer)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and reason; None for a request that may pass."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self.access.knows(hosts[0]):
            return 400, "this server does not answer under that name; see --host and --allow-host"
        if scope["path"] not in self.open_paths and not self.access.admits(headers.get("authorization", "")):
            return 401, "this needs the token that `medserl serve` printed, as `Authorization: Bearer TOKEN`"
        if scope["method"] not in ("GET", "HEAD"):
            return self._writing_refusal(headers, hosts[0])
        return None

    @staticmethod
    def _writing_refusal(headers: Headers, host: str) -> tuple[int, str] | None:
        origin = headers.get("origin")
        if (origin is not None and not _same_place(origin, host)) or headers.get("sec-fetch-site", "none") not in (
            "none",
            "same-origin",
        ):
            return 403, "a page of another origin may not write here"
        if headers.get("content-type", "").partition(";")[0].strip().casefold() != "application/json":
            return 415, "send JSON, as Content-Type: application/json"
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length[:20]) > MOST_BYTES:
            return _TOO_LARGE
        return None


_TOO_LARGE = (413, f"the body is larger than {MOST_BYTES // 1024 // 1024} MiB; send fewer notes at once")


def _same_place(origin: str, host: str) -> bool:
    """Whether the origin is that of the Host. The scheme is left out: a proxy may speak HTTPS for us."""
    scheme, found, place = origin.partition("://")
    return bool(found) and scheme in ("http", "https") and place.casefold() == host.casefold()


def _limited(receive: Receive) -> Receive:
    """Receives no more than `MOST_BYTES`, whatever length was announced; beyond, Starlette answers with the error."""
    taken = 0

    async def limited() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > MOST_BYTES:
            raise HTTPException(*_TOO_LARGE)
        return message

    return limited


async def _refuse(send: Send, status: int, why: str) -> None:
    body = json.dumps({"error": why}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 413:
        headers.append((b"connection", b"close"))  # the rest of the body is not read
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
