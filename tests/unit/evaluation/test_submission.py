"""Submission files, read as the shared task's own reader reads them."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.errors import DataError, RunError
from medserl.evaluation.predictions import Prediction
from medserl.evaluation.submission import (
    SubmissionRow,
    read_submission,
    row_predictions,
    submission_id,
    submission_rows,
    write_submission,
)


def _read(tmp_path: Path, text: str, **options: bool) -> list[SubmissionRow]:
    path = tmp_path / "run.txt"
    path.write_bytes(text.encode())
    return read_submission(path, **options)


@pytest.mark.parametrize(
    ("line", "row"),
    [
        ("ms-val-0 0 -1 NA", ("ms-val-0", "0", "-1", "NA")),
        ('ms-val-1 1 8 "It is flu."', ("ms-val-1", "1", "8", "It is flu.")),
        ("ms-val-1 1 8 It is flu.", ("ms-val-1", "1", "8", "It is flu.")),
        ('a 1 8 """It is  \t flu.""', ("a", "1", "8", "It is flu.")),
        ('a 1 8 "the "red" eye"', ("a", "1", "8", 'the "red" eye')),
        ('a 1 8 " flu "', ("a", "1", "8", " flu ")),  # quotes go last
        ('a 1 8 "NA"', ("a", "1", "8", "NA")),
        ("a 1 -1 NA", ("a", "1", "-1", "NA")),
        ("a 0 3 It is flu.", ("a", "0", "3", "NA")),  # flag 0: NA, whatever is said; the sentence stays
        ("a 00 3 It is flu.", ("a", "00", "3", "It is flu.")),  # 00 is not 0
        ("a 2 05 It is flu.", ("a", "2", "05", "It is flu.")),
        ('a 1 8 "', ("a", "1", "8", '"')),
        ('a 1 8 """"', ("a", "1", "8", '"')),
        ("  a\t1\t8\tIt is flu.  ", ("a", "1", "8", "It is flu.")),
        ("a 1 8 back\\slash", ("a", "1", "8", "back\\slash")),
        ("a 1 8 ≥ 38\u2028C", ("a", "1", "8", "≥ 38 C")),
    ],
)
def test_a_line(tmp_path: Path, line: str, row: tuple[str, str, str, str]) -> None:
    assert _read(tmp_path, line) == [SubmissionRow(*row)]


def test_empty_lines_and_line_ends(tmp_path: Path) -> None:
    assert len(_read(tmp_path, "a 0 -1 NA\r\n\r\n   \nb 0 -1 NA\n\n")) == 2


@pytest.mark.parametrize(
    "line",
    [
        "a",
        "a 1",
        "a 1 8",
        "a  1 8 flu",
        "a 1  8 flu",
        "a x 8 flu",
        "a -1 8 flu",
        "a 1 8.0 flu",
        "a 1 --8 flu",
        "a,1,8,flu",
    ],
)
def test_malformed_lines_are_named_by_number(tmp_path: Path, line: str, caplog: pytest.LogCaptureFixture) -> None:
    text = f"a 0 -1 NA\n{line}\nb 1 2 flu\n"
    with pytest.raises(DataError, match=r"run\.txt: line 2 is malformed"):
        _read(tmp_path, text)
    with caplog.at_level(logging.WARNING, "medserl"):
        assert [row.text_id for row in _read(tmp_path, text, skip_malformed=True)] == ["a", "b"]
    assert "line 2 is malformed" in caplog.text


def test_many_malformed_lines_are_counted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"lines 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more are malformed"):
        _read(tmp_path, "what\n" * 12)


def test_the_last_line_on_a_text_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "medserl"):
        assert _read(tmp_path, "a 0 -1 NA\nb 0 -1 NA\na 1 2 flu\n") == [
            SubmissionRow("a", "1", "2", "flu"),
            SubmissionRow("b", "0", "-1", "NA"),
        ]
    assert "line 3 is about a text that came before" in caplog.text


