"""Examples out of the round's own games: what the Assessor is told, and of which games."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.engines.scripted import ScriptedEngine
from medserl.errors import ModelError
from medserl.game.episode import Attempt, Completion, Episode, Turn
from medserl.game.prompts import load_prompts
from medserl.game.roles import MODES, Mode
from medserl.game.vcf import Reason, VCFResult, apply_vcf
from medserl.rounds.auxiliary import SFTExample, examples_of_games, target_turns_of
from tests.families import engine_of

ORIGINAL = "A man has fever and a cough with green sputum. The right lung is dull. He gets aspirin."
EDITED: dict[Mode, str] = {
    "error": ORIGINAL.replace("right", "left"),
    "benign": ORIGINAL.replace("gets", "receives"),
}
TERM = load_prompts("term", "edit")


def game(mode: Mode, note_id: str = "n", *, accepted: bool = True) -> Episode:
    vcf = apply_vcf(ORIGINAL, EDITED[mode]) if accepted else VCFResult(False, Reason.FORMAT, 0.0, 0)
    said = Turn("injector", (), Completion("", (1,), (2,), (-0.5,), "stop"))
    return Episode(note_id, ORIGINAL, mode, None, (Attempt(said, EDITED[mode] if accepted else None, vcf),))


def answers(examples: list[SFTExample]) -> list[tuple[str, str]]:
    """What is shown and what is to be answered."""
    shown = {str(TERM.assessor(text)): name for name, text in (("original", ORIGINAL), *EDITED.items())}
    return [(shown[str(example.prompt)], example.answer) for example in examples]


def test_an_error_teaches_both_twins_and_a_benign_edit_nothing() -> None:
    examples = examples_of_games([game("benign", "b"), game("error", "a")], 1, TERM)
    assert answers(examples) == [
        ("error", "sentence: 1\nshould_say: The right lung\nit_says: The left lung\nfinal_answer: INCORRECT"),
        ("original", "sentence: 1\nshould_say: The right lung\nit_says: The right lung\nfinal_answer: CORRECT"),
    ]
    assert [(example.role, example.note_id) for example in examples] == [("assessor", "a")] * 2


def test_the_verdict_that_was_given_does_not_matter() -> None:
    told = [
        examples_of_games([replace(game("error"), verdict=verdict), game("benign")], 2, TERM)
        for verdict in ("CORRECT", "INCORRECT", None)
    ]
    assert told[0] == told[1] == told[2]


GAMES = st.lists(st.tuples(st.sampled_from(MODES), st.booleans()), max_size=8)


@given(GAMES, st.integers(0, 8))
def test_the_first_accepted_errors_are_taken(games: list[tuple[Mode, bool]], most: int) -> None:
    episodes = [game(mode, f"n{i}", accepted=accepted) for i, (mode, accepted) in enumerate(games)]
    errors = [e.note_id for e in episodes if e.accepted and e.mode == "error"]
    taken = [example.note_id for example in examples_of_games(episodes, most, TERM)]
    assert taken == [note for note in errors[:most] for _ in "12"]


def test_an_example_is_a_turn_that_nobody_sampled() -> None:
    engine = ScriptedEngine()
    examples = examples_of_games([game("error", "a"), game("benign", "b")], 2, TERM)
    turns = target_turns_of(engine, examples, 0.5)
    for example, turn in zip(examples, turns, strict=True):
        assert (turn.turn.role, turn.turn.messages, turn.note_id) == ("assessor", example.prompt, example.note_id)
        assert turn.turn.completion.text == example.answer
        assert turn.advantages == (0.5,) * len(turn.turn.completion.token_ids)
        assert turn.old_logprobs is None and turn.ref_logprobs is None
    assert engine.update(turns, learning_rate=1e-4).sft_loss == pytest.approx(math.log(2))


def test_target_turns_are_of_their_own_role() -> None:
    class Recording(ScriptedEngine):
        def target_turns(self, role: Any, prompts: Any, replies: Any) -> list[Turn]:
            asked.append((role, len(prompts)))
            return super().target_turns(role, prompts, replies)

    asked: list[tuple[str, int]] = []
    mixed = [
        SFTExample("assessor", "a", TERM.assessor("x"), "1"),
        SFTExample("injector", "b", TERM.assessor("y"), "2"),
    ] * 2
    turns = target_turns_of(Recording(), mixed, 1.0)
    assert asked == [("assessor", 2), ("injector", 2)]
    assert [(turn.turn.role, turn.turn.completion.text) for turn in turns] == [
        ("assessor", "1"), ("assessor", "1"), ("injector", "2"), ("injector", "2"),
    ]  # fmt: skip
    assert target_turns_of(Recording(), [], 1.0) == []


def test_an_example_that_fills_the_context_is_learnt_and_a_longer_one_is_refused_by_name() -> None:
    engine = ScriptedEngine()
    example = SFTExample("assessor", "n7", TERM.assessor(ORIGINAL), "final_answer: CORRECT")
    (turn,) = target_turns_of(engine, [example], 1.0)
    need = len(turn.turn.completion.prompt_ids) + len(turn.turn.completion.token_ids)
    engine.context = need
    assert target_turns_of(engine, [example], 1.0) == [turn]
    engine.context = need - 1
    with pytest.raises(ModelError, match=f"'n7'.* assessor .* {need} tokens.* holds {need - 1};") as caught:
        target_turns_of(engine, [example], 1.0)
    assert "\n" not in str(caught.value)


def test_an_example_longer_than_the_context_of_a_real_model_is_refused(tiny_llama: Path) -> None:
    short = SFTExample("injector", "short", TERM.assessor("He has gout."), "gout")
    long = replace(short, note_id="long", answer="gout " * 512)
    engine = engine_of(tiny_llama)
    engine.model.config.max_position_embeddings = 2 * engine.prompt_lengths([short.prompt])[0]
    target_turns_of(engine, [short], 1.0)
    with pytest.raises(ModelError, match="'long'"):
        target_turns_of(engine, [short, long], 1.0)
