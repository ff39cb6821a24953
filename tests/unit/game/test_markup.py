"""An edit that would close a turn, or open one, inside the note is no edit; clinical signs are left alone."""

from __future__ import annotations

import pytest

from medserl.game.markup import markup_in
from medserl.game.parsing import parse_injection

NOTE = "He has fever. He takes 5 mg of warfarin."
MARKERS = (
    *("[INST]", "[/INST]", "<|im_end|>", "<|im_start|>", "<|eot_id|>", "<|start_header_id|>", "<start_of_turn>"),
    *("<end_of_turn>", "<|assistant|>", "<|end|>", "<｜User｜>", "<｜end▁of▁sentence｜>", "</s>", "<s>", "<bos>"),
    *("<think>", "</think>", "<seed:think>", "[THINK]", "[/THINK]", "◁think▷", "<|channel>", "<channel|>"),
    *("<|END_OF_TURN_TOKEN|>", "<<SYS>>", "<</SYS>>", "[SYSTEM_PROMPT]", "<unused94>", "<0x0A>", "<pad>", "<note>"),
    *("＜|im_end|＞", "［/INST］", "<|reserved_special_token_0|>", "<fim_prefix>", "[gMASK]", "<|return|>"),
    *(
        "[|endofturn|]",
        "[|user|]",
        "[e~[",
        "]~b]",
        "<reserved_106>",
        "<SPECIAL_10>",
        "<extra_id_1>",
        "<|header_start|>",
    ),
)
CLINICAL = (
    *("<5 mg", ">38.3 C", "pH < 7.2 and > 6.9", "[sic]", "[PAD]", "T<38 | P>100", "5 <= x <= 7", "<--", "-->", "<3"),
    *("[1]", "[Name]", "((severe))", "a|b", "<>", "< 5 mg >", "[-/-]", "10/[12]", "{x}", "120/70"),
)


@pytest.mark.parametrize("marker", MARKERS)
@pytest.mark.parametrize("form", ["edit", "note"])
def test_an_edit_that_brings_a_control_token_is_none(marker: str, form: str) -> None:
    sentence = f"He takes 5 mg {marker} of warfarin."
    said = f"1 {sentence}" if form == "edit" else f"<note>He has fever. {sentence}</note>"
    assert parse_injection(said, NOTE, form) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("text", CLINICAL)
def test_clinical_signs_are_no_markup(text: str) -> None:
    sentence = f"He takes {text} of warfarin."
    assert parse_injection(f"1 {sentence}", NOTE, "edit") == f"He has fever. {sentence}"
    assert not markup_in(text)


def test_markup_of_the_original_may_stay_but_not_grow() -> None:
    note = "He has <NAME> fever. He rests </s> well."
    assert parse_injection("1 He sleeps </s> well.", note, "edit") == "He has <NAME> fever. He sleeps </s> well."
    assert parse_injection("1 He rests </s></s> well.", note, "edit") is None
    assert parse_injection("0 He has <NAME> <DATE> fever.", note, "edit") is None


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "piece",
    [
        *("<note>", "</note>", "<note></note", "<|", "<a", "[/a", "[INST", "◁a", "<think>", "</think", "<|channel|>"),
        *("final_answer", "final_answer:", "*", "\t", "1 ", "a\n", "corrected_sentence: ", "it_says: "),
        *("should_say:\n", "<|channel|> final "),
    ],
)
def test_long_completions_are_read_in_linear_time(piece: str) -> None:
    """Of 400 KB a quadratic reader makes minutes: 96 KB of `<note>` once took 13 seconds."""
    from medserl.game.parsing import parse_answer

    text = piece * (400_000 // len(piece))
    for said in (text, f"1 {text}", f"<note>{text}", f"{text}</note>", f"final_answer: INCORRECT\n{text}"):
        found = [parse_injection(said, NOTE, form) for form in ("note", "edit")]
        assert all(note is None or said.count(piece) > 1 for note in found)
        answer = parse_answer(said, ("He has fever.", "He rests."), "Write should_say: the right words.")
        assert answer.verdict in (None, "INCORRECT") and answer.error_sentence_id is None


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["sentence", "it_says", "should_say", "corrected_sentence"])
@pytest.mark.parametrize("filling", [" ", "*", "\t", "1", "`", '"', " *", "_ "])
def test_long_lines_of_an_answer_are_read_in_linear_time(name: str, filling: str) -> None:
    from medserl.game.parsing import parse_answer

    long = filling * (400_000 // len(filling))
    for line in (f"{name}:{long}x", f"{name}: 1{long}x", f"{long}{name}: 1", f"{name}{long}: 1{long}:"):
        answer = parse_answer(f"{line}\nfinal_answer: INCORRECT", ("He has fever.", "He rests."), "the right words")
        assert answer.verdict == "INCORRECT" and answer.correction != "He rests."
