"""Sentences of clinical notes: lines, lists, wrapped text, abbreviations, and whatever a file may hold."""

from __future__ import annotations

import logging
import re
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.game import Reason, apply_vcf, sentences
from medserl.game.layout import laid_out_like
from medserl.game.parsing import note_sentences, number_sentences, parse_injection, replace_sentence
from medserl.game.text import split_sentences

# -- full stops -----------------------------------------------------------------------------------------------------

ENDS = [
    "Her pulse is 82/min.|Bruises are seen.",
    "Sedimentation rate is 80 mm/h.|An x-ray is normal.",
    "Temperature is 38.5 C.|He takes aspirin.",
    "Alkaline phosphatase is 130 U/L.|Ibuprofen is stopped.",
    "The dose is 1 g.|Renal function is normal.",
    "He looks ill.|Examination shows pallor.",
    "It is shown in Figure A.|Patient is diagnosed with gout.",
    "He has hepatitis C.|She is well.",
    "He takes aspirin b.i.d.|His mother is well.",
    "Furosemide 20 mg q.d.|Lisinopril 10 mg.",
    "QTc is 590 ms.|The next step is magnesium.",
    "The fetal heart rate is 140/min.|24 hours later it is 90/min.",
    'He says "I have cancer."|She agrees.',
    "Temperature is 38.3 C (100.9 F).|Pulse is 90/min.",
    "1. Aspirin.|2. Lisinopril.|3. Vit. D.",
    "no fever.|no chills.|denies pain.",
    "aspirin 81 mg.|denies chest pain.",
]
GOES_ON = [
    "Give 0.5 mg. of epinephrine.",
    "He takes Vit. D daily.",
    "She was seen by Dr. Smith and by Mrs. Jones.",
    "It was given i.v. Monday by J. Smith.",
    "He takes it approx. five times in bed No. 5 as in Fig. 3 shown.",
    "A 5 yr. old boy with a 12-lb. weight loss.",
    "Iron q.d. with food and aspirin b.i.d. for a week.",
    "S. aureus and E. coli grew, vs. A. fumigatus.",
    "At 8 a.m. Monday the pain began.",
    "Blood pressure is 120/70 mm Hg (St. Mary's cuff).",
    "1. Aspirin 81 mg.",
    "A hx. of asthma, temp. 38.5 C, O2 sat. 95% and rt. arm pain.",
    "He is 5 ft. 3 in. tall and has Hep. B.",
]


@pytest.mark.parametrize("text", ENDS)
def test_a_full_stop_after_a_unit_or_a_number_ends_a_sentence(text: str) -> None:
    assert note_sentences(text.replace("|", " ")) == tuple(text.split("|"))


@pytest.mark.parametrize("text", GOES_ON)
def test_a_full_stop_after_an_abbreviation_does_not(text: str) -> None:
    assert note_sentences(text) == (text,)


def test_two_statements_are_no_single_error() -> None:
    note = "He is a man of 40 years with a cough. His pulse is 82/min. Bruises are seen on both of his legs today."
    both = note.replace("82/min. Bruises", "182/min. Rashes")
    assert apply_vcf(note, both, min_jaccard=0.0).reason is Reason.SEVERAL_SENTENCES
    assert apply_vcf(note, note.replace("82/min", "182/min")).passed


def terminators() -> list[str]:
    """Every character that ends a sentence where a full stop stands."""
    found = [chr(code) for code in range(1, 0x20000) if not 0xD800 <= code < 0xE000]
    return [
        mark for mark in found if not mark.isalnum() and len(split_sentences(f"It is clear{mark} Her skin is dry.")) > 1
    ]


def test_the_filter_knows_every_terminator_of_the_splitter() -> None:
    marks = terminators()
    assert len(marks) > 100
    for mark in marks:
        note = f"He is a man of 40 years with a cough. It is clear{mark} Her skin is dry on the arms and legs today."
        both = note.replace("clear", "dull").replace("Her", "His")
        assert apply_vcf(note, both, min_jaccard=0.0).reason is Reason.SEVERAL_SENTENCES


