"""Edits that nobody can see are no change, and every sign that a reader goes by is a word."""

from __future__ import annotations

import re
import unicodedata

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from medserl.game import Reason, apply_vcf, text
from medserl.game.lookalikes import APOSTROPHES, MOST_MARKS, fold, normalize
from medserl.game.text import split_words

NOTE = "The patient's T-score is low and her BP, Hgb and Pax index are hypertensive; a cough is heard at rest."


def no_change(original: str, modified: str) -> bool:
    return apply_vcf(original, modified).reason is Reason.NO_CHANGE


def seen(original: str, modified: str) -> bool:
    """Whether the pair, each in a sentence, is an edit both ways."""
    one, other = (f"On this day the finding was {each}, in the morning." for each in (original, modified))
    return apply_vcf(one, other).word_edits > 0 and apply_vcf(other, one).word_edits > 0


# -- what nobody can see --------------------------------------------------------------------------------------------

INVISIBLE = [
    chr(code)
    for code in range(0x110000)
    if unicodedata.category(chr(code)) in ("Cf", "Cc") or regex.match(r"\p{Default_Ignorable_Code_Point}", chr(code))
]


@given(st.integers(0, len(NOTE)), st.text(st.sampled_from([c for c in INVISIBLE if not c.isspace()]), max_size=20))
def test_characters_that_are_not_shown_change_nothing(place: int, hidden: str) -> None:
    assert no_change(NOTE, NOTE[:place] + hidden + NOTE[place:])


@pytest.mark.parametrize("mark", APOSTROPHES)
def test_apostrophes_are_alike(mark: str) -> None:
    assert no_change(NOTE, NOTE.replace("'", mark))


@pytest.mark.parametrize("dash", "-‐‑‒–—―−﹣－")
def test_dashes_between_words_are_alike(dash: str) -> None:
    assert no_change(f"{NOTE} 5-8 mg", f"{NOTE} 5-8 mg".replace("-", dash))


@pytest.mark.parametrize("pair", ["“”", "«»", "''", "„“", "‹›", "()"])
def test_quotation_marks_are_punctuation(pair: str) -> None:
    assert no_change('He says "no pain" today.', f"He says {pair[0]}no pain{pair[1]} today.")


ALIKE = {
    "Cyrillic": str.maketrans("ABEKMHOPCTXaeopcyxsij", "АВЕКМНОРСТХаеорсухѕіј"),
    "Greek": str.maketrans("ABEZHIKMNOPTYXo", "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧο"),
    "small Greek among Latin": str.maketrans("viu", "νιυ"),
    "full width": {code: code + 0xFEE0 for code in range(0x30, 0x7B) if chr(code).isalnum()},
    "mathematical": {code: 0x1D400 + code - 65 for code in range(65, 91)}
    | {c: 0x1D41A + c - 97 for c in range(97, 123)},
    "Cherokee": str.maketrans("ABCEGHJKLMPRSTWYZ", "ᎪᏴᏟᎬᏀᎻᎫᏦᏞᎷᏢᏒᏚᎢᎳᎽᏃ"),
}


@pytest.mark.parametrize("script", ALIKE)
@given(places=st.sets(st.integers(0, len(NOTE) - 1)))
def test_letters_that_look_alike_are_alike(script: str, places: set[int]) -> None:
    swapped = "".join(c.translate(ALIKE[script]) if i in places else c for i, c in enumerate(NOTE))
    assert no_change(NOTE, swapped)


def test_a_greek_letter_that_stands_alone_is_a_name() -> None:
    assert seen("α-blocker", "a-blocker") and seen("β-blocker", "α-blocker") and seen("γ-GT", "y-GT")


@pytest.mark.parametrize(
    ("one", "other"), [("5 µg", "5 μg"), ("10⁹/L", "10^9/L"), ("m²", "m2"), ("CO₂", "CO2"), ("∆", "Δ")]
)
def test_two_ways_to_write_a_sign_are_alike(one: str, other: str) -> None:
    assert not seen(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("38 °C", "38 ˚C"),
        ("38 °C", "38 ºC"),
        ("2 × 5", "2 x 5"),
        ("~5", "∼5"),
        ("−8", "-8"),
        ("½", "1/2"),
        ("1½", "1 1/2"),
    ],
)
def test_look_alike_signs_are_alike(one: str, other: str) -> None:
    assert not seen(one, other)


