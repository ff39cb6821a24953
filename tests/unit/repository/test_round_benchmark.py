"""The benchmark of a round: what it counts as read and written, and the older version that it plays against."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from benchmarks import round as benchmark
from benchmarks.round_worker import Meter
from medserl.config import Settings
from medserl.engines import create_engine, local
from medserl.engines.base import Sampling, WeightedTurn
from medserl.engines.packing import PAD_TO
from medserl.game.episode import Turn


def test_tokens_are_counted_by_phase(tiny_llama: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "batches", local.batches)  # the meter's own goes with the test
    meter = Meter(create_engine(Settings(model=str(tiny_llama), adapter="none", engine="local")))
    prompts = [({"role": "user", "content": f"Her temperature is 38.{digit} C."},) for digit in (3, 7)]
    length = meter.engine.prompt_lengths(prompts)[0]

    first = meter.generate(prompts, Sampling(max_new_tokens=6, role="injector"))
    meter.generate(prompts, Sampling(max_new_tokens=2, role="assessor"))
    assert length < meter.read["inject"] <= 2 * length, "the second goes on where it parts from the first"
    assert meter.written["inject"] == sum(len(each.token_ids) for each in first)
    assert not meter.read["assess"] and 2 <= meter.written["assess"] <= 4, "all is read, but not all written"

    turns = [Turn("injector", prompt, each) for prompt, each in zip(prompts, first, strict=True)]
    meter.logprobs(turns, reference=True)
    zeros = [(0.0,) * len(each.token_ids) for each in first]
    weighted = [WeightedTurn(turn, zero, zero, "note") for turn, zero in zip(turns, zeros, strict=True)]
    meter.update(weighted, learning_rate=1e-12)
    separate = 2 * (length - 1) + meter.written["inject"]
    for phase in ("reference", "update"):
        assert length < meter.unpadded[phase] <= separate
        assert meter.unpadded[phase] <= meter.read[phase] and meter.read[phase] % PAD_TO == 0
    assert len(meter.calls) == 3, "bare are writing, twice, and learning, without the reference"
    assert "other" not in meter.read


def test_a_commit_is_checked_out_for_as_long_as_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        return subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True, text=True
        ).stdout

    monkeypatch.setattr(benchmark, "HERE", tmp_path)
    git("init", "--quiet")
    for text in ("old", "new"):
        (tmp_path / "file").write_text(text, encoding="utf-8")
        git("add", "file")
        git("commit", "--quiet", "-m", text)
    with benchmark.checked_out("HEAD~1") as tree:
        assert (tree / "file").read_text(encoding="utf-8") == "old"
    assert not tree.exists() and len(git("worktree", "list").splitlines()) == 1
    with pytest.raises(SystemExit, match="--against HEAD~9: git cannot"), benchmark.checked_out("HEAD~9"):
        pass


def test_the_table_has_medians_and_tokens_a_game(capsys: pytest.CaptureFixture[str]) -> None:
    rounds = [
        {"seconds": {"update": s, "round": 2 * s}, "read": {"update": 640}, "unpadded": {}, "written": {"inject": 5}}
        for s in (1.0, 5.0, 2.0)
    ]
    benchmark.print_table([benchmark.Side("now", None, rounds)], notes=32)  # type: ignore[arg-type]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[2:]] == [["update", "2.00", "20.0"], ["round", "4.00"]]


def test_two_versions_play_in_turn_and_are_compared(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {"old": [10.0, 20.0, 10.0], "now": [5.0, 12.0, 8.0]}
    turns = {"old": 2, "now": 4}
    order = []

    class Told(benchmark.Side):
        def play(self, seed: int) -> None:
            order.append(self.name)
            empty: dict[str, int] = {}
            told = {"seconds": {"round": seconds[self.name][seed]}, "turns": turns[self.name], "accepted": 3}
            self.rounds.append({**told, "dtype": "float32", "read": empty, "unpadded": empty, "written": empty})

    monkeypatch.setattr(benchmark, "checked_out", lambda commit: nullcontext(Path(commit)))
    monkeypatch.setattr(benchmark, "at_work", lambda name, *_: nullcontext(Told(name, None)))  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "argv", ["round.py", "--against", "old", "--rounds", "3"])
    benchmark.main()
    assert order == ["old", "now", "now", "old", "old", "now"]
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "time of a round, now to old: 0.60 (from 0.50 to 0.80)",
        "time of each turn learnt, now to old: 0.30 (from 0.25 to 0.40)",
    ]
