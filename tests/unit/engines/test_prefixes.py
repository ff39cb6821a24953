"""All turns on a note begin with the same tokens, up to their task or to the first word of an edit."""

from __future__ import annotations

import pytest

from medserl.data.readers import read_notes
from medserl.data.sample_paths import sample_path
from medserl.engines.prefixes import common
from medserl.game.parsing import number_sentences
from medserl.game.prompts import SHIPPED, load_prompts
from medserl.game.roles import MODES
from medserl.models.chat import ChatRenderer
from tests.chat_styles import STYLES, style_tokenizer

PAIRS = [note for note in read_notes(sample_path("train")).notes if note.is_pair][:3]


@pytest.mark.parametrize("form", ["edit", "note"])
@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("style", STYLES)
def test_turns_on_a_note_begin_alike_up_to_the_task_or_the_edit(style: str, name: str, form: str) -> None:
    tokenizer = style_tokenizer(STYLES[style])
    chat, prompts = ChatRenderer(tokenizer), load_prompts(name, form)  # type: ignore[arg-type]
    for note in PAIRS:
        correct, incorrect = note.correct_note or "", note.incorrect_note or ""
        turns = [prompts.assessor(correct)]
        turns += [prompts.injector(correct, mode, note.error_type) for mode in MODES]
        shown, twin = number_sentences(correct), number_sentences(incorrect)
        first = chat.ids(turns[0])
        for turn in turns[1:]:
            alike = tokenizer.decode(first[: common(first, chat.ids(turn))])
            assert shown in alike
        parted = next(i for i, (a, b) in enumerate(zip(shown, twin, strict=False)) if a != b)
        alike = tokenizer.decode(first[: common(first, chat.ids(prompts.assessor(incorrect)))])
        assert shown[: shown.rfind(" ", 0, parted)] in alike
