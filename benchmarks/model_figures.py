"""What an untrained language model makes of the sample notes and of MEDEC's: verdicts, likelihoods, perplexity."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from medserl.evaluation.statistics import share_estimate
from medserl.game.note import Note
from medserl.game.prompts import load_prompts
from medserl.models import pick_dtype


def measure_model(folder: str, n: int, sample: Sequence[Note], medec: Sequence[Note], output: Path) -> None:
    """Ask the model in `folder` about `n` pairs of each half of the test file and `n` MEDEC notes; write JSON."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, pick_dtype("auto", "cpu"))).eval()
    columns = [(split, [note for note in sample if note.split == split]) for split in ("test-seen", "test-unseen")]
    columns += [("MEDEC-MS train", list(medec))] if medec else []
    figures = []
    with torch.inference_mode():
        for _, notes in columns:
            drawn = random.Random(0).sample(notes, min(n, len(notes)))
            figures.append(_figures(model, tokenizer, drawn))
    result = {
        "about": f"{Path(folder).name}, untrained, on up to {n} pairs of each kind. Verdicts: the chance of INCORRECT "
        "against CORRECT after `final_answer:`, prompts `term`.",
        "columns": [name for name, _ in columns],
        "rows": [[name, *(figure[name] for figure in figures)] for name in figures[0]],
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _figures(model: Any, tokenizer: Any, notes: Sequence[Note]) -> dict[str, str]:
    verdicts = [
        (_lean(model, tokenizer, note.correct_note), _lean(model, tokenizer, note.incorrect_note)) for note in notes
    ]
    losses = [
        (_losses(model, tokenizer, note.correct_note), _losses(model, tokenizer, note.incorrect_note)) for note in notes
    ]
    flags = [lean > 0 for pair in verdicts for lean in pair]
    by_verdict = share_estimate([wrong > right for right, wrong in verdicts])
    by_likelihood = share_estimate([sum(wrong) > sum(right) for right, wrong in losses])
    return {
        "pairs": str(len(notes)),
        "says INCORRECT": f"{fmean(flags):.1%}",
        "wrong twin leans more to INCORRECT": _percent(by_verdict),
        "wrong twin less likely as text": _percent(by_likelihood),
        "tokens a note, mean": f"{fmean(len(right) + 1 for right, _ in losses):.0f}",
        "perplexity of right notes": f"{_perplexity([right for right, _ in losses]):.1f}",
        "perplexity of wrong twins": f"{_perplexity([wrong for _, wrong in losses]):.1f}",
    }


def _lean(model: Any, tokenizer: Any, note: str | None) -> float:
    """log P of the first token of INCORRECT less that of CORRECT, after the prompt and `final_answer:`."""
    import torch

    messages = load_prompts("term", "edit").assessor(note or "")
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) + "final_answer:"
    ids = torch.tensor([tokenizer(prompt).input_ids])
    logits = model(ids, logits_to_keep=1).logits[0, -1].float()
    incorrect, correct = (tokenizer(f" {word}").input_ids[0] for word in ("INCORRECT", "CORRECT"))
    return float(logits[incorrect] - logits[correct])


def _losses(model: Any, tokenizer: Any, text: str | None) -> list[float]:
    """Negative log-likelihood, in nats, of every token after the first."""
    import torch

    ids = torch.tensor([tokenizer(text).input_ids])
    logits = model(ids).logits[0, :-1].float()
    return torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none").tolist()


def _perplexity(losses: Sequence[Sequence[float]]) -> float:
    return math.exp(sum(map(sum, losses)) / sum(map(len, losses)))


def _percent(estimate: Any) -> str:
    return f"{estimate.value:.1%} ({estimate.low:.1%} to {estimate.high:.1%})"
