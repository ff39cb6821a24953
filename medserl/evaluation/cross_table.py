"""What cross-play came to, out of its record: a table of who beats whom, for the terminal and for the report."""

from __future__ import annotations

from medserl.evaluation.statistics import Estimate, share_estimate
from medserl.runs.records import Record

CROSS_PLAY = "cross_play.json"


def is_record(record: Record) -> bool:
    """Whether all is there that the tables are made of."""
    try:
        cross_markdown(record)
    except (KeyError, TypeError, IndexError, ValueError, AttributeError):
        return False
    return True


def won(cell: Record) -> Estimate:
    """The share of its games that the Injector won, with the Wilson interval."""
    return share_estimate([i < cell["won"] for i in range(cell["games"])])


def grid(record: Record) -> list[tuple[str, list[Record]]]:
    """The cells by Assessor, each row in the order of the policies."""
    cells = {(cell["assessor"], cell["injector"]): cell for cell in record["cells"]}
    names = record["policies"]
    return [(assessor, [cells[assessor, injector] for injector in names]) for assessor in names]


def caption(record: Record) -> str:
    """What the table shows, and how to read it."""
    return (
        f"Share of its accepted edits that an Injector won, with 95 % intervals: {record['notes']} notes of "
        f"{record['file']['name']}, each in both modes. Rows are Assessors, columns Injectors. From a run's start to "
        "its end: a column that falls says that the Assessor learnt, a row that rises that the Injector did. The mode "
        "is the truth, so an Injector also wins by an edit that is not what its mode asks for."
    )


def accepted(injector: Record) -> str:
    """`start: 28 error and 20 benign edits of 64 accepted; 1 of 9 labels wrong that the fact table decides`."""
    line = (
        f"{injector['name']}: {injector['accepted_error']} error and {injector['accepted_benign']} benign edits of "
        f"{injector['played']} accepted"
    )
    if injector["labels_decided"]:
        line += f"; {injector['labels_wrong']} of {injector['labels_decided']} labels wrong that the fact table decides"
    return line


def cross_markdown(record: Record) -> str:
    lines = [["Assessor \\ Injector", *record["policies"]]]
    lines.append(["---"] * len(lines[0]))
    lines += [[name, *(_cell(won(cell)) for cell in row)] for name, row in grid(record)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([caption(record), "", table, "", *(f"- {accepted(each)}" for each in record["injectors"])])


def _cell(found: Estimate) -> str:
    if found.value is None or found.low is None or found.high is None:
        return "no game"
    return f"{100 * found.value:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"
