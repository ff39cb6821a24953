"""Every template style is warmed up, trained, played and judged with; warm-up learns the game's own tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from medserl import commands
from medserl.cli import main
from medserl.config import Settings
from medserl.engines.base import UpdateStats, WeightedTurn
from medserl.engines.local import LocalEngine
from medserl.evaluation.options import EvaluationOptions
from medserl.models.chat import ChatRenderer
from medserl.sft import WarmUp
from tests.chat_styles import STYLES, style_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

PAIRS = [
    ("fever", "a cold"),
    ("gout", "a rash <|im_end|>[/INST]"),
    ("asthma", "<think>hay fever</think>"),
    ("flu", "pain"),
]


def model_of(style: str, folder: Path) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = style_tokenizer(STYLES[style])
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def notes_file(folder: Path) -> Path:
    rows = [
        {
            "note_id": str(i),
            "correct_note": f"He has {right}. He rests.",
            "incorrect_note": f"He has {wrong}. He rests.",
        }
        for i, (right, wrong) in enumerate(PAIRS)
    ]
    file = folder / "notes.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def settings_for(style: str, folder: Path, **changes: Any) -> Settings:
    notes = str(notes_file(folder))
    fixed = {
        "model": str(model_of(style, folder / "model")),
        "prompt_data": notes,
        "validation_data": "none",
        "adapter": "none",
        "device": "cpu",
        "dtype": "float32",
        "lora_rank": 2,
        "lora_targets": "attention",
        "max_new_tokens_assessor": 8,
        "max_new_tokens_injector": 8,
        "rollout_batch_size": 2,
        "max_rounds": 1,
        "gold_fraction": 0.5,  # what the policy gradient learns from, whatever a random Injector writes
        "sft_verdict_pairs": 2,
        "sft_edit_pairs": 2,
        "frozen_games": 0,
        "tensorboard": False,
        "output_dir": str(folder / "run"),
    }
    return Settings(**{**fixed, **changes})


@pytest.fixture
def taught(monkeypatch: pytest.MonkeyPatch) -> list[WeightedTurn]:
    """Whatever an engine was given to learn from."""
    seen: list[WeightedTurn] = []
    update = LocalEngine.update

    def spy(engine: LocalEngine, turns: Sequence[WeightedTurn], *, learning_rate: float) -> UpdateStats:
        seen.extend(turns)
        return update(engine, turns, learning_rate=learning_rate)

    monkeypatch.setattr(LocalEngine, "update", spy)
    return seen


@pytest.mark.parametrize("style", sorted(STYLES))
def test_a_style_goes_through_every_command(style: str, tmp_path: Path, taught: list[WeightedTurn]) -> None:
    settings = settings_for(style, tmp_path)
    commands.warm_up(settings, WarmUp(steps=1, batch_size=4), tmp_path / "adapter", measure=0)
    warmed = settings.with_overrides(adapter=str(tmp_path / "adapter"))
    run = commands.train(warmed)
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["logprob_gap"] < 1e-4
    commands.play(warmed, None, "error", None)
    options = EvaluationOptions(data=settings.prompt_data, compare=("base",), output=tmp_path / "eval", thresholds=True)
    commands.evaluate(warmed, options)
    assert (tmp_path / "eval").is_dir()

    tokenizer = style_tokenizer(STYLES[style])
    chat = ChatRenderer(tokenizer)
    examples = [turn.turn for turn in taught if turn.old_logprobs is None]
    assert len(examples) >= 8
    for turn in examples:
        done = turn.completion
        shown = chat.ids(turn.messages)
        if done.prompt_ids != shown:  # a note's own next words
            assert shown[: len(done.prompt_ids) + len(done.token_ids)] == (*done.prompt_ids, *done.token_ids)
            continue
        assert done.token_ids == (*chat.reply_ids(done.text), chat.end_id)
        assert "<think>" not in tokenizer.decode(done.token_ids)


def test_no_template_is_refused_by_every_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = model_of("chatml", tmp_path / "model")
    (model / "chat_template.jinja").unlink()
    for command in ("play", "sft", "train", "evaluate"):
        with pytest.raises(SystemExit) as stopped:
            main([command, "--model", str(model), "--adapter", "none", "--device", "cpu"])
        assert stopped.value.code == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and "no chat template" in lines[0] and str(model) in lines[0]
