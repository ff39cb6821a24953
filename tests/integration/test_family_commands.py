"""A model of each kind of family goes through every command, or is refused by each in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medserl.cli import main
from tests.families import write_model

pytestmark = pytest.mark.usefixtures("one_thread")

CONTEXT = 4096
"""The game's prompts are longer than those of the engines' tests."""
PAIRS = [
    ("fever and was given amoxicillin", "fever and was given digoxin"),
    ("gout in the left knee", "gout in the left eye"),
    ("asthma since childhood", "asthma since yesterday"),
    ("a viral flu", "a bacterial flu"),
]
NARROW = ["--max-new-tokens-assessor", "8", "--max-new-tokens-injector", "8"]


@pytest.fixture
def notes(tmp_path: Path) -> str:
    rows = [
        {
            "note_id": str(i),
            "correct_note": f"He has {right}. He rests.",
            "incorrect_note": f"He has {wrong}. He rests.",
        }
        for i, (right, wrong) in enumerate(PAIRS)
    ]
    file = tmp_path / "notes.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


def commands(folder: Path, notes: str, *, lora_rank: int) -> dict[str, list[str]]:
    """The arguments of each command, by its name."""
    model = ["--model", str(folder / "model"), "--adapter", "none", "--device", "cpu", "--dtype", "float32", *NARROW]
    data = ["--prompt-data", notes, "--validation-data", "none", "--training-token-budget", "1024"]
    rank = ["--lora-rank", str(lora_rank)]
    rounds = ["--rollout-batch-size", "4", "--max-rounds", "1", "--frozen-games", "0", "--no-tensorboard"]
    learnt = ["--gold-fraction", "0.5", "--sft-verdict-pairs", "2", "--sft-edit-pairs", "2"]
    return {
        "play": ["play", *model],
        "sft": ["sft", *model, *data, *rank, "--steps", "1", "--batch-size", "4", "--output", str(folder / "warm")],
        "train": ["train", *model, *data, *rank, *rounds, *learnt, "--output-dir", str(folder / "run")],
        "evaluate": ["evaluate", *model, *data[:2], "--data", notes, "--limit", "4", "--output", str(folder / "eval")],
    }


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which the command ends."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(("info: ", "warning: "))]
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize(
    ("family", "lora_rank"),
    [
        ("Mistral with a window", 4),
        ("Phi-3", 4),
        ("Gemma 3 with vision", 4),
        ("Gemma 3 with vision", 0),
        ("Qwen3-MoE", 0),
        ("LFM2", 4),
        ("Jamba", 0),
        ("Mamba 2", 0),
    ],
)
def test_a_family_goes_through_every_command(
    family: str, lora_rank: int, tmp_path: Path, notes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(family, tmp_path / "model", CONTEXT)
    capsys.readouterr()
    run = tmp_path / "run"
    for name, arguments in commands(tmp_path, notes, lora_rank=lora_rank).items():
        if name == "sft" and not lora_rank:
            assert "--lora-rank" in refusal(arguments, capsys)
        else:
            main(arguments)
    row = json.loads((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert 0 < row["logprob_gap_max"] < 2e-5
    main(["evaluate", "--run", str(run), "--compare", "trained", "--data", notes, "--limit", "4"])
    assert (run / "eval").is_dir()


@pytest.mark.parametrize(
    ("family", "by", "said"),
    [
        ("RecurrentGemma", ("play", "sft", "train", "evaluate"), "another family"),
        ("Mamba 2", ("train",), "lora_targets"),  # has no attention for a LoRA to go to
    ],
)
def test_what_a_command_cannot_do_is_refused_before_anything_is_written(
    family: str, by: tuple[str, ...], said: str, tmp_path: Path, notes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(family, tmp_path / "model", CONTEXT)
    capsys.readouterr()
    there = sorted(tmp_path.rglob("*"))
    given = commands(tmp_path, notes, lora_rank=4)
    for name in by:
        assert said in refusal(given[name], capsys)
    assert sorted(tmp_path.rglob("*")) == there
