"""Hidden thinking in every form that models write: never read as an answer, closed or cut off."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.game.parsing import parse_injection, parse_verdict, with_each_verdict
from medserl.game.thinking import without_thinking

FORMS = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<Thought>", "</Thought>"),
    ("<seed:think>", "</seed:think>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|channel>thought\n", "<channel|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("Here is my thought process: ", "Here is my response:"),
    ("<unused94>thought\n", "<unused95>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
]
ANSWER = "final_answer: CORRECT"
NOTE = "He has fever. He rests."


@pytest.mark.parametrize(("opening", "closing"), FORMS)
def test_what_was_thought_is_no_answer(opening: str, closing: str) -> None:
    assert parse_verdict(f"{opening}\nfinal_answer: INCORRECT\n{closing}\n{ANSWER}") == "CORRECT"
    assert parse_verdict(f"{opening}\n{ANSWER}\n{closing}") is None
    assert parse_injection(f"{opening}\n1 He dies.\n{closing}1 He runs.", NOTE, "edit") == "He has fever. He runs."


@pytest.mark.parametrize(("opening", "closing"), FORMS)
def test_a_thought_cut_off_hides_what_follows(opening: str, closing: str) -> None:
    assert parse_verdict(f"{opening}\n{ANSWER}") is None
    assert parse_injection(f"{opening}1 He runs.", NOTE, "edit") is None
    assert with_each_verdict(f"{opening}\n{ANSWER}") is None
    assert without_thinking(f"a{opening}b{closing}c{opening}{ANSWER}") == "c"


@given(st.lists(st.sampled_from([*(part for form in FORMS for part in form), "a", "\n"]), max_size=8))
def test_an_answer_inside_an_open_thought_is_never_visible(pieces: list[str]) -> None:
    said = "".join(pieces)
    for opening, _ in FORMS:
        assert "hidden answer" not in without_thinking(f"{said}{opening}hidden answer")


@pytest.mark.parametrize("text", ["a < b", "[sic]", "I think, thinking aloud", "<5 mg", "channel: thought"])
def test_ordinary_words_hide_nothing(text: str) -> None:
    assert without_thinking(f"{text}\n{ANSWER}") == f"{text}\n{ANSWER}"
