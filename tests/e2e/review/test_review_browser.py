"""`medserl serve` in a real browser: a reviewer goes through ten notes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medserl.data.readers import read_notes
from medserl.game.note import Note
from medserl.prediction.findings import JudgedNote, write_findings
from tests.browsing import is_light, overflow, press, seen_as, texts
from tests.review_page import Server, key, opened, reviewing, rows, said, serving, title, until
from tests.reviewing import DRUGS, RIGHT, finding_of, text_of
from tests.synthetic_run import HOSTILE

pytestmark = pytest.mark.browser


def test_a_reviewer_goes_through_ten_notes_and_a_kill_loses_none(browser: Any, predictions: Path) -> None:
    with reviewing(browser, predictions) as (page, server):
        _go_through(page, server, predictions)


def _go_through(page: Any, server: Server, predictions: Path) -> None:
    decisions = predictions.with_name("p.decisions.jsonl")
    assert [each.split()[-1] for each in texts(page, "#list .id")] == [str(n) for n in range(10)]
    assert title(page) == "Note note 0"

    key(page, "a")
    said(page, "Note note 0 accepted, with the correction. Now note note 1.")
    key(page, "r")
    said(page, "Note note 1 rejected. Now note note 2.")
    key(page, "c")
    key(page, "ask the ward: are a, r and j keys here?")  # letters in a field decide nothing
    press(page, "#accept")
    said(page, "Note note 2 accepted")
    box = page.find_element("id", "correction")
    box.clear()
    box.send_keys("His pneumonia is treated with doxycycline by mouth.")
    press(page, "#accept")
    said(page, "Note note 3 accepted")
    page.find_element("id", "correction").clear()
    press(page, "#accept")
    said(page, "Note note 4 accepted, without a correction")
    assert len(rows(decisions)) == 5

    server.kill()
    assert len(rows(decisions)) == 5
    key(page, "r")  # the page says so, and keeps its place
    until(page, lambda: "does not answer" in texts(page, "#trouble")[0])
    assert title(page) == "Note note 5"
    with serving("--predictions", str(predictions), "--port", server.port) as again:
        key(page, "r")  # the same page goes on
        said(page, "Note note 5 rejected. Now note note 6.")
        opened(page, again)
        assert texts(page, "#count") == ["6 of 10 decided"]
        assert title(page) == "Note note 6"
        for number in (6, 7, 8):
            key(page, "r")
            said(page, f"Note note {number} rejected")
        key(page, "a")
        said(page, "Every note is decided.")
        assert texts(page, "#count") == ["10 of 10 decided"]
        again.kill()

    found = rows(decisions)
    assert sorted(found) == [f"note {n}" for n in range(10)]
    assert found["note 2"]["comment"] == "ask the ward: are a, r and j keys here?"
    notes = {note.note_id: note for note in read_notes(decisions).notes}
    assert {name for name, note in notes.items() if note.is_pair} == {f"note {n}" for n in (0, 2, 3, 9)}
    assert notes["note 0"].correct_note == text_of(0).replace(DRUGS[0], RIGHT)
    assert notes["note 3"].correct_note == text_of(3).replace(DRUGS[3], "doxycycline")
    assert (notes["note 4"].correct_note, notes["note 4"].incorrect_note) == (None, text_of(4))
    assert (notes["note 1"].correct_note, notes["note 1"].incorrect_note) == (text_of(1), None)
    assert (decisions.stat().st_mode & 0o777) == 0o600


def test_keys_move_take_back_and_can_be_switched_off(page: Any, server: Server) -> None:
    decisions = server.decisions
    key(page, "j")
    until(page, lambda: title(page) == "Note note 1")
    assert page.switch_to.active_element.get_attribute("id") == "note-title"  # a screen reader reads on from there
    key(page, "k")
    until(page, lambda: title(page) == "Note note 0")
    key(page, "k")
    said(page, "This is the first note.")
    key(page, "r")
    said(page, "rejected")
    key(page, "u")
    said(page, "The decision on note note 0 is taken back.")
    assert rows(decisions) == {}
    assert title(page) == "Note note 0"
    press(page, "#use-keys")
    page.execute_script("document.activeElement.blur()")
    key(page, "r")
    key(page, "j")
    press(page, "#use-keys")
    page.execute_script("document.activeElement.blur()")
    held = "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'r', bubbles: true, repeat: true}))"
    page.execute_script(held)
    key(page, "j")
    until(page, lambda: title(page) == "Note note 1")
    assert rows(decisions) == {}


def test_a_comment_alone_and_another_sentence(page: Any, server: Server) -> None:
    from selenium.webdriver.common.keys import Keys

    decisions = server.decisions
    key(page, "c")
    key(page, "odd")
    page.switch_to.active_element.send_keys(Keys.CONTROL, Keys.ENTER)
    said(page, "Comment on note note 0 kept.")
    assert (rows(decisions)["note 0"]["decision"], rows(decisions)["note 0"]["comment"]) == (None, "odd")
    press(page, "#text .s[data-number='2']")
    box = page.find_element("id", "correction")
    assert box.get_property("value") == "He is told to come back in a week."
    box.clear()
    box.send_keys("He is told to come back tomorrow.")
    page.find_element("css selector", "#error-type option:nth-child(3)").click()
    key(page, Keys.ESCAPE)
    key(page, "a")
    said(page, "accepted, with the correction")
    row = rows(decisions)["note 0"]
    assert row["correct_note"] == text_of(0).replace("in a week", "tomorrow")
    assert (row["error_type"], row["comment"], row["error_sentence_id"]) == ("management", "odd", 2)


def test_the_note_is_shown_with_its_sentence_the_suggestion_and_the_threshold(page: Any) -> None:
    assert texts(page, "#score") == ["P(error) 0.950, threshold 0.500: flagged."]
    (marked,) = texts(page, "#text mark")
    assert finding_of(0).sentence_text in marked.replace("]", "").partition(": ")[2]
    assert texts(page, "#text mark b") == [DRUGS[0]]
    assert texts(page, "#suggestion del") == [DRUGS[0]]
    assert texts(page, "#suggestion ins") == [RIGHT]
    assert page.find_element("id", "correction").get_property("value") == finding_of(0).correction
    press(page, "#filter option[value=flagged]")
    assert len(texts(page, "#list li")) == 7
    assert "not a medical device" in texts(page, "footer")[0]
    assert texts(page, "#keys kbd") == list("arcjkup")


def test_a_note_is_pasted_and_files_are_opened(browser: Any, predictions: Path) -> None:
    with reviewing(browser, predictions) as (page, _):
        _paste_and_open(page, predictions.parent)


def _paste_and_open(page: Any, tmp_path: Path) -> None:
    press(page, "#open")
    press(page, "#judge")
    assert "There is no note yet" in texts(page, "#open-trouble")[0]
    page.find_element("id", "pasted").send_keys("He has a cough. He takes aspirin.")
    for name in ("ward 1", "ward 2"):
        (tmp_path / f"{name}.txt").write_text(f"He is on {name}. He takes warfarin.", encoding="utf-8")
    files = [str(tmp_path / f"ward {n}.txt") for n in (1, 2)]
    (tmp_path / "table.csv").write_text("id,note\nrow,He takes digoxin.\n", encoding="utf-8")
    page.find_element("id", "files").send_keys("\n".join([*files, str(tmp_path / "table.csv")]))
    press(page, "#judge")
    until(page, lambda: texts(page, "#count") == ["0 of 14 decided"])
    assert {"ward_1", "ward_2", "row"} <= set(texts(page, "#list .id"))
    until(page, lambda: texts(page, "#list .badge.unjudged") == [])
    assert "He has a cough." in texts(page, "#text")[0]
    key(page, "r")
    said(page, "rejected")


def test_a_long_list_is_shown_in_parts(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    notes = [Note(f"n{number}", text_of(0), labelled=False) for number in range(205)]
    findings = [replace(finding_of(0), note_id=note.note_id, p_error=1 - n / 500) for n, note in enumerate(notes)]
    write_findings(path, [JudgedNote(note, each, 0.5) for note, each in zip(notes, findings, strict=True)])
    with reviewing(browser, path) as (page, _):
        assert len(texts(page, "#list li")) == 200
        for number in range(2):
            key(page, "r")
            said(page, f"Note n{number} rejected")
        page.execute_script("document.querySelector('#list li:last-child button').click()")
        until(page, lambda: title(page) == "Note n199")
        key(page, "j")
        until(page, lambda: title(page) == "Note n200")
        assert len(texts(page, "#list li")) == 205
        assert texts(page, "#list [aria-current] .id") == ["n200"]
        assert not page.find_element("id", "more").is_displayed()
        press(page, "#filter option[value=decided]")
        assert texts(page, "#list .id") == ["n0", "n1"]


def test_a_note_that_cannot_be_judged_leaves_the_page_as_it_is(page: Any) -> None:
    press(page, "#open")
    page.execute_script("document.getElementById('pasted').value = 'x'.repeat(100001)")
    press(page, "#judge")
    until(page, lambda: "100,000 at most" in texts(page, "#open-trouble")[0])
    press(page, "#open-dialog button[value=cancel]")
    assert texts(page, "#count") == ["0 of 10 decided"]


def test_a_game_on_the_note_shows_the_edit_the_decision_and_the_words(page: Any) -> None:
    key(page, "p")
    said(page, "The game is played.")
    headings = texts(page, "#played h4")
    assert headings[0] == "Original note note 0"
    assert "Injector's attempts and the VCF" in headings
    assert len(texts(page, "#played .attempts > li")) >= 1
    assert re.search("accepted|rejected", texts(page, "#played .attempts b")[0])
    if "Assessor's words" in headings:
        assert "final_answer" in texts(page, "#played .said")[-1]
        assert texts(page, "#played .sides ins, #played .sides del") != []
    key(page, "j")
    until(page, lambda: title(page) == "Note note 1")
    assert texts(page, "#played") == [""]


# -- what a note says is never the page's ---------------------------------------------------------------------


def test_markup_in_a_note_is_shown_as_text(browser: Any, tmp_path: Path) -> None:
    text = f"He takes {HOSTILE} today. He is \u202ewell\u202c."
    finding = replace(
        finding_of(0), note_id=HOSTILE, sentence=0, sentence_text=f"He takes {HOSTILE} today.", says=HOSTILE,
        should_say=HOSTILE, correction=f"He takes {HOSTILE} now.",
    )  # fmt: skip
    path = tmp_path / "p.jsonl"
    write_findings(path, [JudgedNote(Note(HOSTILE, text, labelled=False), finding, 0.5)])
    with reviewing(browser, path) as (page, server):
        assert HOSTILE in texts(page, "#text")[0]
        assert "\\u202ewell" in texts(page, "#text")[0]
        assert texts(page, "#list .id") == [HOSTILE]
        assert texts(page, "#suggestion ins") == [HOSTILE]
        key(page, "p")
        said(page, "The game is played.")
        page.find_element("id", "comment").send_keys(HOSTILE)
        press(page, "#accept")
        said(page, "accepted, with the correction")
        assert page.title == "MedSeRL review"
        assert page.find_elements("css selector", "main img, nav img, main script, main iframe") == []
        assert page.get_log("browser") == []
        assert rows(path.with_name("p.decisions.jsonl"))[HOSTILE]["comment"] == HOSTILE
        server.rest()


def test_the_policy_forbids_markup_even_to_our_own_script(page: Any) -> None:
    code = "try { document.body.innerHTML = '<b>x</b>'; return 'set' } catch (error) { return error.name }"
    assert page.execute_script(code) == "TypeError"
    page.get_log("browser")


# -- who else may ask -----------------------------------------------------------------------------------------


UNNAMED = """
  return [...document.querySelectorAll("button, input, select, textarea, [role=group], nav, dialog")]
    .filter((e) => {
      const by = e.getAttribute("aria-labelledby");
      const named = by ? document.getElementById(by)?.textContent : e.getAttribute("aria-label");
      return !(named || e.closest("label")?.textContent || (e.tagName === "BUTTON" && e.textContent)).trim();
    })
    .map((e) => e.outerHTML.slice(0, 80));