# -- lines ----------------------------------------------------------------------------------------------------------

WRAPPED = (
    "Mr. Jones is a 67-year-old man with a history of hypertension and type 2",
    "diabetes who was seen by Dr. Smith because of chest pain at rest and",
    "Staphylococcus aureus bacteremia for the last three days. He denies fever,",
    "chills and night sweats.",
)
MEDICATIONS = ("aspirin 81 mg daily", "lisinopril 10 mg daily", "Metoprolol 25 mg b.i.d.", "warfarin 5 mg nightly")
BREAKS = ("\n", "\r\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\u2029")


@pytest.mark.parametrize("line_break", BREAKS)
def test_lines_end_sentences_and_wrapped_lines_do_not(line_break: str) -> None:
    note = line_break.join(("HISTORY:", *WRAPPED, "", "MEDICATIONS:", *MEDICATIONS, "Plan: admit"))
    joined = " ".join(WRAPPED)
    end = joined.index("He denies")
    expected = ("HISTORY:", joined[: end - 1], joined[end:], "MEDICATIONS:", *MEDICATIONS, "Plan: admit")
    assert tuple(" ".join(sentence.split()) for sentence in note_sentences(note)) == expected


@pytest.mark.parametrize("mark", ["- ", "-", "* ", "• ", "1. ", "2) ", "(a) ", "b. ", "[x] ", "☐ ", "\t", "  "])
def test_list_items_are_sentences(mark: str) -> None:
    items = [f"{mark}{medication}" for medication in MEDICATIONS]
    assert note_sentences("He takes:\n" + "\n".join(items)) == ("He takes:", *(item.strip() for item in items))


def test_two_doses_on_two_lines_are_two_errors() -> None:
    note = "Medications\n" + "\n".join(MEDICATIONS)
    two = note.replace("81 mg", "325 mg").replace("10 mg", "100 mg")
    assert apply_vcf(note, two, min_jaccard=0.0).reason is Reason.SEVERAL_SENTENCES
    assert apply_vcf(note, note.replace("81 mg", "325 mg")).passed


@pytest.mark.parametrize(
    "text", ["Her pulse is\n106/min today.", "He is allergic to\nSulfa drugs.", "He saw Dr.\nSmith."]
)
def test_a_line_that_breaks_off_goes_on(text: str) -> None:
    assert note_sentences(text) == (text,)


# -- edits of laid-out notes ----------------------------------------------------------------------------------------

NOTE_LINES = (
    *WRAPPED,
    "",
    "Medications:",
    *(f"\t- {medication}" for medication in MEDICATIONS),
    "  Na\t140\tK\t4.0",
    "Plan:\tadmit  ",
)


@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
def test_an_edit_changes_its_words_and_leaves_all_else_to_the_byte(line_break: str) -> None:
    note = line_break.join(NOTE_LINES) + line_break
    for old, new in (("type 2", "type 1"), ("rest and", "work and"), ("10 mg", "100 mg"), ("140", "104")):
        lines = number_sentences(note).splitlines()
        (number,) = [i for i, line in enumerate(lines) if old in line]
        sentence = lines[number].split(" ", 1)[1].replace(old, new)
        assert "\t" not in sentence and "\n" not in sentence
        assert replace_sentence(note, number, sentence) == note.replace(old, new)
        assert replace_sentence(note, number, sentence.removeprefix("- ")) == note.replace(old, new)


def test_a_whole_note_written_on_one_line_keeps_its_lines() -> None:
    note = "\n " + "\r\n".join(NOTE_LINES) + "\r\n"
    changed = note.replace("10 mg", "100 mg")
    for written in (changed, " ".join(changed.split()), "\n\n".join(changed.split("\r\n"))):
        assert parse_injection(f"<note>{written}</note>", note, "note") == changed.strip()


