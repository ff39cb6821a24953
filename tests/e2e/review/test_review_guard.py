"""`medserl serve` in a real browser: nobody but the reviewer gets at the notes."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.browsing import press, texts
from tests.review_page import Server, key, rows, said, serving, until
from tests.reviewing import text_of

pytestmark = pytest.mark.browser


@contextmanager
def another_origin() -> Iterator[str]:
    """A page of another origin on this machine, as any site that the reviewer visits is."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<title>elsewhere</title>")

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()
        thread.join()


ATTACK = """
  const [url, type, done] = arguments;
  const body = JSON.stringify({ note_id: "note 0", decision: "reject" });
  const ask = (path, options) => fetch(url + path, options).then((r) => r.text(), (error) => error.name);
  Promise.all([
    ask("api/findings"),
    ask("api/findings", { mode: "no-cors" }),
    ask("api/decisions", { method: "POST", body, headers: { "Content-Type": type } }),
    ask("api/decisions", { method: "POST", body, mode: "no-cors" }),
  ]).then(done);
"""


@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
@pytest.mark.usefixtures("page")
def test_another_site_can_neither_read_nor_write(browser: Any, server: Server, kind: str) -> None:
    with another_origin() as elsewhere:
        browser.get(elsewhere)
        answers = browser.execute_async_script(ATTACK, server.url, kind)
        assert not any("note" in answer for answer in answers), answers
        assert answers[0] == "TypeError"
        browser.get_log("browser")
    assert rows(server.decisions) == {}


def test_a_name_that_points_here_shows_nothing(browser: Any, server: Server) -> None:
    browser.get(f"http://elsewhere.example:{server.port}/")
    assert "does not answer under that name" in browser.page_source
    browser.get_log("browser")


def raw(server: Server, *pieces: bytes) -> bytes:
    """What the server answers to these very bytes, which no client has put in order."""
    with socket.create_connection(("127.0.0.1", int(server.port)), timeout=60) as connection:
        answer = b""
        with suppress(ConnectionError):
            for piece in pieces:
                connection.sendall(piece)
        with suppress(ConnectionError):
            while received := connection.recv(65536):
                answer += received
    return answer


HEAD = b"Host: 127.0.0.1\r\nConnection: close\r\n"


@pytest.mark.parametrize(
    "path", [b"/../../../etc/passwd", b"/page.css/../../inputs.py", b"/%2e%2e/%2e%2e/etc/passwd", b"//etc/passwd", b"*"]
)
def test_no_path_as_it_is_sent_leads_to_a_file(server: Server, path: bytes) -> None:
    answer = raw(server, b"GET " + path + b" HTTP/1.1\r\n" + HEAD + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert answer.endswith(b'{"error":"Not Found"}')


def test_a_body_without_an_end_is_cut_off(server: Server) -> None:
    head = (
        b"POST /api/judge HTTP/1.1\r\n" + HEAD + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    pieces = [b"100000\r\n" + b" " * 0x100000 + b"\r\n"] * 12
    assert raw(server, head, *pieces).startswith(b"HTTP/1.1 413 ")
    assert raw(server, b"GET /api/findings HTTP/1.1\r\n" + HEAD + b"\r\n").startswith(b"HTTP/1.1 200 ")


def test_the_token_opens_the_page_and_stands_nowhere(browser: Any, predictions: Path) -> None:
    arguments = ("--predictions", str(predictions), "--port", "0", "--token")
    with serving(*arguments) as server:
        token = next(line.split()[-1] for line in server.lines if line.startswith("token: "))
        browser.get("about:blank")
        browser.get(server.url)
        dialog = browser.find_element("id", "token-dialog")
        until(browser, dialog.is_displayed)
        browser.find_element("id", "token").send_keys("wrong")
        press(browser, "#token-form button")
        until(browser, lambda: browser.find_element("id", "token-trouble").is_displayed())
        assert texts(browser, "#list li") == []
        browser.find_element("id", "token").send_keys(token)
        press(browser, "#token-form button")
        until(browser, lambda: len(texts(browser, "#list li")) == 10)
        until(browser, lambda: texts(browser, "#list [aria-current=true]") != [] and not dialog.is_displayed())
        key(browser, "r")
        said(browser, "rejected")
        assert token not in browser.current_url + browser.page_source
        assert token not in json.dumps(browser.get_log("browser"))
        assert browser.get_cookies() == []
        rest = server.rest()
        assert token not in rest and text_of(0)[:20] not in rest


# -- for every reader -----------------------------------------------------------------------------------------
