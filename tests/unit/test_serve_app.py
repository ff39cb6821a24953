"""The JSON API and who may use it: hosts, origins, tokens, sizes, queues, and errors that are answers."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from medserl.config import Settings
from medserl.serve.app import Desk, create_app
from medserl.serve.backlog import Backlog
from medserl.serve.decisions import DecisionFile
from medserl.serve.guard import MOST_BYTES, Access, is_loopback
from medserl.serve.inputs import items_in
from medserl.serve.model import Model
from medserl.serve.review import Item, Review
from tests.reviewing import ScriptedJudge, finding_of, text_of, write_ten
from tests.synthetic_run import HOSTILE

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


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with serving(tmp_path) as client:
        yield client


def one_line(response: Any, status: int) -> str:
    """The error of a refusal, which is one line of JSON and nothing else."""
    assert response.status_code == status, response.text
    body = response.json()
    assert list(body) == ["error"]
    assert "\n" not in body["error"]
    return body["error"]


# -- what is asked and answered ------------------------------------------------------------------------------


def test_the_list_and_one_note(client: TestClient) -> None:
    listing = client.get(READ).json()
    assert [row["note_id"] for row in listing["findings"]] == ["note 0", "note 1", "note 2"]
    assert (listing["decisions_file"], listing["left_to_judge"]) == ("d.jsonl", 0)
    note = client.get(READ, params={"note_id": "note 1"}).json()
    assert note["text"] == text_of(1)
    assert note["pieces"][3] == finding_of(1).sentence_text
    assert (note["sentence"], note["correction"], note["threshold"]) == (1, finding_of(1).correction, 0.5)
    assert one_line(client.get(READ, params={"note_id": "n/../1"}), 404) == "no note 'n/../1' here"


def test_a_decision_takes_the_models_suggestion_unless_it_says_otherwise(client: TestClient, tmp_path: Path) -> None:
    def decided(**body: Any) -> dict[str, Any]:
        answer = client.post("/api/decisions", json={"note_id": "note 0", **body})
        assert answer.status_code == 200, answer.text
        (row,) = (json.loads(line) for line in (tmp_path / "d.jsonl").read_text().splitlines())
        assert answer.json()["decided"] == row
        return row

    assert decided(decision="accept")["corrected_sentence"] == finding_of(0).correction
    assert decided(decision="accept", correction="His gout is treated.")["corrected_sentence"] == "His gout is treated."
    other = decided(decision="accept", sentence=0)
    assert (other["error_sentence_id"], other["correct_note"]) == (0, None)
    assert decided(decision="accept", sentence=None)["error_sentence_id"] is None
    assert decided(decision="reject")["correct_note"] == text_of(0)
    assert client.post("/api/decisions", json={"note_id": "note 0", "decision": "withdraw"}).json()["decided"] is None
    assert (tmp_path / "d.jsonl").read_text() == ""


def test_notes_are_judged_and_join_the_list(client: TestClient) -> None:
    notes = [{"text": text_of(7)}, {"note_id": "mine", "text": "He is well."}]
    first, second = client.post("/api/judge", json={"notes": notes}).json()["findings"]
    assert (first["flagged"], first["threshold"], second["flagged"]) == (True, 0.6, False)
    listing = client.get(READ).json()
    assert first["note_id"] in [row["note_id"] for row in listing["findings"]]
    assert "chosen on 40 texts of validation.jsonl" in listing["threshold"]


def test_a_game_is_played_on_a_note(client: TestClient) -> None:
    for body in ({"note_id": "note 0", "mode": "benign"}, {"text": text_of(3), "error_type": "diagnosis"}):
        answer = client.post("/api/play", json=body).json()
        assert answer["game"]["mode"] == body.get("mode", "error")
        assert answer["game"]["attempts"]
        assert "Assessor" in answer["outcome"]


def test_a_note_that_cannot_be_judged_is_an_answer(client: TestClient) -> None:
    (row,) = client.post("/api/judge", json={"notes": [{"text": "A LONG note."}]}).json()["findings"]
    assert (row["reason"], row["p_error"]) == ("sentence 3 does not fit into the model's context", None)
    assert one_line(client.post("/api/judge", json={"notes": [{"text": "FAIL"}]}), 422) == "the model cannot read this"
    assert one_line(client.post("/api/play", json={"text": "FAIL"}), 422) == "the model cannot read this"
    assert "100,000 at most" in one_line(client.post("/api/judge", json={"notes": [{"text": "x" * 100_001}]}), 422)
    assert client.get(READ).status_code == 200


def test_a_defect_is_an_answer_without_words_of_the_note(client: TestClient) -> None:
    said = one_line(client.post("/api/judge", json={"notes": [{"text": "BREAK it"}]}), 500)
    assert "RuntimeError" in said
    assert "BREAK" not in said
    assert client.get(READ).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "why"),
    [
        ("/api/judge", {"notes": []}, "notes: List should have at least 1 item"),
        ("/api/judge", {"notes": [{"text": "a"}] * 65}, "notes: List should have at most 64 items"),
        ("/api/judge", {"notes": [{"text": 7}]}, "notes.0.text: Input should be a valid string"),
        ("/api/judge", {"notes": [{"text": "a", "path": "/etc/passwd"}]}, "notes.0.path: Extra inputs"),
        ("/api/judge", {"notes": [{"text": " "}]}, "is empty"),
        ("/api/decisions", {"note_id": "note 0", "decision": "maybe"}, "decision: Input should be 'accept', 'reject'"),
        ("/api/decisions", {"note_id": "note 0", "decision": "accept", "sentence": "1"}, "valid integer"),
        ("/api/play", {"mode": "error"}, "give either note_id or text"),
        ("/api/play", {"note_id": "note 0", "text": "a"}, "give either note_id or text"),
        ("/api/play", {"text": "He is well.", "mode": "both"}, "mode: Input should be 'error' or 'benign'"),
    ],
)
def test_a_body_that_is_not_as_it_should_be_is_named(client: TestClient, path: str, body: Any, why: str) -> None:
    assert why in one_line(client.post(path, json=body), 422)


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 50_000, b'{"notes": [{"text": "\\ud800"}]}', b"\xff", b"null"])
def test_broken_json_is_an_answer(client: TestClient, content: bytes) -> None:
    one_line(client.post("/api/judge", content=content, headers={"content-type": "application/json"}), 422)


def test_a_full_disk_is_an_answer_and_changes_nothing(client: TestClient, tmp_path: Path, monkeypatch: Any) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.write", full)
    said = one_line(client.post("/api/decisions", json={"note_id": "note 0", "decision": "reject"}), 422)
    assert "No space left on device" in said
    monkeypatch.undo()
    assert client.get(READ, params={"note_id": "note 0"}).json()["decided"] is None


# -- the queue -----------------------------------------------------------------------------------------------


def test_one_request_at_a_time_and_a_queue_with_an_end(tmp_path: Path) -> None:
    """One request holds the model, a second waits, a third is told to come again; the first two are then answered."""
    held, let_go = threading.Event(), threading.Event()

    def wait() -> None:
        held.set()
        assert let_go.wait(60)

    judge = ScriptedJudge(wait)
    model = Model(judge, places=2)
    with serving(tmp_path, model=model) as client, ThreadPoolExecutor(2) as pool:
        first = pool.submit(client.post, "/api/judge", json={"notes": [{"note_id": "first", "text": "WAIT"}]})
        assert held.wait(60)
        second = pool.submit(client.post, "/api/judge", json={"notes": [{"note_id": "second", "text": "He is well."}]})
        while model.asked < 2:  # until the second has its place
            assert not second.done()
        for path, body in (("/api/judge", {"notes": [{"text": "a"}]}), ("/api/play", {"text": "a"})):
            third = client.post(path, json=body)
            assert "try again" in one_line(third, 503)
            assert third.headers["retry-after"] == "5"
        assert client.post("/api/decisions", json={"note_id": "note 0", "decision": "reject"}).status_code == 200
        let_go.set()
        assert [each.result().status_code for each in (first, second)] == [200, 200]
    assert judge.judged == ["first", "second"]


def test_notes_of_a_file_are_judged_while_it_serves(tmp_path: Path) -> None:
    with serving(tmp_path, unjudged=10) as client:
        listing = settled(client)
        assert "chosen on 40 texts" in listing["threshold"]
        assert sum(row["judged"] for row in listing["findings"]) == 13


@pytest.mark.parametrize(("words", "why"), [("FAIL", "cannot read this"), ("BREAK", "a defect (RuntimeError)")])
def test_judging_that_stopped_is_said_and_can_go_on(tmp_path: Path, words: str, why: str) -> None:
    with serving(tmp_path) as client:
        opened(client, "bad.txt", f"A note to {words} at.".encode())
        listing = settled(client)
        assert listing["trouble"].startswith("judging stopped with 1 notes left: ")
        assert why in listing["trouble"]
        assert client.post("/api/judge", json={"notes": [{"text": "He is well."}]}).status_code == 200


def settled(client: TestClient) -> dict[str, Any]:
    """The list when no note is left to judge, or judging has stopped."""
    while True:
        listing = client.get(READ).json()
        if not listing["left_to_judge"] or listing["trouble"]:
            return listing


# -- files that are opened on the page -----------------------------------------------------------------------


def opened(client: TestClient, name: str, content: bytes) -> Any:
    return client.post("/api/open", json={"name": name, "content": base64.b64encode(content).decode()})


def test_notes_of_an_opened_file_are_judged_in_their_turn(client: TestClient) -> None:
    rows = f"id,note\nmine,{text_of(5)}\nother,He is well.\n"
    assert opened(client, "ward 7.csv", rows.encode()).json() == {"note_ids": ["mine", "other"], "to_judge": 2}
    listing = settled(client)
    assert {row["note_id"]: row["flagged"] for row in listing["findings"] if row["note_id"][:4] != "note"} == {
        "mine": True, "other": False,
    }  # fmt: skip
    assert opened(client, "ward 7.csv", rows.encode()).json()["to_judge"] == 0  # what was found stays
    assert opened(client, "one.txt", b"He takes aspirin.").json()["to_judge"] == 1


@pytest.mark.parametrize("name", ["p.jsonl", "p.csv"])
def test_an_opened_file_of_predictions_needs_no_model(client: TestClient, tmp_path: Path, name: str) -> None:
    content = write_ten(tmp_path / name).read_bytes()
    answer = opened(client, name, content).json()
    assert (len(answer["note_ids"]), answer["to_judge"]) == (10, 0)
    note = client.get(READ, params={"note_id": "note 9"}).json()
    assert (note["p_error"], note["threshold"], note["flagged"]) == (0.32, 0.5, False)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("x.exe", b"a", "cannot be opened here; give one of .txt"),
        ("../../x.sh", b"a", "cannot be opened here"),
        ("x.csv", b"a,b\n1,2\n", "x.csv: no column of notes"),
        ("x.xlsx", b"no workbook", "x.xlsx"),
        ("x.jsonl", b"{", "x.jsonl"),
        ("x.csv", b"note_id,note\nnote 0,Another text.\n", "two notes have the id 'note 0'"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_and_adds_nothing(
    client: TestClient, name: str, content: bytes, why: str
) -> None:
    said = one_line(opened(client, name, content), 422)
    assert why in said
    assert "medserl-" not in said  # not where the copy lay
    assert len(client.get(READ).json()["findings"]) == 3


@pytest.mark.parametrize(
    "name", ["../../../tmp/escaped.txt", "..\\escaped.txt", "/etc/escaped.txt", "a\0b.txt", "é ☃.txt"]
)
def test_the_name_of_a_file_leads_nowhere(client: TestClient, tmp_path: Path, name: str) -> None:
    (note_id,) = opened(client, name, b"He is well.").json()["note_ids"]
    assert not set("/\\\0") & set(note_id)
    assert not Path("/tmp/escaped.txt").exists() and not Path("/etc/escaped.txt").exists()


@pytest.mark.parametrize("content", ["***", "QQ", 7, None])
def test_what_is_no_base64_is_an_answer(client: TestClient, content: Any) -> None:
    assert "content" in one_line(client.post("/api/open", json={"name": "a.txt", "content": content}), 422)


# -- who may ask ---------------------------------------------------------------------------------------------


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