def breaks(text: str) -> list[str]:
    return re.findall("\r\n|[\n\r\x0b\x0c\x85\u2028\u2029]", text)


WORDS = st.lists(st.sampled_from(("pain", "no", "10", "mg", "daily", "fever,")), min_size=1, max_size=12)


@given(WORDS, WORDS, st.lists(st.sampled_from((" ", "  ", "\n", "\r\n\t", " \n\n ")), min_size=12, max_size=12))
def test_an_edit_keeps_every_line_break_and_says_what_it_says(old: list[str], new: list[str], gaps: list[str]) -> None:
    laid_out = "".join(word + gap for word, gap in zip(old, gaps, strict=False)).rstrip()
    written = laid_out_like(laid_out, " ".join(new))
    assert written.split() == new
    assert breaks(written) == breaks(laid_out)
    if breaks(laid_out):
        assert laid_out_like(laid_out, " ".join(old)) == laid_out


# -- whatever a file may hold ---------------------------------------------------------------------------------------

ODD = st.text(
    st.one_of(
        st.sampled_from("CDIA. .!?\"'()«»“”…。\u00a0\u2003\u3000\u200b\u2028\x1c\x85\t\n\r\x00\ufeff\ud800é한"),
        st.characters(),
    ),
    max_size=60,
)


@pytest.mark.parametrize("white_space", [chr(code) for code in range(0x3001) if chr(code).isspace()])
def test_odd_white_space_is_read_as_blank(white_space: str) -> None:
    note = f"Temperature is 38.5 C{white_space}. He takes aspirin."
    assert note_sentences(note)[-1] == "He takes aspirin."


@given(ODD)
def test_it_never_fails_and_holds_all_text_in_order(note: str) -> None:
    end = 0
    for span in split_sentences(note):
        assert not note[end : span.start].strip()
        assert note[span.start : span.end].strip() == note[span.start : span.end] != ""
        end = span.end
    assert not note[end:].strip()


class PanicException(BaseException):
    """Named as the native library's own is, and as little an Exception."""


def fails_with(error: BaseException) -> Callable[[str, str], list[dict[str, int]]]:
    def boundaries(language: str, text: str) -> list[dict[str, int]]:
        raise error

    return boundaries


@pytest.mark.parametrize("error", [PanicException("byte index 22"), ValueError("bad")])
def test_a_panic_of_the_library_is_said_once_and_harmless(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sentences, "get_sentence_boundaries", fails_with(error))
    sentences.say_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        found = [note_sentences(f"He is {error} and {word}. She is well! Is it so? Yes.") for word in ("pale", "tired")]
    assert [len(each) for each in found] == [4, 4]
    assert len(caplog.records) == 1 and "splitter failed" in caplog.text


def test_an_interrupt_is_no_panic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentences, "get_sentence_boundaries", fails_with(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        note_sentences("An interrupt. It is not ours.")


@pytest.mark.parametrize("unit", ["« a. ", "C . ", "a.", "Aa bb ", '("', "\u0300\u0316", "- a\n", "1. ", "\r"])
def test_a_long_text_takes_little_more_work_than_its_length(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library takes quadratic time on some texts, so it is never given a long one."""
    given_to_it: list[int] = []
    library = sentences.get_sentence_boundaries

    def counted(language: str, text: str) -> list[dict[str, int]]:
        given_to_it.append(len(text))
        return library(language, text)

    monkeypatch.setattr(sentences, "get_sentence_boundaries", counted)
    note = unit * (100_000 // len(unit))
    split_sentences(note)
    assert max(given_to_it, default=0) <= sentences.LONGEST_PIECE
    assert sum(given_to_it) <= len(note)


def test_long_notes_are_not_remembered() -> None:
    tracemalloc.start()
    try:
        for number in range(40):
            split_sentences(f"{number} " + "It is a long note. " * 2_000)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 40 * 38_000 / 4  # the texts alone have 38,000 characters each
