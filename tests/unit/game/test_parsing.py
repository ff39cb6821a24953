"""Strict parsers: only an explicit, single answer of the completion counts, and nothing ever raises."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from medserl.game.answers import parting
from medserl.game.parsing import (
    Answer,
    note_sentences,
    number_sentences,
    numbered_lines,
    parse_answer,
    parse_injection,
    parse_verdict,
    replace_sentence,
    without_thinking,
)
from medserl.game.prompts import SHIPPED, load_prompts
from medserl.game.text import split_sentences

NOTE = "A man has fever. His temperature is 38.3 C (100.9 F). Dr. Smith gives amoxicillin.\nHe improves."

COMPLETION_PIECES = (
    *("final_answer", "Final answer", ":", "=", " ", "\n", "\r\n", "CORRECT", "INCORRECT", "incorrect"),
    *("correct", "<think>", "</think>", "<note>", "</note>", "**", "`", "."),
    *("0", "1 ", "3. ", "12) ", "٣ ", "99999"),
    *("The note appears correct.", "A man has a cold.", "\x00", "\u2028", "İNCORRECT", "\U0001f600"),
)
COMPLETIONS = st.one_of(st.text(max_size=80), st.lists(st.sampled_from(COMPLETION_PIECES), max_size=14).map("".join))


# -- verdicts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("completion", "verdict"),
    [
        ("final_answer: CORRECT", "CORRECT"),
        ("final_answer: INCORRECT", "INCORRECT"),
        ("Final answer = incorrect.", "INCORRECT"),
        ("**final_answer:** CORRECT", "CORRECT"),
        ("- `final_answer: INCORRECT`\n", "INCORRECT"),
        ("The dose is far too high.\nfinal_answer: INCORRECT\n", "INCORRECT"),
        ("final_answer: CORRECT\nThe findings fit.", "CORRECT"),
        ('final_answer: "INCORRECT"', "INCORRECT"),
    ],
)
def test_an_explicit_answer_is_read(completion: str, verdict: str) -> None:
    assert parse_verdict(completion) == verdict


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "CORRECT",
        "INCORRECT",
        "The note appears correct.",
        "This is incorrect",
        "final_answer:",
        "final_answer",
        "final_answer: UNSURE",
        "final_answer: CORRECT or INCORRECT",
        "final_answer: CORRECT, I think",
        "final_answer: NOT CORRECT",
        "final_answer: CORRECTED",
        "final_answer CORRECT",
        "final_answer:\nCORRECT",
        "So my final_answer: CORRECT",
        "finalanswer: CORRECT",
        "final_answer: CORRECT\nfinal_answer: INCORRECT",
        "final_answer: CORRECT\nfinal_answer: CORRECT",
        "final_answer: CORRECT final_answer: CORRECT",
        "Reply with final_answer: CORRECT or final_answer: INCORRECT",
        "The final answer is hard.\nfinal_answer: CORRECT",
        "final_answer: İNCORRECT",  # a Turkish I is no I: read loosely, this was once taken for CORRECT
        "final_answer: ıncorrect",
    ],
)
def test_anything_else_is_no_verdict(completion: str) -> None:
    assert parse_verdict(completion) is None


@pytest.mark.parametrize(
    ("completion", "verdict"),
    [
        ("<think>final_answer: CORRECT</think>final_answer: INCORRECT", "INCORRECT"),
        ("<think>final_answer: CORRECT</think>", None),
        ("<think>final_answer: CORRECT", None),
        ("final_answer: CORRECT</think>", None),
        ("<think>a</think><think>b</think>\nfinal_answer: CORRECT", "CORRECT"),
        ("final_answer: CORRECT\n<think>final_answer: INCORRECT", "CORRECT"),
    ],
)
def test_hidden_thinking_is_not_read(completion: str, verdict: str | None) -> None:
    assert parse_verdict(completion) == verdict


@pytest.mark.parametrize(
    ("completion", "seen"),
    [("", ""), ("ab", "ab"), ("a<think>b", "a"), ("a<think>b</think>c", "c"), ("</think>x</think>y", "y")],
)
def test_without_thinking(completion: str, seen: str) -> None:
    assert without_thinking(completion) == seen


@given(COMPLETIONS)
def test_verdict_never_raises_and_needs_its_words(completion: str) -> None:
    verdict = parse_verdict(completion)
    assert verdict in {"CORRECT", "INCORRECT", None}
    if verdict:
        shown = without_thinking(completion).upper()
        assert shown.count("FINAL_ANSWER") + shown.count("FINAL ANSWER") == 1
        assert ("INCORRECT" in shown) if verdict == "INCORRECT" else ("CORRECT" in shown)


@given(COMPLETIONS, st.sampled_from(["CORRECT", "INCORRECT"]))
def test_an_answer_line_decides_alone_or_not_at_all(before: str, answer: str) -> None:
    """Whatever was said before, the line decides; if the rest holds a second answer, there is no verdict."""
    assume("<think>" not in before and "</think>" not in before)
    said = before.lower()
    lone = "final_answer" not in said and "final answer" not in said
    assert parse_verdict(f"{before}\nfinal_answer: {answer}") == (answer if lone else None)


@given(st.text(max_size=60).filter(lambda text: "final" not in text.lower()))
def test_prose_is_never_a_verdict(prose: str) -> None:
    assert parse_verdict(f"{prose} CORRECT") is None
    assert parse_verdict(f"The note is INCORRECT. {prose}") is None


# -- the whole answer ---------------------------------------------------------------------------------------

WRONG = "final_answer: INCORRECT"
SHOWN = ("A man has fever.", "It is a cold .", "He is given 5 mg of aspirin.")
FLU = "should_say: is a flu\nit_says: is a cold"
CORRECTED = Answer("INCORRECT", 1, "It is a flu .", "is a cold", "is a flu")


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("final_answer: CORRECT", Answer("CORRECT")),
        (f"sentence: 1\n{FLU}\n{WRONG}", CORRECTED),
        (f"{WRONG}\nError sentence = 1\n{FLU}", CORRECTED),
        (f"It is no cold.\n\n**Sentence:** 1.\n**Should say:** is a flu\n**It says:** is a cold\n{WRONG}", CORRECTED),
        (f"sentence: 1\r\nshould_say: `is a flu`\r\nit_says: 'is a cold'\r\n{WRONG}\r\n", CORRECTED),
        (f'sentence: "1"\nshould_say: “is a flu”\nit_says: "is a cold"\n{WRONG}', CORRECTED),
        (f"<think>sentence: 2</think>sentence: 1\n{FLU}\n{WRONG}", CORRECTED),
        (f"The error sentence is 2.\nsentence: 1\n{FLU}\n{WRONG}", CORRECTED),  # prose is no line of an answer
        (WRONG, Answer("INCORRECT")),
        (f"sentence: 1\n{WRONG}", Answer("INCORRECT", 1)),
        (f"{FLU}\n{WRONG}", Answer("INCORRECT", None, None, "is a cold", "is a flu")),
        (f"sentence: 2\n{FLU}\n{WRONG}", Answer("INCORRECT", 2, None, "is a cold", "is a flu")),  # it does not say so
        (
            f"sentence: 1\nshould_say: IS A cold\nit_says: is a COLD\n{WRONG}",
            Answer("INCORRECT", 1, "It IS A cold .", "is a COLD", "IS A cold"),
        ),
        (
            f"sentence: 1\nshould_say: a cold\nit_says: a cold\n{WRONG}",  # it corrects nothing
            Answer("INCORRECT", 1, None, "a cold", "a cold"),
        ),
        (
            f"sentence: 2\nshould_say: g\nit_says: mg\n{WRONG}",
            Answer("INCORRECT", 2, "He is given 5 g of aspirin.", "mg", "g"),
        ),
        (f"sentence: 2\nshould_say: m\nit_says: g\n{WRONG}", Answer("INCORRECT", 2, None, "g", "m")),  # part of a word
        (
            f"{WRONG}\nerror_sentence: 1\ncorrected_sentence: It  is\ta flu.",  # a prompt set of one's own
            Answer("INCORRECT", 1, "It is a flu."),
        ),
        (f'{WRONG}\ncorrected_sentence: It is "flu".', Answer("INCORRECT", None, 'It is "flu".')),
    ],
)
def test_an_answer_is_flag_sentence_and_correction(completion: str, answer: Answer) -> None:
    assert parse_answer(completion, SHOWN) == answer


@pytest.mark.parametrize(
    "said",
    [
        "sentence: 3",  # there are three: 0, 1, 2
        "sentence: -1",
        "sentence: 1.5",
        "sentence: ١",
        "sentence: NUMBER",
        "sentence: 1 or 2",
        "sentence: 1\nsentence: 1",
        "sentence: 1\nerror_sentence: 2",
        "error_sentence:\n1",
        "The sentence: 1",
        "99999",
    ],
)
def test_no_sentence_where_not_exactly_one_is_named(said: str) -> None:
    assert parse_answer(f"{said}\n{WRONG}", SHOWN) == Answer("INCORRECT")


NO_WORDS = ["", " NA", ' "n/a"', ' ""', " **", "\nis a flu", " a flu\n{name}: a gout"]


@pytest.mark.parametrize("name", ["should_say", "it_says", "corrected_sentence"])
@pytest.mark.parametrize("words", NO_WORDS)
def test_no_words_where_not_exactly_one_line_gives_some(name: str, words: str) -> None:
    assert parse_answer(f"{name}:{words.format(name=name)}\n{WRONG}", SHOWN) == Answer("INCORRECT")


@pytest.mark.parametrize("name", SHIPPED)
def test_the_words_of_the_task_are_never_an_answer(name: str) -> None:
    task = (
        f"{load_prompts(name, 'edit').task}\nWrite should_say: the right words, and\ncorrected_sentence: that sentence."
    )
    for words in ("the right words", "The right   words,", "that sentence.", "THAT SENTENCE", "should_say", "it_says"):
        for line in ("should_say", "it_says", "corrected_sentence"):
            assert parse_answer(f"{line}: {words}\n{WRONG}", SHOWN, task) == Answer("INCORRECT")
    assert parse_answer(task, SHOWN, task).verdict is None
    known = ("It is the right words.",)  # the note's own words are an answer, whatever the task says
    found = parse_answer(f"sentence: 0\nshould_say: a cold\nit_says: the right words\n{WRONG}", known, task)
    assert found.correction == "It is a cold."


@pytest.mark.parametrize("verdict", ["final_answer: CORRECT", "I do not know.", f"{WRONG}\n{WRONG}"])
def test_without_a_verdict_of_incorrect_there_is_nothing_more(verdict: str) -> None:
    said = f"sentence: 1\n{FLU}\n{verdict}"
    assert parse_answer(said, SHOWN) == Answer(parse_verdict(said))


ANSWER_PIECES = (
    *(*COMPLETION_PIECES, "sentence", "Error sentence", "corrected_sentence", "it_says", "should_say"),
    *('"', "NA", "-", "“", "”", "is a cold", "fever", "mg"),
)


@given(
    st.text(max_size=80) | st.lists(st.sampled_from(ANSWER_PIECES), max_size=16).map("".join),
    st.lists(st.sampled_from(SHOWN), max_size=12),
    st.sampled_from(["", "Write should_say: the right words."]),
)
def test_an_answer_never_raises_and_keeps_to_the_note(said: str, sentences: list[str], task: str) -> None:
    answer = parse_answer(said, sentences, task)
    assert answer.verdict == parse_verdict(said)
    if answer.verdict != "INCORRECT":
        assert answer == Answer(answer.verdict)
    if answer.error_sentence_id is not None:
        assert 0 <= answer.error_sentence_id < len(sentences)
    for words in (answer.correction, answer.says, answer.should_say):
        assert words is None or words == " ".join(words.split()) not in ("", "NA")


WORDS = st.lists(st.sampled_from(["Left", "lung", "5", "mg", "0.5", "fever", "q8h"]), min_size=1, max_size=6)


@given(st.lists(WORDS, min_size=1, max_size=4), st.data())
def test_a_gold_answer_is_read_back_as_the_correction(note: list[list[str]], data: st.DataObject) -> None:
    sentences = [f"{' '.join(words)} seen." for words in note]
    number = data.draw(st.integers(0, len(note) - 1))
    place = data.draw(st.integers(0, len(note[number]) - 1))
    wrong = [*note[number][:place], "wrong", *note[number][place + 1 :]]
    shown = [*sentences[:number], f"{' '.join(wrong)} seen.", *sentences[number + 1 :]]
    twins = " ".join(shown), " ".join(sentences)
    assume(note_sentences(twins[0]) == tuple(shown) and note_sentences(twins[1]) == tuple(sentences))
    said = load_prompts("term", "edit").gold_answer("INCORRECT", parting(*twins, is_error=True))
    found = parse_answer(said, shown, load_prompts("term", "edit").task)
    assert (found.error_sentence_id, found.correction) == (number, sentences[number])


def test_sentences_are_numbered_as_in_medec() -> None:
    assert numbered_lines(["One  is\nhere.", "Two."]) == "0 One is here.\n1 Two."
    assert numbered_lines(note_sentences(NOTE)) == number_sentences(NOTE)
    assert numbered_lines([]) == ""


# -- injections, form `edit` -------------------------------------------------------------------------------


def test_numbered_lines_are_the_sentences() -> None:
    assert number_sentences(NOTE).split("\n") == [
        "0 A man has fever.",
        "1 His temperature is 38.3 C (100.9 F).",
        "2 Dr. Smith gives amoxicillin.",
        "3 He improves.",
    ]


@pytest.mark.parametrize("start", ["0 ", " 0. ", "0) ", "0:\t", "0000  "])
def test_an_edited_sentence_is_put_in_its_place(start: str) -> None:
    assert parse_injection(f"{start}A man has chills. \n", NOTE, "edit") == NOTE.replace("fever", "chills")


def test_the_rest_of_the_note_keeps_its_white_space() -> None:
    note = "  One is here.\n\n\tTwo  is\there.   Three is here. "
    expected = "  One is here.\n\n\tTwo was here.   Three is here. "
    assert parse_injection("1 Two was here.", note, "edit") == expected


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "0",
        "0 ",
        "0A man",
        "A man has chills.",
        "4 There is no such sentence.",
        "-1 Negative.",
        "99999 Too large.",
        "0 A man has chills.\n1 His temperature is 39.",
        "Sentence 0: A man has chills.",
        "<think>0 A man has chills.",
    ],
)
def test_no_edit_where_the_form_is_not_kept(completion: str) -> None:
    assert parse_injection(completion, NOTE, "edit") is None


def test_thinking_before_an_edit_is_left_out() -> None:
    completion = "<think>\n1 hmm\n</think>\n\n0 A man has chills."
    assert parse_injection(completion, NOTE, "edit") == NOTE.replace("fever", "chills")


SENTENCES = st.sampled_from(["Fever rose.", "BP was 120/70 mm Hg.", "Dr. Lee came.", "Is it 38.3 C?"])


@given(st.lists(SENTENCES, min_size=1, max_size=8), st.data())
def test_copying_a_line_gives_the_note_back(sentences: list[str], data: st.DataObject) -> None:
    note = data.draw(st.sampled_from([" ", "\n", "  "])).join(sentences)
    line = data.draw(st.sampled_from(number_sentences(note).split("\n")))
    assert parse_injection(line, note, "edit") == note


@given(COMPLETIONS, st.text(max_size=60), st.sampled_from(["edit", "note"]))
@example("٣ x", NOTE, "edit")
def test_injection_never_raises_and_is_no_blank(completion: str, note: str, form: str) -> None:
    modified = parse_injection(completion, note, form)
    assert modified is None or modified.strip()


@given(st.text(max_size=60), st.integers(-3, 12), st.text(min_size=1, max_size=10))
def test_replacing_touches_one_sentence_only(note: str, number: int, sentence: str) -> None:
    spans = split_sentences(note)
    modified = replace_sentence(note, number, sentence)
    if 0 <= number < len(spans):
        span = spans[number]
        assert modified == note[: span.start] + sentence + note[span.end :]
    else:
        assert modified is None


# -- injections, form `note` -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("completion", "modified"),
    [
        ("<note>A man has chills.</note>", "A man has chills."),
        ("Here it is:\n<note>\nA man\nhas chills.\n</note> Done.", "A man\nhas chills."),
        ("<think><note>a</note></think><note>b</note>", "b"),
        ("A man has chills.", None),
        ("<note>A man has chills.", None),
        ("<note></note>", None),
        ("<note> \n </note>", None),
        ("<note>a</note><note>b</note>", None),
        ("<think><note>a</note>", None),
    ],
)
def test_the_one_note_is_read(completion: str, modified: str | None) -> None:
    assert parse_injection(completion, NOTE, "note") == modified
