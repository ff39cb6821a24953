"""What a game leaves behind: one training sample per role-turn with its own reward, and a JSON record."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from medserl.game.episode import Attempt, Completion, Episode, Turn
from medserl.game.rewards import NO_GAME, game_rewards
from medserl.game.roles import MODES
from medserl.game.vcf import Reason, VCFResult, apply_vcf
from medserl.knowledge.audit import EditClass

ORIGINAL = "A man has fever and a cough with green sputum. The right lung is dull."
MODIFIED = ORIGINAL.replace("right", "left")


def turn(role: str, text: str) -> Turn:
    messages = ({"role": "user", "content": f"prompt of the {role}"},)
    return Turn(role, messages, Completion(text, (1, 2), (3, 4), (-0.5, -0.25), "stop"))


def rejected(number: int) -> Attempt:
    return Attempt(turn("injector", f"try {number}"), None, VCFResult(False, Reason.FORMAT, 0.0, 0))


def accepted() -> Attempt:
    written = turn("injector", "1 The left lung is dull.")
    return Attempt(written, MODIFIED, apply_vcf(ORIGINAL, MODIFIED), EditClass.LATERALITY)


def episode(n_rejected: int, *, played: bool, mode: str = "error", verdict: str | None = "CORRECT") -> Episode:
    attempts = tuple(rejected(i) for i in range(n_rejected)) + ((accepted(),) if played else ())
    return Episode(
        note_id="n1",
        original=ORIGINAL,
        mode=mode,
        error_type="diagnosis" if mode == "error" else None,
        attempts=attempts,
        assessor=turn("assessor", f"final_answer: {verdict}") if played else None,
        verdict=verdict if played else None,
        rewards=game_rewards(mode, verdict) if played else NO_GAME,
        fact_id="f1",
    )


GAMES = st.builds(
    episode,
    st.integers(0, 2),
    played=st.booleans(),
    mode=st.sampled_from(MODES),
    verdict=st.sampled_from(["CORRECT", "INCORRECT", None]),
)


def test_accepted_is_the_last_attempt_if_it_passed() -> None:
    assert episode(2, played=True).accepted == accepted()
    assert episode(2, played=True).modified == MODIFIED
    assert episode(3, played=False).accepted is None
    assert episode(3, played=False).modified is None
    assert Episode("n", ORIGINAL, "error", None, ()).accepted is None


@given(GAMES)
def test_one_sample_per_role_turn(game: Episode) -> None:
    samples = game.samples()
    if not game.accepted:
        assert samples == []
        return
    by_role = {sample.turn.role: sample for sample in samples}
    assert len(by_role) == len(samples)
    assert by_role["assessor"].turn is game.assessor
    assert by_role["assessor"].reward == game.rewards.assessor
    if game.verdict is None:
        assert set(by_role) == {"assessor"}
        assert by_role["assessor"].reward == -1.0
    else:
        assert by_role["injector"].turn is game.accepted.turn
        assert sum(sample.reward for sample in samples) == 0.0
        assert {sample.reward for sample in samples} == {1.0, -1.0}
    assert {sample.note_id for sample in samples} == {"n1"}


def test_record_tells_the_whole_game() -> None:
    record = episode(1, played=True, verdict="INCORRECT").record(7)
    assert json.loads(json.dumps(record)) == {
        "round": 7,
        "note_id": "n1",
        "fact_id": "f1",
        "mode": "error",
        "error_type": "diagnosis",
        "original": ORIGINAL,
        "modified": MODIFIED,
        "attempts": [
            {
                "completion": "try 0",
                "modified": None,
                "reason": "format",
                "jaccard": 0.0,
                "word_edits": 0,
                "edit_class": None,
            },
            {
                "completion": "1 The left lung is dull.",
                "modified": MODIFIED,
                "reason": None,
                "jaccard": 14 / 16,
                "word_edits": 1,
                "edit_class": "laterality",
            },
        ],
        "edits": [{"original": "right", "modified": "left"}],
        "still_true": None,
        "assessor_completion": "final_answer: INCORRECT",
        "verdict": "INCORRECT",
        "reward_assessor": 1.0,
        "reward_injector": -1.0,
        "more_verdicts": [],
    }


def test_record_of_a_game_without_an_accepted_note() -> None:
    record = episode(3, played=False).record(1)
    assert len(record["attempts"]) == 3
    nothing = {key: record[key] for key in ("modified", "assessor_completion", "verdict")}
    assert set(nothing.values()) == {None}
    assert (record["edits"], record["reward_assessor"], record["reward_injector"]) == ([], None, None)
