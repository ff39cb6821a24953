"""Prompts through chat templates: with and without a system role, with a thinking switch, with none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medserl.errors import ModelError
from medserl.models import chat
from medserl.models.chat import ChatRenderer

CHAT = (
    {"role": "system", "content": "You check notes."},
    {"role": "user", "content": "38.3 C {{ x }} $note"},
)

REFUSES_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}[model]{% endif %}"
)
IGNORES_SYSTEM = "{% for m in messages if m.role != 'system' %}[{{ m.role }}]{{ m.content }}{% endfor %}[model]"
THINKS = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[model]"
    "{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}"
)
MERGED = "[user]You check notes.\n\n38.3 C {{ x }} $note[model]"


@pytest.fixture
def tokenizer(tiny_llama: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_llama)


def test_a_template_with_a_system_role(tokenizer: Any) -> None:
    assert ChatRenderer(tokenizer).text(CHAT) == (
        "<|im_start|>system\nYou check notes.<|im_end|>\n"
        "<|im_start|>user\n38.3 C {{ x }} $note<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("template", [REFUSES_SYSTEM, IGNORES_SYSTEM])
def test_without_a_system_role_its_text_heads_the_users(tokenizer: Any, template: str) -> None:
    tokenizer.chat_template = template
    assert ChatRenderer(tokenizer).text(CHAT) == MERGED
    assert ChatRenderer(tokenizer).text(CHAT[1:]) == MERGED.replace("You check notes.\n\n", "")


@pytest.mark.parametrize(("thinking", "end"), [(True, "[model]"), (False, "[model]<think></think>")])
def test_the_thinking_switch_reaches_the_template(tokenizer: Any, thinking: bool, end: str) -> None:
    tokenizer.chat_template = THINKS
    text = ChatRenderer(tokenizer, thinking).text(CHAT)
    assert text == f"[system]You check notes.[user]38.3 C {{{{ x }}}} $note{end}"


def test_messages_are_left_as_they_were(tokenizer: Any) -> None:
    tokenizer.chat_template = IGNORES_SYSTEM
    before = tuple(dict(message) for message in CHAT)
    ChatRenderer(tokenizer).text(CHAT)
    assert before == CHAT


def test_ids_are_the_texts_and_each_special_token_is_one(tokenizer: Any) -> None:
    renderer = ChatRenderer(tokenizer)
    ids = renderer.ids(CHAT)
    assert tokenizer.decode(ids) == renderer.text(CHAT)
    start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert (ids.count(start), ids.count(end)) == (3, 2)
    assert renderer.ids(CHAT) == ids  # from the cache


def test_prompts_are_remembered_up_to_so_many_characters(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str] = []

    def counted(renderer: ChatRenderer) -> ChatRenderer:
        encode = renderer._encode
        monkeypatch.setattr(renderer, "_encode", lambda text: encoded.append(text) or encode(text))
        return renderer

    prompts = [({"role": "user", "content": f"{number} ".ljust(100)},) for number in range(10)]
    renderer = counted(ChatRenderer(tokenizer))
    expected = [renderer.ids(prompt) for prompt in prompts]
    assert [renderer.ids(prompt) for prompt in prompts] == expected
    assert len(encoded) == 10, "a retry is not encoded again"

    monkeypatch.setattr(chat, "REMEMBERED_CHARACTERS", 250)
    renderer = counted(ChatRenderer(tokenizer))
    longer = ({"role": "user", "content": "a" * 300},)
    for prompt in (*prompts, longer, *prompts):
        assert renderer.ids(prompt) == renderer.ids(prompt)
        kept = [len(content) for key in renderer._remembered for _, content in key]
        assert sum(kept) <= 250 or kept == [300], "one that is longer than all may be is kept alone"
    assert len(encoded) == 10 + 21


def test_no_template_is_one_clear_line(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match="no chat template; use an instruction-tuned model") as caught:
        ChatRenderer(tokenizer)
    assert "\n" not in str(caught.value)
