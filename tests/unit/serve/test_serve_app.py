"""The JSON API: what is asked and answered, its queue, files that are opened on the page, errors that are answers."""

from __future__ import annotations

import base64
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from medserl.serve.model import Model
from tests.review_client import READ, one_line, serving
from tests.reviewing import ScriptedJudge, finding_of, text_of, write_ten

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
