"""Submission files of the shared task MEDIQA-CORR 2024: a line a text, `[id] [flag] [sentence id] [correction or NA]`.

    ms-val-0 0 -1 NA
    ms-val-1 1 8 "The sentence, corrected."

The task's own reader decides what a line means, and this one follows it: fields are separated by a single white space,
double quotes around the correction are taken off however many there are, white space within it becomes a space, a
flag 0 makes the correction NA, and the last of several lines on a text counts. Flag and sentence id stay text, since
the task compares them as text (`05` is not `5`). One slip of that reader is not followed: it expands a backslash in a
correction as an escape, or breaks off at it; here it is a character like others.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from medserl.errors import DataError
from medserl.evaluation.predictions import Prediction, read_text
from medserl.files import write_private
from medserl.game.roles import Verdict

log = logging.getLogger("medserl")

NO_SENTENCE = "-1"
NOT_APPLICABLE = "NA"
_MOST_DIGITS = 9
_LINE = re.compile(r"(\S+)\s([0-9]+)\s(-?[0-9]+)\s(.+)")


@dataclass(frozen=True)
class SubmissionRow:
    """One line. `correction` is `NA` or a sentence."""

    text_id: str
    flag: str
    sentence_id: str
    correction: str


def submission_rows(predictions: Iterable[Prediction]) -> list[SubmissionRow]:
    """What the predictions say in the task's terms. One without a verdict has no row: the task counts it as wrong."""
    rows = []
    for one in predictions:
        if one.verdict is None:
            continue
        flagged = one.verdict == "INCORRECT"
        sentence = one.error_sentence_id if flagged else None
        correction = _unquoted(" ".join((one.correction or "").split()))
        rows.append(
            SubmissionRow(
                one.text_id,
                "1" if flagged else "0",
                NO_SENTENCE if sentence is None else str(sentence),
                correction if flagged and correction else NOT_APPLICABLE,
            )
        )
    return rows


def row_predictions(rows: Iterable[SubmissionRow]) -> list[Prediction]:
    """The rows as predictions: a flag that is neither 0 nor 1 is no verdict, and only a flagged text has an answer."""
    verdicts: dict[str, Verdict] = {"0": "CORRECT", "1": "INCORRECT"}
    return [
        Prediction(
            row.text_id,
            verdicts.get(row.flag),
            _sentence_number(row.sentence_id) if row.flag == "1" else None,
            row.correction if row.flag == "1" and row.correction != NOT_APPLICABLE else None,
            no_verdict=None if row.flag in verdicts else "unreadable",
        )
        for row in rows
    ]


def _sentence_number(sentence_id: str) -> int | None:
    """None for -1, and for a number that no sentence has."""
    return int(sentence_id) if len(sentence_id) <= _MOST_DIGITS and int(sentence_id) >= 0 else None


def submission_id(text_id: str) -> str:
    """The id as a line can hold it: white space and the percent sign as `%` and two hexadecimal digits a byte.

    Different ids stay different; one without either stays as it is.
    """
    return re.sub(r"[\s%]", lambda found: quote(found[0], safe=""), text_id)


def write_submission(path: str | Path, rows: Iterable[SubmissionRow]) -> None:
    """Write the rows, corrections in double quotes; ids that a line cannot hold are written as `submission_id` says.

    Raises:
        OutputError: the file cannot be written.
    """
    lines = []
    for row in rows:
        correction = row.correction if row.correction == NOT_APPLICABLE else f'"{row.correction}"'
        lines.append(f"{submission_id(row.text_id)} {row.flag} {row.sentence_id} {correction}\n")
    write_private(Path(path), lines)


def read_submission(path: str | Path, skip_malformed: bool = False) -> list[SubmissionRow]:
    """The rows of a submission file, one a text. Empty lines are passed over.

    With `skip_malformed` the log names the lines that cannot be read, and their texts count as not predicted, as in
    the shared task.

    Raises:
        DataError: no such file, or a malformed line; the message names it by number.
    """
    rows: dict[str, SubmissionRow] = {}
    malformed, repeated = [], []
    lines = read_text(path).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for number, line in enumerate(lines, start=1):
        row = _row(line.strip())
        if row is None:
            malformed += [number] if line.strip() else []
            continue
        repeated += [number] if row.text_id in rows else []
        rows[row.text_id] = row
    if malformed:
        problem = f"{path}: {_lines(malformed)} malformed; wanted is `id flag sentence-id correction`, NA for none"
        if not skip_malformed:
            raise DataError(problem)
        log.warning("%s; not counted", problem)
    if repeated:
        log.warning("%s: %s about a text that came before; the last line on a text counts", path, _lines(repeated))
    return list(rows.values())


def _row(line: str) -> SubmissionRow | None:
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    text_id, flag, sentence_id, rest = match.groups()
    correction = _unquoted(" ".join(rest.split()))
    return SubmissionRow(text_id, flag, sentence_id, NOT_APPLICABLE if flag == "0" else correction)


def _unquoted(correction: str) -> str:
    """Without the double quotes around it, of which the last character is kept where there is nothing else."""
    while correction.startswith('"') and len(correction) > 1:
        correction = correction[1:]
    while correction.endswith('"') and len(correction) > 1:
        correction = correction[:-1]
    return correction


def _lines(numbers: list[int], most: int = 10) -> str:
    """`line 3 is`, `lines 3, 8, 9 and 4 more are`."""
    if len(numbers) == 1:
        return f"line {numbers[0]} is"
    more = f" and {len(numbers) - most} more" if len(numbers) > most else ""
    return f"lines {', '.join(map(str, numbers[:most]))}{more} are"
