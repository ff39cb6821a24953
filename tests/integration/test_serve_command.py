"""`medserl serve` from the command line: what stops it, what it says, and training on its decisions."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from medserl.cli import main
from medserl.config import Settings
from medserl.serve import server
from medserl.serve.decisions import DecisionFile
from medserl.serve.inputs import items_of
from medserl.serve.options import ServeOptions
from medserl.serve.review import Review
from tests.reviewing import write_ten


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    return write_ten(tmp_path / "p.jsonl")


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(["serve", "--engine", "scripted", *arguments])
    assert stopped.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def test_without_its_packages_it_says_how_to_get_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "find_spec", lambda name: None if name in server.SERVE_NEEDS else object())
    line = refused(capsys)
    assert "pip install 'medserl[serve]'" in line
    assert "starlette and uvicorn" in line


def test_a_second_server_on_one_file_of_decisions_is_refused(
    capsys: pytest.CaptureFixture[str], predictions: Path
) -> None:
    file = DecisionFile.open(predictions.with_name("p.decisions.jsonl"))
    assert "another `medserl serve` writes to this file" in refused(capsys, "--predictions", str(predictions))
    file.close()


def test_a_port_in_use_is_refused_and_the_file_let_go_of(capsys: pytest.CaptureFixture[str], predictions: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = refused(capsys, "--predictions", str(predictions), "--port", port)
    assert f"--port {port}: cannot listen there" in line
    DecisionFile.open(predictions.with_name("p.decisions.jsonl")).close()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--predictions", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--notes", "nowhere.csv"], "nowhere.csv"),
        (["--run", "nowhere"], "nowhere"),
        (["--decisions", "."], "it is a folder"),
        (["--threshold", "2"], "--threshold 2"),
        (["--port", "70000"], "--port 70000"),
        (["--host", "not a host"], "--host not a host"),
    ],
)
def test_what_cannot_be_used_stops_it(capsys: pytest.CaptureFixture[str], arguments: list[str], why: str) -> None:
    assert why in refused(capsys, *arguments)


def test_the_notes_themselves_are_no_file_of_decisions(capsys: pytest.CaptureFixture[str], predictions: Path) -> None:
    before = predictions.read_bytes()
    line = refused(capsys, "--predictions", str(predictions), "--decisions", str(predictions))
    assert "not a decision of a review" in line
    assert predictions.read_bytes() == before


@pytest.mark.parametrize(("host", "asks"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_it_says_where_it_is_and_beyond_this_machine_that_others_can_connect(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, predictions: Path, host: str, asks: bool
) -> None:
    monkeypatch.setattr(server, "_run", lambda app, listener: None)
    main(["serve", "--engine", "scripted", "--predictions", str(predictions), "--host", host, "--port", "0"])
    out, err = capsys.readouterr()
    assert f"review: http://{host}:" in out
    assert "10 notes; 0 decisions in" in out
    assert "not a medical device" in out
    assert ("token: " in out) is asks
    assert ("unencrypted" in err) is asks


# -- the decisions are notes to train on ----------------------------------------------------------------------


@pytest.fixture
def decisions(predictions: Path) -> Path:
    """Six accepted with the suggestion, three rejected, one accepted without, and a comment."""
    file = DecisionFile.open(predictions.with_name("d.jsonl"))
    items, _ = items_of(ServeOptions(predictions=predictions), Settings(engine="scripted"))
    review = Review(items, file)
    for number in range(10):
        name = f"note {number}"
        sentence, correction = review.suggestion(name)
        if number < 6:
            review.decide(name, "accept", sentence=sentence, correction=correction)
        else:
            review.decide(name, "reject" if number < 9 else "accept")
    review.add([review.checked("asked", "He may be well.")])
    review.decide("asked", "comment", comment="is he?")
    file.close()
    return file.path


def test_medserl_train_learns_from_the_decisions(tmp_path: Path, decisions: Path) -> None:
    run = tmp_path / "run"
    arguments = ["--prompt-data", str(decisions), "--engine", "scripted", "--output-dir", str(run)]
    teaching = ["--sft-verdict-pairs", "2", "--rollout-batch-size", "4", "--max-rounds", "1", "--no-tensorboard"]
    main(["train", *arguments, *teaching])
    (row,) = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert row["vcf_acceptance_rate"] > 0
    played = {json.loads(line)["note_id"] for line in (run / "episodes.jsonl").read_text().splitlines()}
    assert played <= {f"note {n}" for n in range(9)}  # those of which a correct text is known


def test_medserl_sft_learns_from_the_decisions(tmp_path: Path, decisions: Path, tiny_llama: Any) -> None:
    output = tmp_path / "adapter"
    model = ["--model", str(tiny_llama), "--adapter", "none"]
    short = ["--steps", "1", "--batch-size", "2", "--measure", "0"]
    main(["sft", *model, "--prompt-data", str(decisions), "--output", str(output), *short])
    assert (output / "adapter_model.safetensors").is_file()
