"""The report in a real browser: headless Chromium opens the file from disk, with no network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from medserl.reports.html import write_report
from medserl.runs.runlog import EPISODES, read_rows
from tests.browsing import is_light, overflow, press, seen_as, texts
from tests.synthetic_run import HOSTILE, add_official, episode, write_rows, write_run

pytestmark = pytest.mark.browser

PAGE = 20
"""Games a page."""

FIRST_COLUMN_AFTER_SCROLLING = """
  const box = document.querySelector(".scroll");
  box.scrollLeft = 1000;
  return Math.round(box.querySelector("tbody th").getBoundingClientRect().left - box.getBoundingClientRect().left);
"""

OUT_OF_THEIR_CARD = """
  const outside = [];
  for (const card of document.querySelectorAll(".tile, figure.chart, figure.panel, .verdict, .filters")) {
    const edge = card.getBoundingClientRect().right + 0.5;
    for (const inner of card.querySelectorAll("*")) {
      if (inner.getBoundingClientRect().right > edge) outside.push(inner.outerHTML.slice(0, 80));
    }
    const room = card.querySelector(".value");
    if (room && room.scrollWidth > room.clientWidth) outside.push(room.outerHTML);
  }
  return outside;
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 12 x 32 games, the first of which is hostile, with all that an evaluation can hold."""
    run = write_run(tmp_path_factory.mktemp("runs") / "a_run")
    add_official(run / "eval")
    note = f"The patient has {HOSTILE} today. Metformin was started."
    hostile = episode(note, [note.replace("Metformin", "Insulin")], said=HOSTILE).record(1)
    write_rows(run / EPISODES, [hostile, *read_rows(run / EPISODES)])
    return write_report(run)


@pytest.fixture
def page(browser: Any, report: Path) -> Iterator[Any]:
    """The report, freshly opened; whatever the test does, the console has to stay empty."""
    browser.get_log("browser")
    browser.get(report.as_uri())
    yield browser
    assert browser.get_log("browser") == []


def choose(page: Any, name: str, value: str) -> None:
    page.execute_script(
        "const field = document.querySelector(`#filters [name=${arguments[0]}]`); field.value = arguments[1];"
        "field.dispatchEvent(new Event('input', {bubbles: true}));",
        name,
        value,
    )


def count(page: Any) -> int:
    """How many games the filters let through."""
    words = texts(page, "#count")[0]
    return 0 if words == "no games" else int(words.split(" of ")[1].split(",")[0])


def is_error(game: dict[str, Any]) -> bool:
    return game["mode"] == "error"


def has_format_reject(game: dict[str, Any]) -> bool:
    return any(attempt["reason"] == "format" for attempt in game["attempts"])


def has_wrong_label(game: dict[str, Any]) -> bool:
    return (game["mode"], game["still_true"]) in (("error", "true"), ("benign", "false"))


def fooled(game: dict[str, Any]) -> bool:
    return game["reward_injector"] == 1.0


def test_it_renders(page: Any) -> None:
    assert page.title == "MedSeRL report: a_run"
    assert texts(page, "h2") == ["Summary", "Results", "Curves by round", "Games", "Settings and provenance"]
    drawn = page.execute_script(
        "return [...document.querySelectorAll('svg.plot')].map((e) => e.getBoundingClientRect().height)"
    )
    assert len(drawn) > 10
    assert min(drawn) > 100
    assert len(texts(page, ".game")) == PAGE
    assert page.execute_script("return performance.getEntriesByType('resource').length") == 0


@pytest.mark.parametrize(
    ("name", "value", "fits"),
    [
        ("round", "7", lambda game: game["round"] == 7),
        ("mode", "error", is_error),
        ("type", "diagnosis", lambda game: game["error_type"] == "diagnosis"),
        ("outcome", "injector", fooled),
        ("outcome", "no_note", lambda game: game["modified"] is None),
        ("vcf", "format", has_format_reject),
        ("vcf", "first", lambda game: game["attempts"][0]["reason"] is None),
        ("label", "wrong", has_wrong_label),
        ("label", "unknown", lambda game: game["still_true"] == "unknown"),
        ("text", "METFORMIN", lambda game: "metformin" in f"{game['original']}{game['attempts']}".lower()),
    ],
)
def test_a_filter_shows_the_games_that_fit(
    page: Any, report: Path, name: str, value: str, fits: Callable[[dict[str, Any]], bool]
) -> None:
    expected = sum(map(fits, read_rows(report.parent / EPISODES)))
    assert 0 < expected < 385
    choose(page, name, value)
    assert count(page) == expected


def test_filters_add_up_and_can_be_taken_back(page: Any, report: Path) -> None:
    games = read_rows(report.parent / EPISODES)
    choose(page, "mode", "error")
    choose(page, "outcome", "injector")
    assert count(page) == sum(is_error(game) and fooled(game) for game in games)
    choose(page, "text", "no note says this")
    assert count(page) == 0
    assert texts(page, "#game-list") == ["No game fits these filters."]
    press(page, "#filters button[type=reset]")
    page.execute_async_script("setTimeout(arguments[0])")  # the form tells of a reset one task later
    assert count(page) == len(games)


def test_paging_reaches_every_game_once(page: Any, report: Path) -> None:
    choose(page, "round", "3")
    assert count(page) == 32
    assert not page.find_element("id", "previous").is_enabled()
    first = texts(page, ".game > summary")
    press(page, "#next")
    second = texts(page, ".game > summary")
    assert (len(first), len(second)) == (PAGE, 32 - PAGE)
    assert not page.find_element("id", "next").is_enabled()
    press(page, "#previous")
    assert texts(page, ".game > summary") == first


def test_a_game_opens_with_its_edit_marked_and_the_assessors_words(page: Any) -> None:
    choose(page, "vcf", "first")
    press(page, ".game:nth-child(2) > summary")
    assert page.find_element("css selector", ".game:nth-child(2) .body").is_displayed()
    assert texts(page, ".game:nth-child(2) .sides del") != []
    assert texts(page, ".game:nth-child(2) .sides ins") != []
    headings = texts(page, ".game:nth-child(2) h4")
    assert headings[2:] == ["Injector's attempts and the VCF", "Assessor's words"]
    assert "won" in texts(page, ".game:nth-child(2) .ending")[0]


def test_a_wrong_label_is_told_in_the_game(page: Any) -> None:
    choose(page, "label", "wrong")
    choose(page, "mode", "benign")
    assert texts(page, ".game:first-child .label-note") == ["The label is wrong: by the fact table the note is false."]


def test_the_frozen_opponent_and_every_system_are_drawn(page: Any) -> None:
    titles = texts(page, "figure.chart .title")
    assert {"Against the frozen opponent", "Labels that are wrong", "What the edits changed"} <= set(titles)
    lines = "return [...document.querySelectorAll('figure.chart')].filter(f => f.innerText.includes('rozen opponent'))"
    shapes = page.execute_script(f"{lines}.map(f => f.querySelector('path.line').getTotalLength())")
    assert len(shapes) == 2
    assert min(shapes) > 100
    assert texts(page, "figure.panel:first-of-type .system") == [
        "base model", "warmed-up model", "trained model", "majority answer",
    ]  # fmt: skip


def test_parts_of_the_evaluation_unfold(page: Any) -> None:
    inside = page.find_element("css selector", "details.more table")
    assert not inside.is_displayed()
    press(page, "details.more > summary")
    assert inside.is_displayed()


def test_hostile_notes_and_words_are_shown_as_text(page: Any) -> None:
    assert HOSTILE in texts(page, ".game:first-child .sides .text")[0]
    assert texts(page, ".game:first-child .said")[-1] == HOSTILE
    assert page.title == "MedSeRL report: a_run"
    assert page.find_elements("css selector", "main img, #game-list script") == []


def test_the_curves_tell_the_value_under_the_pointer(page: Any) -> None:
    before = texts(page, "figure.chart:first-of-type .at")[0]
    page.execute_script(
        "const plot = document.querySelector('svg.plot'); const box = plot.getBoundingClientRect();"
        "plot.dispatchEvent(new PointerEvent('pointermove', {clientX: box.left + box.width * 0.14}));"
    )
    assert before == "round 12"
    assert texts(page, "figure.chart .at")[0] == "round 1"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1366])
def test_it_fits_a_phone_and_a_laptop_in_light_and_dark(page: Any, width: int, scheme: str) -> None:
    with seen_as(page, width, scheme):
        assert page.execute_script("return innerWidth") == width
        assert overflow(page) == 0
        assert page.execute_script(OUT_OF_THEIR_CARD) == []
        sides = "return [...document.querySelector('.sides').children].map((e) => e.getBoundingClientRect().top)"
        left, right = page.execute_script(sides)
        kept = page.execute_script(FIRST_COLUMN_AFTER_SCROLLING)
        assert kept == 0
        assert (left == right) is (width > 700)
        assert is_light(page) is (scheme == "light")