def test_predictions_in_the_tasks_terms() -> None:
    assert submission_rows(
        [
            Prediction("a", "CORRECT", error_sentence_id=3, correction="ignored"),
            Prediction("b", "INCORRECT", error_sentence_id=8, correction='"It is\n flu."'),
            Prediction("c", "INCORRECT"),
            Prediction("d", "INCORRECT", error_sentence_id=2, correction="  "),
            Prediction("e", None, error_sentence_id=2, correction="no verdict, no row"),
        ]
    ) == [
        SubmissionRow("a", "0", "-1", "NA"),
        SubmissionRow("b", "1", "8", "It is flu."),
        SubmissionRow("c", "1", "-1", "NA"),
        SubmissionRow("d", "1", "2", "NA"),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le with mark"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_a_file_of_any_editor_is_read_alike(tmp_path: Path, encoding: str, line_end: str) -> None:
    text = line_end.join(["a 0 -1 NA", 'b 1 8 "≥ 38 °C."', ""])
    mark, _, _ = encoding.partition(" ")
    content = ("\ufeff" if " " in encoding else "") + text
    (tmp_path / "run.txt").write_bytes(content.encode(mark))
    rows = [SubmissionRow("a", "0", "-1", "NA"), SubmissionRow("b", "1", "8", "≥ 38 °C.")]
    assert read_submission(tmp_path / "run.txt") == rows


def test_a_number_of_thousands_of_digits_is_no_sentence(tmp_path: Path) -> None:
    rows = _read(tmp_path, f"a 1 {'9' * 5000} flu\nb 1 -{'9' * 5000} flu\n")
    assert [one.error_sentence_id for one in row_predictions(rows)] == [None, None]


@given(st.lists(st.text(min_size=1), unique=True))
def test_any_ids_can_be_submitted_and_stay_different(ids: list[str]) -> None:
    written = [submission_id(one) for one in ids]
    assert all(re.fullmatch(r"\S+", one) for one in written)
    assert len(set(written)) == len(ids)
    assert all(new == old for new, old in zip(written, ids, strict=True) if not re.search(r"[\s%]", old))


def test_rows_as_predictions() -> None:
    rows = [
        SubmissionRow("a", "0", "4", "NA"),
        SubmissionRow("b", "1", "8", "It is flu."),
        SubmissionRow("c", "1", "-1", "NA"),
        SubmissionRow("d", "01", "8", "It is flu."),
        SubmissionRow("e", "1", "05", "NA"),
    ]
    assert row_predictions(rows) == [
        Prediction("a", "CORRECT"),
        Prediction("b", "INCORRECT", 8, "It is flu."),
        Prediction("c", "INCORRECT"),
        Prediction("d", None, no_verdict="unreadable"),  # neither 0 nor 1
        Prediction("e", "INCORRECT", 5),
    ]


def test_the_file_that_is_written(tmp_path: Path) -> None:
    path = tmp_path / "run.txt"
    write_submission(path, submission_rows([Prediction("a", "CORRECT"), Prediction("b", "INCORRECT", 8, "It is flu.")]))
    assert path.read_text() == 'a 0 -1 NA\nb 1 8 "It is flu."\n'


@given(
    st.lists(
        st.builds(
            Prediction,
            text_id=st.from_regex(r"[a-z0-9-]+", fullmatch=True),
            verdict=st.sampled_from(["CORRECT", "INCORRECT", None]),
            error_sentence_id=st.none() | st.integers(0, 99),
            correction=st.none() | st.text() | st.text('" NA.\n', max_size=6),
        ),
        unique_by=lambda p: p.text_id,
    )
)
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, predictions: list[Prediction]) -> None:
    path = tmp_path_factory.mktemp("submission") / "run.txt"
    rows = submission_rows(predictions)
    write_submission(path, rows)
    assert read_submission(path) == rows


def test_what_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.txt: cannot be read"):
        read_submission(tmp_path / "none.txt")
    with pytest.raises(RunError, match="cannot be written"):
        write_submission(tmp_path / "no" / "run.txt", [])
    with pytest.raises(DataError, match="cannot be read: it is a folder, no file"):
        read_submission(tmp_path)
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(DataError, match="cannot be read: it is a device or pipe, no file"):
        read_submission(tmp_path / "pipe.txt")
    (tmp_path / "latin.txt").write_bytes(b"a 1 8 caf\xe9\n")
    with pytest.raises(DataError, match=r"latin\.txt: cannot be read"):
        read_submission(tmp_path / "latin.txt")
