"""Can a small model learn the sample notes at all? A LoRA classifier, trained on the twins, tested on pairs.

    python benchmarks/learnability.py --model FOLDER [--minutes 60] [--epochs 6] [--output FILE]

An upper bound for the game: the model reads a note and a linear head on its last token says how likely an error is.
Loss: binary cross-entropy of both twins plus the logistic loss of their difference. Pairwise accuracy (the wrong twin
scores higher) is reported on facts seen in training, told in new wordings, and on facts never seen, with 95 % Wilson
intervals. Writes a JSON file that `corpus_report.py` shows. Invented patients, for developing software, not for
clinical use.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from medserl.data.sample_paths import SampleSplit, sample_path
from medserl.evaluation.statistics import share_estimate

RESULTS = Path(__file__).resolve().parent / "results" / "learnability.json"
TOKENS_PER_MICRO_BATCH = 1200  # with padding; what two cores take fastest
PAIRS_PER_STEP = 16
SORTED_TOGETHER = 8  # steps whose pairs are sorted by length, so that little is padded


@dataclass(frozen=True)
class Pair:
    """Token ids of a right note and its wrong twin."""

    right: list[int]
    wrong: list[int]
    split: str
    fact_id: str

    @property
    def length(self) -> int:
        return max(len(self.right), len(self.wrong))


@dataclass
class Curve:
    """What is written: settings, one point per evaluation, and the final figures."""

    settings: dict[str, Any]
    points: list[dict[str, float]] = field(default_factory=list)
    final: dict[str, Any] = field(default_factory=dict)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    import torch
    from transformers import AutoTokenizer

    torch.manual_seed(options.seed)
    if options.threads:
        torch.set_num_threads(options.threads)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    train = read_pairs(tokenizer, "train", options.limit)
    validation = read_pairs(tokenizer, "validation", options.limit)
    test = read_pairs(tokenizer, "test", options.limit)
    classifier = Classifier(options.model, options.rank, options.device)
    curve = Curve({key: value for key, value in vars(options).items() if key not in ("model", "output")})
    started = time.monotonic()
    fit(classifier, train, validation, options, curve)
    curve.final = {"minutes": round((time.monotonic() - started) / 60, 1), "train_pairs": len(train)}
    for split in ("test-seen", "test-unseen"):
        hits = pairwise_hits(classifier, [pair for pair in test if pair.split == split])
        curve.final[split] = asdict(share_estimate(hits))
        print(split, curve.final[split], flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(asdict(curve), indent=1) + "\n")
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder of a causal language model in Hugging Face form")
    parser.add_argument("--minutes", type=float, default=60, help="training stops here at the latest")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="1 where other work keeps the cores busy: two that wait are slower")
    parser.add_argument("--limit", type=int, help="only so many pairs of each split, to try the script out")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args(arguments)


def read_pairs(tokenizer: Any, split: SampleSplit, limit: int | None) -> list[Pair]:
    """Pairs of a sample file; a limited test file keeps both halves."""
    rows = [json.loads(line) for line in sample_path(split).read_text(encoding="utf-8").splitlines()]
    if limit:
        rows = rows[:limit] if split != "test" else rows[:limit] + rows[-limit:]
    return [
        Pair(
            *(tokenizer(row[twin]).input_ids for twin in ("correct_note", "incorrect_note")),
            row["split"],
            row["fact_id"],
        )
        for row in rows
    ]


class Classifier:
    """The base model in bfloat16 with a LoRA adapter, and a linear head in float32 on the last token."""

    def __init__(self, folder: str, rank: int, device: str) -> None:
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModel

        base = AutoModel.from_pretrained(folder, dtype=torch.bfloat16)
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="FEATURE_EXTRACTION")
        self.device = device
        self.model = get_peft_model(base, config).to(device)
        self.head = torch.nn.Linear(base.config.hidden_size, 1).to(device)
        torch.nn.init.normal_(self.head.weight, std=0.01)
        torch.nn.init.zeros_(self.head.bias)

    def parameters(self) -> list[Any]:
        return [p for p in (*self.model.parameters(), *self.head.parameters()) if p.requires_grad]

    def scores(self, notes: Sequence[list[int]]) -> Any:
        """(N,) logits of "holds an error" for N notes, padded on the right."""
        import torch

        longest = max(map(len, notes))
        ids = torch.zeros(len(notes), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, note in enumerate(notes):
            ids[row, : len(note)] = torch.tensor(note)
            mask[row, : len(note)] = 1
        hidden = self.model(ids.to(self.device), attention_mask=mask.to(self.device)).last_hidden_state
        last = mask.sum(1) - 1
        return self.head(hidden[torch.arange(len(notes)), last.to(self.device)].float()).squeeze(1)


def fit(
    classifier: Classifier,
    train: Sequence[Pair],
    validation: Sequence[Pair],
    options: argparse.Namespace,
    curve: Curve,
) -> None:
    """Adam with a linear decay over the epochs or the minutes, whichever end first."""
    import torch

    rng = random.Random(options.seed)
    parameters = classifier.parameters()
    optimizer = torch.optim.AdamW(parameters, lr=options.lr, weight_decay=0.0)
    steps_per_epoch = math.ceil(len(train) / PAIRS_PER_STEP)
    total, started, step = options.epochs * steps_per_epoch, time.monotonic(), 0
    for epoch in range(options.epochs):
        losses = []
        for batch in step_batches(train, rng):
            progress = max(step / total, (time.monotonic() - started) / (60 * options.minutes))
            if progress >= 1:
                break
            warm = min(1.0, (step + 1) / 20)
            for group in optimizer.param_groups:
                group["lr"] = options.lr * warm * (1 - progress)
            losses.append(train_step(classifier, batch))
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
        if not losses:
            break
        hits = pairwise_hits(classifier, validation)
        point = {
            "epoch": epoch + 1,
            "minutes": round((time.monotonic() - started) / 60, 2),
            "loss": sum(losses) / len(losses),
            "validation_pairwise": sum(hits) / len(hits),
        }
        curve.points.append(point)
        print(point, flush=True)


def train_step(classifier: Classifier, batch: Sequence[Pair]) -> float:
    """Accumulate the gradients of one step over micro-batches; the mean loss of a pair."""
    from torch.nn.functional import softplus

    classifier.model.train()
    total = 0.0
    for micro in micro_batches(batch):
        scores = classifier.scores([pair.right for pair in micro] + [pair.wrong for pair in micro])
        right, wrong = scores.chunk(2)
        loss = (softplus(right) + softplus(-wrong) + softplus(right - wrong)).sum() / len(batch)
        loss.backward()
        total += loss.item()
    return total


def step_batches(pairs: Sequence[Pair], rng: random.Random) -> Iterator[list[Pair]]:
    """Shuffled pairs, sorted by length within a few steps, those steps in random order."""
    shuffled = rng.sample(pairs, len(pairs))
    size = PAIRS_PER_STEP * SORTED_TOGETHER
    for start in range(0, len(shuffled), size):
        together = sorted(shuffled[start : start + size], key=lambda pair: pair.length)
        steps = [together[i : i + PAIRS_PER_STEP] for i in range(0, len(together), PAIRS_PER_STEP)]
        yield from rng.sample(steps, len(steps))


def micro_batches(pairs: Sequence[Pair]) -> Iterator[list[Pair]]:
    """Pairs by length, as many together as the token limit allows; twins never apart."""
    micro: list[Pair] = []
    for pair in sorted(pairs, key=lambda pair: pair.length):
        if micro and 2 * (len(micro) + 1) * pair.length > TOKENS_PER_MICRO_BATCH:
            yield micro
            micro = []
        micro.append(pair)
    if micro:
        yield micro


def pairwise_hits(classifier: Classifier, pairs: Sequence[Pair]) -> list[bool]:
    """For each pair whether the wrong twin scores higher; a tie is no hit."""
    import torch

    classifier.model.eval()
    hits: list[bool] = []
    with torch.inference_mode():
        for micro in micro_batches(pairs):
            right, wrong = classifier.scores([pair.right for pair in micro] + [pair.wrong for pair in micro]).chunk(2)
            hits += (wrong > right).tolist()
    return hits


if __name__ == "__main__":
    sys.exit(main())