# -- what a reader goes by ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *(
            (".5 mg", "5 mg"),
            ("-8", "8"),
            ("−2.5", "2.5"),
            ("(-3)", "(3)"),
            ("10⁹", "109"),
            ("10^9", "10 9"),
            ("10⁹", "10⁶"),
        ),
        *(
            ("10₂", "102"),
            ("½", "1"),
            ("1½", "11/2"),
            ("1/2", "12"),
            ("1:2", "1-2"),
            ("≠ 5", "= 5"),
            ("≠ 5", "5"),
            ("~5", "5"),
        ),
        *(
            ("↑", "↓"),
            ("→", "←"),
            ("↔", "→"),
            ("BP ↑", "BP"),
            ("2 × 5", "2 5"),
            ("38 °C", "38 C"),
            ("♀", "♂"),
            ("√", "ok"),
        ),
        *(("Babinski +", "Babinski -"), ("Babinski -", "Babinski"), ("HIV-, HBV+", "HIV, HBV+"), ("Rh- ", "Rh+ ")),
        *(
            ("Δ", ""),
            ("√ done", "done"),
            ("+CP -SOB", "+CP SOB"),
            ("seen ?PE", "seen PE"),
            ("12/min", "12 min"),
            ("5‰", "5%"),
        ),
        *(
            ("☐ smoker", "☑ smoker"),
            ("①", "②"),
            ("x̄", "x"),
            ("é", "e"),
            ("$5", "5"),
            ("5 %", "5"),
            ("⊕", "⊖"),
            ("∅", ""),
        ),
    ],
)
def test_a_sign_is_seen(one: str, other: str) -> None:
    assert seen(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("5-8 mg", "5 8 mg"),
        ("Covid-19", "Covid 19"),
        ("x-ray - normal", "x ray normal"),
        ("- 8 mg", "8 mg"),
        ("a / b", "a b"),
    ],
)
def test_a_hyphen_or_a_range_is_no_minus(one: str, other: str) -> None:
    assert not seen(one, other)


@given(st.characters(categories=("So", "Sm", "Sc")).filter(lambda c: not c.isspace()))
def test_any_symbol_taken_out_or_put_in_is_seen(symbol: str) -> None:
    if symbol in "|¦⠀\u2212" or not normalize(symbol).strip():
        return
    assert seen(f"5 {symbol} 3", "5 3")


@given(st.text(st.characters(max_codepoint=127), max_size=60))
def test_plain_text_is_read_as_any_other(ascii_text: str) -> None:
    """The pattern for ASCII finds what the pattern for all of Unicode finds."""
    found = [match.span() for match in text._ASCII_WORD.finditer(ascii_text)]
    assert found == [match.span() for match in text._WORD.finditer(ascii_text)]


@given(st.text(max_size=60))
def test_normalising_and_folding_are_done_in_one_step(any_text: str) -> None:
    assert normalize(normalize(any_text)) == normalize(any_text)
    for key in split_words(any_text).keys:
        assert key and fold(key) == fold(fold(key))


# -- what comes in masses -------------------------------------------------------------------------------------------

MASSES = [
    "😀",
    "☐ ",
    "\u200b",
    "\ufe0f",
    "\x00",
    ".",
    " ",
    "\n",
    "-",
    "_",
    "\u0301",
    "\ue000",
    "\ud800",
    "a",
    "1",
    "'a",
    ".1",
    "⠀",
    "!?",
]


@pytest.mark.parametrize("mass", MASSES)
@pytest.mark.parametrize("glue", ["", " "])
def test_a_mass_of_anything_beside_one_word_is_no_small_edit(mass: str, glue: str) -> None:
    modified = NOTE.replace("cough", f"murmur{glue}{mass * 5_000}")
    assert apply_vcf(NOTE, modified).reason is Reason.TOO_MANY_EDITS


def test_another_layout_beside_one_word_is_a_small_edit() -> None:
    laid_out = re.sub(r"([;,.]) ?", r"\1\n\n    ", NOTE)
    assert apply_vcf(NOTE, laid_out.replace("cough", "murmur")).passed


def test_marks_without_end_are_bounded() -> None:
    """Putting n marks in order takes n * n steps: only the first ones are read."""
    assert len(normalize("a" + "\u0316\u0301" * 50_000 + "b")) <= MOST_MARKS + 2
    assert no_change("a" + "\u0316\u0301" * 50_000, "a" + "\u0316\u0301" * 60_000)
