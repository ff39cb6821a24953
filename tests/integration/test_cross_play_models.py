"""Cross-play of a tiny Llama's checkpoints: whose weights judge and whose write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medserl.cli import main
from medserl.config import Settings
from medserl.evaluation.cross_play import opened, policies_of
from medserl.evaluation.cross_table import CROSS_PLAY
from medserl.game.roles import ROLES
from medserl.trainer import MedSeRLTrainer
from tests import sided_notes

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS, NOTES = sided_notes.TEXTS[:4], sided_notes.NOTES[:4]


@pytest.fixture(scope="module")
def run(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rounds of examples for the Assessor alone, each role with an adapter of its own, from a saved start."""
    folder = tmp_path_factory.mktemp("cross")
    model = {"model": str(tiny_llama), "engine": "local", "device": "cpu", "dtype": "float32", "lora_rank": 4}
    first = MedSeRLTrainer(notes=NOTES, validation=None, run=None, sft_verdict_pairs=1, adapter="none", **model)
    first.engine.save(folder / "start")
    settings = {"policy_loss_weight": 0.0, "sft_verdict_pairs": 3, "roles_trained": "assessor", "adapters": "per_role"}
    lengths = {"max_rounds": 2, "save_every": 1, "rollout_batch_size": 2, "max_new_tokens_injector": 8}
    trainer = MedSeRLTrainer(
        notes=NOTES, validation=None, output_dir=folder / "run", adapter=folder / "start", learning_rate=0.05,
        max_new_tokens_assessor=8, tensorboard=False, **model, **settings, **lengths,
    )  # fmt: skip
    trainer.train()
    return folder / "run"


def test_a_checkpoint_plays_each_role_with_its_own_adapter(run: Path) -> None:
    policies = policies_of([run], Settings())
    assert [policy.name for policy in policies] == ["start", "run 1", "run 2"]
    said = {}
    for policy in policies:
        with opened(policy) as rollout:
            prompts = {"injector": rollout.prompts.injector(TEXTS[0], "benign", None)}
            prompts["assessor"] = rollout.prompts.assessor(TEXTS[0])
            for role in ROLES:
                turns = rollout.engine.target_turns(role, [prompts[role]], ["final_answer: CORRECT"])
                said[policy.name, role] = rollout.engine.logprobs(turns)[0]
    for name in ("run 1", "run 2"):
        assert said[name, "injector"] == pytest.approx(said["start", "injector"], abs=1e-5)  # it stayed as it was
        assert said[name, "assessor"] != pytest.approx(said["start", "assessor"], abs=1e-2)
    assert said["run 1", "assessor"] != pytest.approx(said["run 2", "assessor"], abs=1e-2)


def test_where_no_edit_is_accepted_there_is_no_game(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = tmp_path / "notes.jsonl"
    notes.write_text("".join(json.dumps({"correct_note": text}) + "\n" for text in TEXTS))
    given = ["--data", str(notes), "--limit", "2", "--output", str(tmp_path)]
    main(["evaluate", "--cross-play", str(run), *given])
    record = json.loads((tmp_path / CROSS_PLAY).read_text())
    assert [cell["games"] for cell in record["cells"]] == [0] * 9  # a random model writes no edit
    assert [each["played"] for each in record["injectors"]] == [4] * 3
    assert capsys.readouterr().out.count("no game") == 9
