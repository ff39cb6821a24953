"""Predictions at a terminal: how many were flagged, why some could not be judged, and the most suspicious ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from medserl.display.console import say
from medserl.display.visible import visible_line
from medserl.prediction.findings import JudgedNote, by_suspicion

MOST_SUSPICIOUS = 10
_SHOWN = 160
"""Characters of a sentence in the table."""


def show(judged: Sequence[JudgedNote], left_out: int = 0) -> None:
    """How many were flagged, why some could not be judged, and the most suspicious ones.

    `left_out` are rows of the file in which there is no note.
    """
    flagged = sum(one.finding.flagged is True for one in judged)
    passed = sum(one.finding.flagged is False for one in judged)
    notes = f"{len(judged)} note{'s' if len(judged) != 1 else ''}"
    say(f"{notes}: {flagged} flagged, {passed} not flagged, {len(judged) - flagged - passed} not judged")
    for reason, count in Counter(one.finding.reason for one in judged if one.finding.reason).most_common():
        say(f"not judged: {count} x {visible_line(reason)}")
    if left_out:
        say(f"left out: {left_out} rows in which there is no note that can be read, named above")
    in_windows = [one.finding.windows for one in judged if one.finding.windows > 1]
    if in_windows:
        say(
            f"{len(in_windows)} longer than the model's context: read in {sum(in_windows)} windows of whole sentences, "
            "and judged by the most suspicious one"
        )
    top = [one for one in by_suspicion(judged)[:MOST_SUSPICIOUS] if one.finding.p_error is not None]
    if top:
        say(f"the {len(top)} most suspicious:" if len(top) > 1 else "the most suspicious:")
        say(_table(top))
    say("Not a medical device: a flag is a reason to look, and no flag is no reason not to.")


def _table(judged: Sequence[JudgedNote]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("P(error)", "flag", "note", "sentence", "suggested"):
        table.add_column(title, overflow="fold")
    for one in judged:
        found = one.finding
        sentence = "" if found.sentence is None else f"{found.sentence}: {_shortened(found.sentence_text or '')}"
        cells = [
            f"{found.p_error:.3f}",
            "yes" if found.flagged else "",
            found.note_id,
            sentence,
            found.should_say or "",
        ]
        table.add_row(*(Text(visible_line(cell)) for cell in cells))
    return table


def _shortened(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= _SHOWN else plain[: _SHOWN - 3] + "..."
