"""`medserl report RUN`: a run folder as one self-contained HTML file that opens from disk without a network.

Safety: the template engine escapes everything; the games travel as JSON with `<` escaped and are put on the
page as text; and a content security policy forbids every connection and every script but our own.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from medserl import __version__
from medserl.errors import OutputError
from medserl.evaluation.cross_table import accepted, caption, grid, won
from medserl.evaluation.statistics import format_p
from medserl.files import write_private
from medserl.game.vcf import Reason
from medserl.reports.charts_shown import draw_groups, with_convergence
from medserl.reports.convergence import convergence
from medserl.reports.curves import HEIGHT, LEFT, RIGHT, TOP, WIDTH, marker, rounds_per_point
from medserl.reports.games import ShownGames, choose_games
from medserl.reports.intervals import panels
from medserl.reports.judged import evaluation_overlap, sample_label, validation_in_words
from medserl.reports.own_games import SHARES, count, periods
from medserl.reports.run_files import RunFiles, read_run
from medserl.reports.shareable import without_notes
from medserl.reports.summary import sentences, settings_rows, tiles
from medserl.reports.tables import (
    ALL,
    OFFICIAL,
    THRESHOLD,
    apart,
    in_words,
    interval,
    judged_texts,
    left_out,
    overviews,
    part_tables,
    points,
    system_name,
    table_of,
)
from medserl.reports.verdict import against_others, judged_after
from medserl.runs.records import Record

TEMPLATE = "report.html.jinja"
STYLES, SCRIPTS = ("base.css", "report.css"), ("game.js", "report.js")
OUTPUT, OUTPUT_WITHOUT_NOTES = "report.html", "report_without_notes.html"


def write_report(run: Path, output: Path | None = None, *, with_notes: bool = True) -> Path:
    """Write the report of the run folder `run` to `output` (default RUN/report.html) and return its path.

    Without notes, by default to RUN/report_without_notes.html, it holds no note's text or id and nothing that a model
    wrote of one: it can be handed on.

    Raises:
        RunError: no run is in the folder, one of its files cannot be read, or the report cannot be written.
    """
    files = read_run(run)
    page = render_report(files if with_notes else without_notes(files), with_notes=with_notes)
    target = output or run / (OUTPUT if with_notes else OUTPUT_WITHOUT_NOTES)
    try:
        write_private(target, page.encode("utf-8", "replace"))  # half a surrogate pair in a note becomes "?"
    except OutputError as error:
        raise OutputError(f"the report cannot be written there ({error}); choose a place with --output FILE") from None
    return target


def render_report(run: RunFiles, *, with_notes: bool = True) -> str:
    """The whole page, with the games or without."""
    games = choose_games(run.episodes if with_notes else ())
    found = convergence(run.rows, run.episodes)
    table = apart(run.table)
    style, script = ("".join(map(package_text, names)) for names in (STYLES, SCRIPTS))
    return (
        templates()
        .get_template(TEMPLATE)
        .render(
            run=run,
            name=run.path.resolve().name,
            style=Markup(style),
            script=Markup(script),
            script_hash=_csp_hash(script),
            tiles=tiles(run),
            sentences=sentences(run),
            notices=[notice.text for notice in found.notices],
            table=table_of(table, ALL),
            official=table_of(table, OFFICIAL),
            left_out=left_out(run.evaluation),
            threshold=table_of(table, THRESHOLD),
            parts=part_tables(table),
            overviews=overviews(table),
            panels=panels(table),
            against=against_others(run),
            after=system_name(judged_after(run)),
            in_words=in_words,
            interval=interval,
            judged_texts=judged_texts,
            points=points,
            format_p=format_p,
            cross=run.cross_play,
            cross_grid=grid(run.cross_play) if run.cross_play else [],
            cross_caption=caption,
            won=won,
            accepted=accepted,
            own_figures=[name for name, _, _ in SHARES],
            own_periods=[(period.name, count(period.games)) for period in periods(run.episodes)],
            groups=draw_groups(with_convergence(run.rows, found), found.notices, run.frozen, validation_in_words(run)),
            badge=sample_label(run),
            overlap=evaluation_overlap(run),
            rounds_per_point=rounds_per_point(run.rows),
            box={"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": TOP},
            marker=marker,
            games=games,
            with_notes=with_notes,
            choices=filter_choices(games),
            games_json=script_json(games.games),
            settings=settings_rows(run.settings),
            provenance=flatten(run.provenance),
            evaluation=flatten(
                {key: value for key, value in run.evaluation.items() if key not in (OFFICIAL, "settings")}
            ),
            version=__version__,
            today=date.today().isoformat(),
        )
    )


def filter_choices(shown: ShownGames) -> dict[str, list[Any]]:
    """What the games can be filtered by: only values that occur."""
    reasons = {attempt["reason"] for game in shown.games for attempt in game["attempts"]}
    return {
        "rounds": sorted({game["round"] for game in shown.games}),
        "types": sorted({game["type"] for game in shown.games if game["type"]}),
        "labels": [label for label in ("right", "wrong", "unknown") if any(g["label"] == label for g in shown.games)],
        "reasons": [str(reason) for reason in Reason if reason in reasons],
    }


def script_json(value: Sequence[Record]) -> Markup:
    """JSON that is safe inside a `<script type="application/json">`: nothing in it can end the element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def flatten(tree: Record, prefix: str = "") -> list[tuple[str, str]]:
    """Nested records as (dotted name, value) pairs."""
    pairs: list[tuple[str, str]] = []
    for key, value in tree.items():
        name = f"{prefix}{key}"
        pairs += flatten(value, f"{name}.") if isinstance(value, dict) else [(name, str(value))]
    return pairs


def _csp_hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def package_text(name: str) -> str:
    """A style or a script of this package, some of which a review has too."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


@cache
def templates(package: str = "medserl.reports") -> Environment:
    """The pages that lie in a package; everything that is put into one is escaped."""
    return Environment(
        loader=PackageLoader(package, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
