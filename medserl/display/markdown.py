"""Markdown for people: laid out at a terminal, as it stands in a pipe or a file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby

from rich import box
from rich.console import RenderableType
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

from medserl.display.console import console, say
from medserl.display.visible import visible

_CELL_ENDS = re.compile(r"(?<!\\)\|")
_RULE = re.compile(r"\|(\s*:?-+:?\s*\|)+")


def say_markdown(text: str) -> None:
    """Show it; a table that is too wide for the terminal is shown row by row, each figure on a line of its own."""
    if not console.is_terminal:
        say(text)
        return
    for part in _parts(text, console.width):
        say(part)


def _parts(text: str, width: int) -> Iterator[RenderableType]:
    for is_table, lines in groupby(text.splitlines(), key=lambda line: line.startswith("|")):
        block = list(lines)
        if not is_table:
            yield Markdown(visible("\n".join(block)), hyperlinks=False)
            continue
        head, *rows = (_cells(line) for line in block if not _RULE.fullmatch(line.strip()))
        table = _table(head, rows)
        if console.measure(table).minimum <= width and _natural_width(head, rows) <= width:
            yield table
        else:
            yield from _row_by_row(head, rows)


def _cells(line: str) -> list[str]:
    return [visible(cell.strip().replace("\\|", "|")) for cell in _CELL_ENDS.split(line.strip())[1:-1]]


def _table(head: list[str], rows: list[list[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for number, title in enumerate(head):
        table.add_column(Text(title), justify="left" if number == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _natural_width(head: list[str], rows: list[list[str]]) -> int:
    columns = zip(*(row for row in [head, *rows] if len(row) == len(head)), strict=True)
    return sum(max(Text(cell).cell_len for cell in column) + 2 for column in columns)


def _row_by_row(head: list[str], rows: list[list[str]]) -> Iterator[RenderableType]:
    for row in rows:
        yield Text(row[0] if row else "", style="bold")
        for title, value in zip(head[1:], row[1:], strict=False):
            yield Text(f"  {title}: {value}")
