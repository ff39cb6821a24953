"""Room for a completion: it follows from the note, each note has its own, and every gold answer fits."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medserl.config import Settings
from medserl.data.readers import read_notes
from medserl.data.sample_paths import sample_path
from medserl.engines.base import Sampling
from medserl.engines.scripted import ScriptedEngine
from medserl.game.answers import injection_answer, parting
from medserl.game.note import Note
from medserl.game.prompts import SHIPPED, load_prompts
from medserl.game.setup import GameSetup
from medserl.rollout import ROOM_FOR_A_WORD, VCFRolloutGenerator

SHORT = "A man has fever. He is given aspirin."
LONG = f"A man has fever. His story is long{' and long' * 200}. He is well."


def rollout(form: str = "edit", engine: Any = None, **changes: Any) -> VCFRolloutGenerator:
    return VCFRolloutGenerator(engine or ScriptedEngine(), load_prompts("term", form), Settings(**changes))


def test_the_injectors_room_follows_from_each_notes_longest_sentence() -> None:
    """Of the scripted engine a word is a token: `1 He is given aspirin.` has five, the long sentence 405."""
    besides = load_prompts("term", "edit").injector_tokens + 6 * ROOM_FOR_A_WORD
    assert rollout().rooms("injector", [SHORT, LONG, ""]) == (5 + besides, 405 + besides, besides)
    wider = rollout(vcf_max_word_edits=10).rooms("injector", [SHORT])
    assert wider == (5 + besides + 4 * ROOM_FOR_A_WORD,)


def test_the_whole_note_has_room_where_it_is_written_whole() -> None:
    besides = load_prompts("term", "note").injector_tokens + 6 * ROOM_FOR_A_WORD
    assert rollout("note").rooms("injector", [SHORT]) == (8 + besides,)


def test_what_the_settings_say_holds_for_all() -> None:
    assert rollout(max_new_tokens_injector=33).rooms("injector", [SHORT, LONG]) == (33, 33)
    assert rollout(max_new_tokens_assessor=7).rooms("assessor", [SHORT, LONG]) == (7, 7)
    assert rollout().rooms("assessor", [SHORT, LONG]) == (64, 64)
    assert rollout(vcf_max_word_edits=9).rooms("assessor", [SHORT]) == (64 + 6 * ROOM_FOR_A_WORD,)  # words to quote
    assert rollout(vcf_max_word_edits=2).rooms("assessor", [SHORT]) == (64,)


def test_one_long_note_raises_no_others_limit() -> None:
    asked: list[Sampling] = []

    class Recording(ScriptedEngine):
        def generate(self, prompts: Any, sampling: Sampling) -> Any:
            asked.append(sampling)
            return super().generate(prompts, sampling)

    games = [GameSetup(Note(str(i), text), "benign") for i, text in enumerate((SHORT, LONG, SHORT))]
    engine = Recording(lambda messages, rng: "never an edit")
    rollout(engine=engine).inject(games, seed=0)
    short, long = rollout().rooms("injector", [SHORT, LONG])
    assert [sampling.limits for sampling in asked] == [(short, long, short)] * 3


def test_a_completion_beyond_its_limit_is_cut() -> None:
    engine = ScriptedEngine(lambda messages, rng: "one two  three\nfour")
    prompts = [load_prompts("term", "edit").assessor(SHORT)] * 3
    done = engine.generate(prompts, Sampling(9, limits=(2, 4, 5)))
    assert [(each.text, len(each.token_ids), each.finish) for each in done] == [
        ("one two", 2, "length"),
        ("one two  three\nfour", 4, "length"),  # the words, and no room for the end of the turn
        ("one two  three\nfour", 5, "stop"),
    ]


# -- the real tokenizer ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def counting() -> Any:
    """An engine that counts as the embedded model's does, without the model."""
    from transformers import AutoTokenizer

    from medserl.models.chat import ChatRenderer
    from medserl.models.embedded import embedded_model

    chat = ChatRenderer(AutoTokenizer.from_pretrained(embedded_model()))
    return SimpleNamespace(count_tokens=lambda texts: [len(chat.reply_ids(text)) for text in texts])


def every_gold_answer_fits(engine: Any, path: Path, form: str) -> int:
    """How many gold edits there are; each, and the Assessor's answers to its twins, end within their room."""
    generator = rollout(form, engine)
    pairs = [note for note in read_notes(path).notes if note.is_pair]
    answers = [injection_answer(note.correct_note, note.incorrect_note, form) for note in pairs]
    known = [(note, answer) for note, answer in zip(pairs, answers, strict=True) if answer]
    rooms = generator.rooms("injector", [note.correct_note for note, _ in known])
    needed = engine.count_tokens([answer for _, answer in known])
    assert all(tokens + 1 <= room for tokens, room in zip(needed, rooms, strict=True))  # 1: the end of the turn
    for name in SHIPPED:
        prompts = load_prompts(name, "edit")
        differences = [parting(n.incorrect_note, n.correct_note, is_error=True) for n, _ in known]
        verdicts = [prompts.gold_answer("INCORRECT", each) for each in differences]
        assert max(engine.count_tokens(verdicts)) + 1 <= prompts.completion_tokens("assessor")
    return len(known)


@pytest.mark.model
@pytest.mark.parametrize("form", ["edit", "note"])
def test_every_gold_edit_of_the_sample_fits(counting: Any, form: str) -> None:
    assert every_gold_answer_fits(counting, sample_path("train"), form) > 100


@pytest.mark.model
def test_every_gold_edit_of_medec_fits(counting: Any, medec_dir: Path) -> None:
    assert every_gold_answer_fits(counting, medec_dir / "medec_ms_train_pairs.jsonl", "edit") > 1000
