"""A tiny Llama that can play: random weights, then a minute of supervised steps on notes of two sentences.

`python tests/openrlhf/player.py FOLDER` writes the model, `notes.jsonl` and `prompts.toml` there. It plays badly
enough that edits are rejected and tried again, and well enough that most games are played.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from medserl.game.note import Note
from medserl.game.prompts import load_prompts
from medserl.game.roles import MODES
from medserl.models.chat import ChatRenderer
from medserl.sft import twins_of

STEPS, BATCH, LEARNING_RATE = 140, 16, 3e-3
CONTEXT = 512
SHAPE = {"hidden_size": 128, "num_attention_heads": 4, "initializer_range": 0.02}
"""Heads of 32: the smallest that vLLM's CPU attention has."""

PROMPTS = """
system = "Judge or edit."

[error_types]
diagnosis = "d"
management = "m"
treatment = "t"
pharmacotherapy = "p"
causalOrganism = "c"

[assessor]
max_new_tokens = 12
user = "$note final_answer"

[injector.edit]
max_new_tokens = 40
error = "$note error"
benign = "$note neutral"

[injector.note]
max_new_tokens = 40
error = "$note error"
benign = "$note neutral"
"""
FINDINGS = ("fever", "cough", "chest pain", "nausea", "back pain", "a rash")
DRUGS = (("aspirin", "insulin"), ("amoxicillin", "metformin"), ("insulin", "aspirin"), ("metformin", "amoxicillin"))


def pairs() -> list[Note]:
    """24 notes of two sentences, each with a twin that has the wrong drug."""
    notes = []
    for finding in FINDINGS:
        for drug, wrong in DRUGS:
            correct = f"The patient presents with {finding}. He is treated with {drug}."
            notes.append(Note(f"n{len(notes)}", correct, correct.replace(drug, wrong), error_type="pharmacotherapy"))
    return notes


def write_player(folder: Path, untrained: Path) -> None:
    """Teach a model with the tokenizer of `untrained` both roles' formats; save it with its notes and prompts."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prompts.toml").write_text(PROMPTS, encoding="utf-8")
    notes = pairs()
    rows = [{"note_id": n.note_id, "correct_note": n.correct_note, "incorrect_note": n.incorrect_note} for n in notes]
    (folder / "notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(untrained)
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**{**_plain(AutoConfig.from_pretrained(untrained)), **SHAPE}))
    chat = ChatRenderer(tokenizer)
    prompts = load_prompts(str(folder / "prompts.toml"), "edit")
    rng = random.Random(0)
    examples = [
        (chat.ids(example.prompt), (*chat.reply_ids(example.answer), chat.end_id))
        for twins in twins_of(notes)
        for example in (
            *twins.verdicts(prompts) * 4,
            *(edit for mode in MODES for edit in twins.edit(prompts, mode, rng)),
        )
    ]
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    for _ in range(STEPS):
        loss = _loss(model, rng.sample(examples, min(BATCH, len(examples))))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"last loss {loss.item():.3f}, {len(examples)} examples")
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _plain(config: Any) -> dict[str, Any]:
    return {name: value for name, value in config.to_dict().items() if name not in ("head_dim", "dtype")}


def _loss(model: torch.nn.Module, batch: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> torch.Tensor:
    longest = max(len(prompt) + len(reply) for prompt, reply in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for row, (prompt, reply) in enumerate(batch):
        end = len(prompt) + len(reply)
        ids[row, :end] = torch.tensor(prompt + reply)
        labels[row, len(prompt) : end] = torch.tensor(reply)
    return model(input_ids=ids, labels=labels).loss


if __name__ == "__main__":
    write_player(Path(sys.argv[1]), Path(sys.argv[2]))