"""

FAINT = """
  const channel = (v) => ((v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const paper = (e) => {
    for (; e; e = e.parentElement) {
      const found = parts(getComputedStyle(e).backgroundColor);
      if (found.length < 4 || found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  const faint = [];
  for (const e of document.querySelectorAll("header *, nav *, main *, footer *, .messages *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || e.disabled || e.closest("[disabled], option") || !e.checkVisibility()) continue;
    const [a, b] = [light(parts(getComputedStyle(e).color)), light(paper(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) faint.push([e.outerHTML.slice(0, 90), ratio.toFixed(2)]);
  }
  return faint;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_can_be_read_on_a_phone_and_a_laptop_in_light_and_dark(page: Any, width: int, scheme: str) -> None:
    with seen_as(page, width, scheme):
        for keys, words in (("a", "accepted"), ("r", "rejected"), ("p", "The game is played")):
            key(page, keys)
            said(page, words)
        assert overflow(page) == 0
        assert page.execute_script(FAINT) == []
        assert is_light(page) is (scheme == "light")


def test_everything_has_a_name_and_a_place_for_a_screen_reader(page: Any) -> None:
    assert page.execute_script(UNNAMED) == []
    assert page.find_element("id", "accept").aria_role == "button"
    assert page.find_element("id", "correction").accessible_name == "The sentence should read"
    assert page.find_element("css selector", "#list button").accessible_name.startswith("P(error) 0.95")
    assert texts(page, "#list [aria-current=true] .id") == ["note 0"]
    assert page.find_element("id", "status").get_attribute("aria-live") == "polite"
    assert page.find_element("id", "trouble").get_attribute("role") == "alert"
    assert page.execute_script("return [document.documentElement.lang, document.querySelectorAll('main').length]") == [
        "en", 1,
    ]  # fmt: skip
    assert "[the model points at this sentence: " in texts(page, "mark")[0]


def test_the_keyboard_alone_reaches_everything(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    wanted = {"open", "filter", "sentence", "error-type", "correction", "comment", "accept", "reject", "mode", "play"}
    reached = set()
    for _ in range(60):
        page.switch_to.active_element.send_keys(Keys.TAB)
        element = page.switch_to.active_element
        reached.add(element.get_attribute("id"))
        outline = element.value_of_css_property("outline-style")
        assert outline != "none" or element.tag_name == "body", element.get_attribute("outerHTML")
        if wanted <= reached:
            return
    pytest.fail(f"never reached: {wanted - reached}")
