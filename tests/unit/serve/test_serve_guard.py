"""Who may use the JSON API: hosts, origins, tokens, sizes, and what no page of ours may do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from medserl.serve.guard import MOST_BYTES, Access, is_loopback
from tests.review_client import HERE, PATHS, READ, WRITE, one_line, serving
from tests.reviewing import text_of
from tests.synthetic_run import HOSTILE

STRANGE = (
    "evil.example",
    "127.0.0.1.evil.example:8765",
    "localhost.evil.example",
    "127.0.0.1@evil.example",
    "",
    "[::1",
)


@pytest.mark.parametrize("host", STRANGE)
@pytest.mark.parametrize("path", ["/", "/page.js", *PATHS])
def test_another_name_that_points_here_gets_nothing(client: TestClient, host: str, path: str) -> None:
    """DNS rebinding: the page of another name must not become this one's."""
    ask = client.post if path in WRITE else client.get
    assert "does not answer under that name" in one_line(ask(path, headers={"host": host}), 400)


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost:8765", "LOCALHOST", "[::1]:8765", "localhost:9000"])
def test_the_names_of_this_machine_are_known(client: TestClient, host: str) -> None:
    assert client.get(READ, headers={"host": host}).status_code == 200


def test_beyond_the_loopback_there_is_a_token_and_addresses_but_no_strange_names() -> None:
    everywhere = Access.of("0.0.0.0", ["Proxy.example"])
    assert everywhere.token is not None and len(everywhere.token) >= 32
    assert everywhere.token != Access.of("0.0.0.0").token
    known = ["192.168.7.7:8765", "[fe80::1]:8765", "proxy.example", "localhost"]
    assert [everywhere.knows(host) for host in [*known, "evil.example", "192.168.7.7.evil.example"]] == [
        *(True for _ in known), False, False,
    ]  # fmt: skip
    assert not Access.of("127.0.0.1").knows("192.168.7.7")
    assert Access.of("127.0.0.1").token is None
    assert Access.of("127.0.0.1", token=True).token is not None
    assert all(map(is_loopback, ("localhost", "127.0.0.9", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "me.example")))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer wrong", "Basic {token}", "bearer {token}x", "{token}"])
def test_without_the_token_there_are_no_notes(tmp_path: Path, path: str, given: str | None) -> None:
    access = Access.of("127.0.0.1", token=True)
    with serving(tmp_path, access) as client:
        headers = {} if given is None else {"authorization": given.format(token=access.token)}
        ask = client.post if path in WRITE else client.get
        answer = ask(path, headers=headers)
        assert "token" in one_line(answer, 401)
        assert str(access.token) not in answer.text
        assert client.get("/", headers=headers).status_code == 200  # the page itself holds no note
        assert text_of(0)[:20] not in client.get("/").text
        assert client.get(f"{READ}?token={access.token}").status_code == 401  # never in an address
        assert client.get(READ, headers={"authorization": f"Bearer {access.token}"}).status_code == 200


@pytest.mark.parametrize("path", WRITE)
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "file://127.0.0.1:8765"},
        {"origin": "http://127.0.0.1:8765.evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_a_page_of_another_origin_writes_nothing(
    client: TestClient, tmp_path: Path, path: str, headers: dict[str, str]
) -> None:
    body = {"note_id": "note 0", "decision": "reject"}
    assert "another origin" in one_line(client.post(path, json=body, headers=headers), 403)
    assert not (tmp_path / "d.jsonl").exists()
    preflight = client.options(path, headers={**headers, "access-control-request-method": "POST"})
    assert not [name for name in preflight.headers if name.startswith("access-control-")]


def test_our_own_page_writes(client: TestClient) -> None:
    body = {"note_id": "note 0", "decision": "reject"}
    headers = {"origin": HERE, "sec-fetch-site": "same-origin"}
    answer = client.post("/api/decisions", json=body, headers=headers)
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_a_form_of_another_page_writes_nothing(client: TestClient, kind: str) -> None:
    content = json.dumps({"note_id": "note 0", "decision": "reject"})
    answer = client.post("/api/decisions", content=content, headers={"content-type": kind})
    assert "application/json" in one_line(answer, 415)


@pytest.mark.parametrize("path", WRITE)
def test_an_oversized_body_is_refused_by_its_length_and_by_what_comes(client: TestClient, path: str) -> None:
    large = b" " * (MOST_BYTES + 1)
    headers = {"content-type": "application/json"}
    assert "larger than 4 MiB" in one_line(client.post(path, content=large, headers=headers), 413)
    pieces = (large[:1_000_000] for _ in range(6))  # in chunks, no length announced
    assert "larger than 4 MiB" in one_line(client.post(path, content=pieces, headers=headers), 413)
    for length in ("9" * 30, "-1", "1e3"):
        answer = client.post(path, content=b"{}", headers=headers | {"content-length": length})
        one_line(answer, 413)
    assert client.get(READ).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/../d.jsonl", "/..%2fd.jsonl", "/%2e%2e/%2e%2e/etc/passwd", "/page.css/../../app.py", "/web/page.js",
        "//etc/passwd", "/page.css%00.js", "/static/..%5c..%5cserver.py", "/app.py", "/d.jsonl", "/api/../../d.jsonl",
    ],
)  # fmt: skip
def test_no_path_leads_to_a_file(tmp_path: Path, path: str) -> None:
    with serving(tmp_path) as client:
        client.post("/api/decisions", json={"note_id": "note 0", "decision": "reject"})
        answer = client.get(HERE + path)
        assert answer.status_code == 404
        assert answer.json() == {"error": "Not Found"}


@pytest.mark.parametrize(
    "path", ["/", "/page.css", "/base.css", "/page.js", "/game.js", "/ask.js", "/more.js", READ, "/nothing"]
)
def test_every_answer_forbids_what_is_from_elsewhere(client: TestClient, path: str) -> None:
    answer = client.get(path)
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_the_page_loads_nothing_from_elsewhere_and_says_what_it_is_not(client: TestClient) -> None:
    assert "not a medical device" in client.get("/").text
    for file in ("/", "/page.css", "/base.css", "/page.js", "/game.js", "/ask.js", "/more.js"):
        text = client.get(file).text
        assert len(text) > 500
        elsewhere = ("http:", "https:", '="//', "url(", "@import", "innerHTML", "style=")
        assert not [word for word in elsewhere if word in text]


def test_markup_in_a_note_comes_as_json_that_no_browser_takes_for_a_page(client: TestClient) -> None:
    (row,) = client.post("/api/judge", json={"notes": [{"note_id": HOSTILE, "text": HOSTILE}]}).json()["findings"]
    answer = client.get(READ, params={"note_id": row["note_id"]})
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["text"] == HOSTILE


def test_only_get_and_post_are_answered(client: TestClient) -> None:
    for method in ("PUT", "DELETE", "PATCH"):
        answer = client.request(method, "/api/decisions", json={})
        assert answer.status_code == 405
    assert client.get("/api/decisions").status_code == 405
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/api/findings"):
        pass
