"""Every template style: where turns end, what a note cannot say, what of a completion is the answer, on any day."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medserl.errors import ModelError
from medserl.game.parsing import parse_verdict, with_each_verdict
from medserl.game.prompts import Messages
from medserl.models.chat import ChatRenderer, stop_token_ids, target_turns
from tests.chat_styles import STYLES, style_tokenizer

ANSWER = "final_answer: CORRECT"
NAMES = sorted(STYLES)


@cache
def tokenizer_of(name: str) -> Any:
    return style_tokenizer(STYLES[name])


@cache
def renderer_of(name: str, thinking: bool = False) -> ChatRenderer:
    return ChatRenderer(tokenizer_of(name), thinking)


def chat(note: str) -> Messages:
    return ({"role": "system", "content": "You check notes."}, {"role": "user", "content": f"{note}\n\nCorrect?"})


def control_ids(name: str) -> set[int]:
    style = STYLES[name]
    markup = [token for token in (*style.special, *style.added) if token.strip().strip("<>[]|") != token.strip()]
    return set(tokenizer_of(name).convert_tokens_to_ids(markup))


def said(name: str, text: str) -> tuple[int, ...]:
    return tuple(tokenizer_of(name)(text, add_special_tokens=False)["input_ids"])


# -- where a turn ends -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_turn_ends_as_the_template_ends_it_and_examples_end_so_too(name: str) -> None:
    tokenizer, style = tokenizer_of(name), STYLES[name]
    end, eos = tokenizer.convert_tokens_to_ids([style.end, style.eos])
    assert stop_token_ids(None, tokenizer) == {end, eos}
    for configured in (end, [eos, 7], None):
        also = {configured} if isinstance(configured, int) else set(configured or ())
        assert stop_token_ids(SimpleNamespace(eos_token_id=configured), tokenizer) == {end, eos} | also
    (example,) = target_turns(renderer_of(name), "assessor", [chat("He rests.")], [ANSWER])
    assert example.completion.token_ids[-1] == end
    assert example.completion.token_ids.count(end) == 1


def test_the_end_of_a_channel_is_no_end_of_a_turn() -> None:
    tokenizer = tokenizer_of("harmony")
    configured = SimpleNamespace(eos_token_id=tokenizer.convert_tokens_to_ids(["<|return|>", "<|end|>", "<|call|>"]))
    assert tokenizer.convert_tokens_to_ids("<|end|>") not in stop_token_ids(configured, tokenizer)


@pytest.mark.parametrize("configured", ["</s>", [[1]], [2, "</s>"], {"a": 1}])
def test_stops_that_are_no_ids_are_one_line(configured: Any) -> None:
    with pytest.raises(ModelError, match=r"generation_config\.json has no ids"):
        stop_token_ids(SimpleNamespace(eos_token_id=configured), tokenizer_of("chatml"))


def test_no_end_of_turn_at_all_is_one_line() -> None:
    tokenizer = style_tokenizer(STYLES["alpaca_of_plain_text"])
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="no token ends a turn"):
        ChatRenderer(tokenizer)


def test_an_end_of_turn_that_is_guessed_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = style_tokenizer(STYLES["alpaca_of_plain_text"])
    tokenizer.name_or_path = "a-model-of-this-test"
    for _ in range(2):
        assert ChatRenderer(tokenizer).end_id == tokenizer.eos_token_id
    assert caplog.text.count("a-model-of-this-test: its chat template shows no end of a reply") == 1


# -- prompts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_both_texts_are_shown_and_a_short_prompt_is_the_templates_own(name: str) -> None:
    shown = renderer_of(name).text(chat("He rests."))
    assert "You check notes." in shown and "He rests.\n\nCorrect?" in shown
    assert shown.index("You check notes.") < shown.index("He rests.")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("thinking", [False, True])
def test_prompts_are_the_same_on_every_day(name: str, thinking: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.utils import chat_template_utils

    class Tomorrow(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return cls(2031, 5, 6)

    before = ChatRenderer(tokenizer_of(name), thinking).ids(chat("He rests."))
    monkeypatch.setattr(chat_template_utils, "datetime", Tomorrow)
    assert ChatRenderer(tokenizer_of(name), thinking).ids(chat("He rests.")) == before
    assert "2031" not in tokenizer_of(name).decode(before)


BROKEN = {
    "syntax": "{% for m in messages %}{{ m.content }",
    "function": "{% for m in messages %}{{ secret(m.content) }}{% endfor %}",
    "type": "{{ messages + 1 }}",
    "silent": "<|im_start|>assistant\n",
    "refusal": "{{ raise_exception('this model does not chat') }}",
}


@pytest.mark.parametrize("kind", sorted(BROKEN))
def test_a_broken_template_is_one_line_with_the_models_name(kind: str) -> None:
    tokenizer = style_tokenizer(STYLES["chatml"])
    tokenizer.name_or_path = "owner/model"
    tokenizer.chat_template = BROKEN[kind]
    with pytest.raises(ModelError, match=r"^owner/model: its chat template ") as caught:
        ChatRenderer(tokenizer)
    assert "\n" not in str(caught.value)


def test_a_templates_failure_on_one_chat_is_one_line() -> None:
    tokenizer = style_tokenizer(STYLES["chatml"])
    tokenizer.chat_template = (
        STYLES["chatml"].template + "{% if 'zebra' in messages[-1].content %}{{ oops() }}{% endif %}"
    )
    renderer = ChatRenderer(tokenizer)
    with pytest.raises(ModelError, match="cannot be rendered: 'oops' is undefined"):
        renderer.text(chat("A zebra."))


# -- what a note cannot say --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_no_added_token_is_said_by_a_note_or_a_reply(name: str) -> None:
    renderer, tokenizer, control = renderer_of(name), tokenizer_of(name), control_ids(name)
    plain = [token for token in renderer.ids(chat("He rests.")) if token in control]
    opener = [token for token in renderer.reply_ids("ab") if token in control]
    for token in tokenizer.get_added_vocab():
        for note in (token, f"He{token}rests", f"a {token} b", token * 3, f"{token[:2]}{token}{token[2:]}"):
            ids = renderer.ids(chat(note))
            assert [each for each in ids if each in control] == plain, token
            assert [each for each in renderer.reply_ids(note) if each in control] == opener


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_however_tokens_are_put_together_none_is_said(name: str, data: st.DataObject) -> None:
    style, control = STYLES[name], control_ids(name)
    tokens = (*style.special, *style.added)
    halves = [part for token in tokens for part in (token, token[:2], token[2:], token[:-1], token[-1:])]
    note = "".join(data.draw(st.lists(st.sampled_from(halves), min_size=1, max_size=8)))
    renderer = renderer_of(name)
    plain = [token for token in renderer.ids(chat("He rests.")) if token in control]
    assert [token for token in renderer.ids(chat(note)) if token in control] == plain
    shown = renderer.text(chat(note))
    assert [c for c in note if c.isalnum()] == [c for c in note if c.isalnum() and c in shown]


@pytest.mark.parametrize(
    ("name", "marker"),
    [
        *(("llama2_of_plain_text", "[/INST]"), ("llama2_of_plain_text", "<<SYS>>")),
        *(("chatml_of_plain_text", "<|im_end|>"), ("vicuna_of_plain_text", "ASSISTANT:")),
        *(("alpaca_of_plain_text", "### Response:"), ("zephyr_of_plain_text", "<|user|>")),
        *(("zephyr_of_plain_text", "<|system|>"), ("zephyr_of_plain_text", "<|assistant|>")),
    ],
)
def test_markers_that_a_template_spells_in_plain_text_are_broken_too(name: str, marker: str) -> None:
    renderer = renderer_of(name)
    assert renderer.text(chat(f"He {marker} rests.")).count(marker) == renderer.text(chat("He rests.")).count(marker)


@pytest.mark.parametrize("note", ["BP <120/80, T >38", "a  b    c\t\td", "metformin [sic]", "He said: rest.", "5 < x"])
@pytest.mark.parametrize("name", NAMES)
def test_ordinary_notes_are_shown_as_they_are(name: str, note: str) -> None:
    assert note in renderer_of(name).text(chat(note))


def test_tokens_that_share_their_signs_are_all_broken_and_blanks_are_none() -> None:
    """GPT-NeoX and OLMo have such: breaking the first brings the second to light."""
    tokenizer = style_tokenizer(STYLES["chatml"])
    tokenizer.add_tokens(["|||EMAIL|||", "|||PHONE|||", "    "])
    email, phone, blanks = tokenizer.convert_tokens_to_ids(["|||EMAIL|||", "|||PHONE|||", "    "])
    ids = ChatRenderer(tokenizer).ids(chat("|||EMAIL|||PHONE||| a    b"))
    assert not {email, phone} & {*ids} and blanks in ids


def test_a_normalizer_does_not_bring_control_tokens_back() -> None:
    from tokenizers import AddedToken, normalizers

    tokenizer = style_tokenizer(STYLES["chatml"])
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.add_tokens([AddedToken("<|user_1|>", normalized=True), AddedToken("[INST]", normalized=True)])
    bad = tokenizer.convert_tokens_to_ids(["<|user_1|>", "[INST]", "<|im_end|>"])
    renderer = ChatRenderer(tokenizer)
    ends = renderer.ids(chat("He rests.")).count(bad[2])
    for note in ("<|USER_1|>", "＜|user_1|＞", "［INST］", "[ınst]", "[inst]", "＜|im_end|＞", "<|user_１|>"):
        ids = renderer.ids(chat(note))
        assert not {*bad[:2]} & {*ids} and ids.count(bad[2]) == ends


def test_words_that_a_tokenizer_does_not_know_are_shown_as_they_are() -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<unk>": 0, "<|im_start|>": 1, "<|im_end|>": 2, "rests": 3}, unk_token="<unk>"))
    words.normalizer, words.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Whitespace()
    words.add_special_tokens(["<unk>", "<|im_start|>", "<|im_end|>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="<|im_end|>")
    tokenizer.chat_template = STYLES["chatml"].template
    assert "He rests ≥ 38 °C, 漢字." in ChatRenderer(tokenizer).text(chat("He rests ≥ 38 °C, 漢字."))
    assert ChatRenderer(tokenizer).ids(chat("<unk> ＜|im_end|＞")).count(2) == 2


# -- what of a completion is the answer --------------------------------------------------------------------

THOUGHTS = {
    "qwen3": "<think>\nfinal_answer: INCORRECT\n</think>\n\n",
    "smollm3": "<think>\nfinal_answer: INCORRECT\n</think>\n",
    "r1": "final_answer: INCORRECT\n</think>\n\n",
    "magistral": "[THINK]final_answer: INCORRECT[/THINK]",
    "gemma_with_channels": "<|channel>thought\nfinal_answer: INCORRECT\n<channel|>",
    "harmony": "<|channel|>analysis<|message|>final_answer: INCORRECT<|end|><|start|>assistant"
    "<|channel|>final<|message|>",
}


@pytest.mark.parametrize("name", sorted(THOUGHTS))
def test_the_answer_is_what_stands_after_the_thought(name: str) -> None:
    renderer = renderer_of(name, thinking=True)
    text = renderer.completion_text(said(name, THOUGHTS[name] + ANSWER))
    assert parse_verdict(text) == "CORRECT"
    assert "final_answer: INCORRECT" in text and text.startswith("<think>")  # kept for the record


@pytest.mark.parametrize("name", sorted(THOUGHTS))
def test_a_thought_that_the_limit_cut_off_holds_no_verdict(name: str) -> None:
    renderer, thought = renderer_of(name, thinking=True), said(name, THOUGHTS[name])
    opened = 0 if name == "r1" else 3
    for length in range(opened, len(thought)):
        assert parse_verdict(renderer.completion_text(thought[:length])) is None


@pytest.mark.parametrize("name", ["r1", "deepseek_v31"])
def test_where_the_prompt_opens_the_thought_nothing_is_visible_before_its_end(name: str) -> None:
    renderer = renderer_of(name, thinking=True)
    assert renderer.text(chat("He rests.")).rstrip().endswith("<think>")
    assert parse_verdict(renderer.completion_text(said(name, ANSWER))) is None
    assert parse_verdict(renderer.completion_text(said(name, f"Hm.</think>{ANSWER}"))) == "CORRECT"


@pytest.mark.parametrize(
    ("completion", "verdict"),
    [
        (f"<|channel|>final<|message|>{ANSWER}", "CORRECT"),
        (f"<|message|>{ANSWER}", "CORRECT"),
        (ANSWER, "CORRECT"),
        (f"<|channel|>analysis<|message|>{ANSWER}<|end|>", None),
        (f"<|channel|>commentary to=functions.x<|message|>{ANSWER}<|call|>", None),
        (f"<|channel|>analysis{ANSWER}", None),
        (f"<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>{ANSWER}", "CORRECT"),
        (f"<|channel|>analysis<|message|>a<|channel|>final<|message|>{ANSWER}<|end|>", "CORRECT"),
        (f"<|channel|>final<|message|>{ANSWER}<|end|><|start|>assistant<|channel|>final<|message|>{ANSWER}", None),
    ],
)
def test_channels(completion: str, verdict: str | None) -> None:
    assert parse_verdict(renderer_of("harmony").completion_text(said("harmony", completion))) == verdict


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_target_answer_is_read_back(name: str, thinking: bool) -> None:
    renderer = renderer_of(name, thinking)
    (turn,) = target_turns(renderer, "assessor", [chat("He rests.")], [f"should_say: x\n{ANSWER}"])
    assert parse_verdict(renderer.completion_text(turn.completion.token_ids[:-1])) == "CORRECT"


@pytest.mark.parametrize("name", sorted(THOUGHTS))
def test_what_was_said_is_spelled_as_the_model_spelled_it(name: str) -> None:
    """To weigh verdicts, a completion is read again up to its answer, its thought included."""
    renderer = renderer_of(name, thinking=True)
    ids = said(name, THOUGHTS[name].replace("INCORRECT", "unclear") + ANSWER)
    text = renderer.completion_text(ids).replace("final_answer: unclear", "so be it")
    again = renderer.completion_text(renderer.spoken_ids(text))
    assert again == text
    pair = with_each_verdict(text)
    assert pair is not None and pair[0] == text
    control = control_ids(name)
    assert [i for i in renderer.spoken_ids(text) if i in control] == [i for i in ids if i in control]


@pytest.mark.parametrize("text", [f"Hm.</think>{ANSWER}", f"<think>Hm.</think>{ANSWER}", ANSWER])
def test_a_thought_is_opened_again_only_where_it_was(text: str) -> None:
    assert renderer_of("qwen3", True).spoken_ids(text) == said("qwen3", text)
