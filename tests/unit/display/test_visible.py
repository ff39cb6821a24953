"""What notes, models and file names hold is shown, and commands no terminal."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from medserl.display.visible import visible, visible_line

HOSTILE = {
    "title": "\x1b]0;owned\x07",
    "clipboard": "\x1b]52;c;cm0gLXJm\x07",
    "link": "\x1b]8;;http://evil\x1b\\text\x1b]8;;\x1b\\",
    "colour": "\x1b[31mred\x1b[0m",
    "C1 introducer": "\x9b2J",
    "carriage return": "right\rwrong",
    "bidi override": "dose \u202e01\u202c mg",
    "isolate": "\u2066a\u2069",
    "zero width": "hyper\u200btension",
    "lone surrogate": "\ud800",
    "line separator": "a\u2028b",
}


def test_what_is_not_to_be_seen_is_written_out() -> None:
    for kind, text in HOSTILE.items():
        shown = visible(text)
        assert shown.isprintable(), kind
        assert "\\" in shown, kind
    assert visible("\x1b[31m") == r"\x1b[31m"
    assert visible("\u202e") == r"\u202e"


def test_clinical_text_is_left_as_it_is() -> None:
    for text in ("≥ 38.3 °C, β-blocker, 5 µg", "Müller\nsecond line\tcolumn", "a\u00a0b\u2009mg", "患者は発熱がある"):
        assert visible(text) == text


@given(st.text())
def test_nothing_shown_is_a_control_character(text: str) -> None:
    for char in visible(text):
        assert char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    assert len(visible_line(text).splitlines()) <= 1


@given(st.text(st.characters(categories=("L", "N", "P", "S", "Mn"), codec="utf-8")))
def test_letters_numbers_and_signs_stay(text: str) -> None:
    assert visible(text) == text
