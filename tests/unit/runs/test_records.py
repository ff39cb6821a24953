"""Records are read line by line: a broken line costs itself alone and is named; a large file takes little memory."""

from __future__ import annotations

import json
import logging
import tracemalloc
from pathlib import Path

import pytest

from medserl.config import Settings
from medserl.errors import RunError
from medserl.reports.run_files import read_run
from medserl.runs.records import RecordsOnDisk, read_rows
from medserl.runs.runlog import EPISODES, METRICS, RunFolder

GOOD = [{"round": number, "mode": "error", "note": f"≥ {number}\u2028"} for number in range(1, 6)]
BROKEN = [b"{broken", b"3", b"[1]", b"null", b'{"round": "one"}', b"\xff\xfe", b"[" * 100_000, b"", b'{"round": 1'
          b', "n": ' + b"1" * 5000 + b"}"]  # fmt: skip


def write(path: Path, lines: list[bytes]) -> Path:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def encoded() -> list[bytes]:
    return [json.dumps(row, ensure_ascii=False).encode() for row in GOOD]


@pytest.mark.parametrize("broken", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_line_is_left_out_and_named(tmp_path: Path, broken: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / METRICS, [*encoded()[:2], broken, *encoded()[2:]])
    assert read_rows(path) == list(RecordsOnDisk(path)) == GOOD
    assert f"{path}: line 3 is no record and was left out (1 of them)" in caplog.text


def test_many_broken_lines_are_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / METRICS, [b"x", *encoded(), *[b"y"] * 200])
    assert read_rows(path) == GOOD
    (warning,) = caplog.messages
    assert warning == f"{path}: lines 1, 7, 8, ... are no records and were left out (201 of them)"


def test_records_on_disk_are_a_sequence(tmp_path: Path) -> None:
    rows = RecordsOnDisk(write(tmp_path / EPISODES, encoded()))
    assert len(rows) == 5 and rows[3] == GOOD[3] and rows[1:3] == GOOD[1:3] and rows[-1] == GOOD[-1]
    assert [*rows, *rows] == GOOD + GOOD
    assert not RecordsOnDisk(tmp_path / "none")


def test_a_figure_of_before_has_the_name_of_today(tmp_path: Path) -> None:
    rows = write(tmp_path / METRICS, [b'{"round": 1, "lesson_nll": 0.5, "loss": 2.0}'])
    assert read_rows(rows) == [{"round": 1, "sft_loss": 0.5, "loss": 2.0}]


def test_a_file_that_changes_while_it_is_read_is_one_line(tmp_path: Path) -> None:
    rows = RecordsOnDisk(write(tmp_path / EPISODES, encoded()))
    write(tmp_path / EPISODES, [b"other"])
    with pytest.raises(RunError, match="changed while it was read"):
        list(rows)


def test_a_folder_in_the_place_of_a_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be read: Is a directory"):
        read_rows(tmp_path)


def test_resuming_keeps_good_lines_as_they_are_and_names_the_rounds_that_are_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = RunFolder.create(Settings(output_dir=str(tmp_path), tensorboard=False))
    write(tmp_path / METRICS, [*encoded()[:1], b"{", *encoded()[2:]])
    write(tmp_path / EPISODES, encoded())
    with caplog.at_level(logging.WARNING, "medserl"):
        run.forget_after(4)
    run.close()
    assert (tmp_path / METRICS).read_bytes().split(b"\n") == [encoded()[0], *encoded()[2:4], b""]
    assert f"{tmp_path / METRICS}: line 2 is no record and was left out" in caplog.text
    assert f"{tmp_path / METRICS} has no record of 1 rounds that were played (first: 2)" in caplog.text
    assert EPISODES not in caplog.text


@pytest.fixture
def many_games(tmp_path: Path) -> Path:
    """Eight megabytes of games in 1,000 lines."""
    run = RunFolder.create(Settings(output_dir=str(tmp_path), tensorboard=False))
    run.close()
    lines = [json.dumps({"round": n // 10, "mode": "error", "note": "x" * 8000}).encode() for n in range(1000)]
    write(tmp_path / EPISODES, lines)
    return tmp_path


def peak_of(action: object) -> int:
    tracemalloc.start()
    try:
        action()  # type: ignore[operator]
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_resuming_takes_little_memory(many_games: Path) -> None:
    run = RunFolder(many_games)
    assert peak_of(lambda: run.forget_after(98)) < 2**20
    assert len(RecordsOnDisk(many_games / EPISODES)) == 990


def test_reading_games_for_a_report_takes_little_memory(many_games: Path) -> None:
    assert peak_of(lambda: sum(game["round"] for game in read_run(many_games).episodes)) < 2**20
