"""Can a small model learn the sample notes at all? A LoRA fine-tuning on the twins, tested on pairs.

    python benchmarks/learnability.py --model FOLDER [--minutes 60] [--verdict-only] [--output FILE]

An upper bound for the game. After a note the model writes the right term, then its verdict:

    NOTE
    Right: pulmonary embolism
    Verdict: INCORRECT

The right term is a target that the findings alone can teach, and the verdict then compares two terms that are both
written. Asked for the verdict alone (`--verdict-only`), the model has to find term and comparison at once.
Twins share their text up to the edit, so both stand in one sequence, the second hidden from the first by the mask.

Reported on facts seen in training, told in new wordings, and on facts never seen, with 95 % Wilson intervals: pairs
ordered rightly (the wrong twin leans more to INCORRECT; chance 50 %) and both twins judged rightly (chance 25 %).
Writes a JSON file that `corpus_report.py` shows. Invented patients, for developing software, not for clinical use.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from medserl.data.sample_names import SampleSplit
from medserl.data.sample_paths import sample_path
from medserl.evaluation.statistics import share_estimate
from medserl.knowledge.facts import Fact, load_facts
from medserl.runs.runlog import git_revision

RESULTS = Path(__file__).resolve().parent / "results"
PAIRS_PER_STEP = 16
PAIRS_PER_PASS = 6  # some 1,000 tokens: what two cores take fastest
SORTED_TOGETHER = 8  # steps whose pairs are sorted by length, so that little is padded
VERDICT_WEIGHT = 2.0  # a verdict is one token, a term three
NOTE_TERM_TOKENS = 6  # of the right note's own text, where it parts from its twin, are learned as text too
WARM_UP_STEPS = 20
TERM_TOKENS = 14  # at most
LORA = {
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "task_type": "CAUSAL_LM",
}


@dataclass(frozen=True)
class Pair:
    """Both twins as text, and the right term."""

    right: str
    wrong: str
    term: str
    split: str


@dataclass(frozen=True)
class Packed:
    """A pair as one sequence: shared text, the right note's tail, the wrong note's tail.

    `branch` is 0, 1, 2 for these; the output at place `predicted_from[i]` predicts token i.
    """

    ids: list[int]
    positions: list[int]
    branch: list[int]
    predicted_from: list[int]
    weights: list[float]


@dataclass
class Curve:
    """What is written: the code's commit, settings, one point per evaluation, and the final figures."""

    commit: str
    settings: dict[str, Any]
    points: list[dict[str, float]] = field(default_factory=list)
    final: dict[str, Any] = field(default_factory=dict)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    import torch

    torch.manual_seed(options.seed)
    if options.threads:
        torch.set_num_threads(options.threads)
    output = options.output or RESULTS / f"learnability{'_verdict_only' if options.verdict_only else ''}.json"
    train, validation, test = (read_pairs(split, options.limit) for split in ("train", "validation", "test"))
    reader = Reader(options)
    settings = {key: value for key, value in vars(options).items() if key not in ("model", "output")}
    curve = Curve(git_revision() or "unknown", settings)
    curve.final = {"minutes": fit(reader, train, validation, options, curve), "train_pairs": len(train)}
    for split in ("test-seen", "test-unseen"):
        leans = reader.leans([pair for pair in test if pair.split == split])
        curve.final[split] = {
            "ordered": asdict(share_estimate([wrong > right for right, wrong in leans])),
            "both_right": asdict(share_estimate([wrong > 0 > right for right, wrong in leans])),
        }
        print(split, curve.final[split], flush=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(asdict(curve), indent=1) + "\n")
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder of a causal language model in Hugging Face form")
    parser.add_argument("--verdict-only", action="store_true", help="no term before the verdict")
    parser.add_argument("--minutes", type=float, default=60, help="of training; the learning rate decays over them")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--frozen-layers", type=int, default=8, help="lowest layers without LoRA: no backward pass")
    parser.add_argument("--evaluate-every", type=int, default=2, help="epochs between validations")
    parser.add_argument("--validation-pairs", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="1 where other work keeps the cores busy: two that wait are slower")
    parser.add_argument("--limit", type=int, help="only so many pairs of each split, to try the script out")
    parser.add_argument("--output", type=Path)
    return parser.parse_args(arguments)


def read_pairs(split: SampleSplit, limit: int | None) -> list[Pair]:
    """Pairs of a sample file; a limited test file keeps both halves."""
    rows = [json.loads(line) for line in sample_path(split).read_text(encoding="utf-8").splitlines()]
    if limit:
        rows = rows[:limit] if split != "test" else rows[:limit] + rows[-limit:]
    facts = {fact.fact_id: fact for fact in load_facts().facts}
    return [
        Pair(row["correct_note"], row["incorrect_note"], right_term(row, facts[row["fact_id"]]), row["split"])
        for row in rows
    ]


def right_term(row: dict[str, Any], fact: Fact) -> str:
    """The form of the fact's answer that the corrected sentence uses."""
    return max((form for form in fact.answer.forms if form in row["corrected_sentence"]), key=len)


class Reader:
    """The base model with a LoRA adapter in its upper layers, and what it is asked."""

    def __init__(self, options: argparse.Namespace) -> None:
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from medserl.models import pick_dtype

        self.tokenizer = AutoTokenizer.from_pretrained(options.model)
        base = AutoModelForCausalLM.from_pretrained(options.model, dtype=getattr(torch, pick_dtype("auto", "cpu")))
        layers = list(range(options.frozen_layers, base.config.num_hidden_layers))
        config = LoraConfig(r=options.rank, lora_alpha=2 * options.rank, layers_to_transform=layers, **LORA)
        self.model = get_peft_model(base, config)
        self.body, self.head = base.model, base.lm_head
        self.verdict_only = options.verdict_only
        self.verdicts = tuple(self.ids(f" {word}")[0] for word in ("CORRECT", "INCORRECT"))

    def ids(self, text: str) -> list[int]:
        return self.tokenizer(text).input_ids

    def pack(self, pair: Pair) -> Packed:
        shared = common_words(pair.right, pair.wrong)
        prefix = self.ids(shared)
        n = len(prefix)
        packed = Packed(list(prefix), list(range(n)), [0] * n, list(range(-1, n - 1)), [0.0] * n)
        for branch, note in ((1, pair.right), (2, pair.wrong)):
            rest, weights = self._tail(note[len(shared) :], pair.term, branch)
            start = len(packed.ids)
            packed.ids.extend(rest)
            packed.positions.extend(range(n, n + len(rest)))
            packed.branch.extend([branch] * len(rest))
            packed.predicted_from.extend([n - 1, *range(start, start + len(rest) - 1)])
            packed.weights.extend(weights)
        return packed

    def _tail(self, text: str, term: str, branch: int) -> tuple[list[int], list[float]]:
        """Tokens and weights of a note from the edit on, with its answer. Only what is true is learned as text."""
        note = self.ids(text)
        learned = min(NOTE_TERM_TOKENS, len(note)) if branch == 1 else 0
        ask = self.ids("\nVerdict:") if self.verdict_only else self.ids("\nRight:")
        answer = [] if self.verdict_only else self.ids(f" {term}\nVerdict:")
        return (
            [*note, *ask, *answer, self.verdicts[branch - 1]],
            [1.0] * learned + [0.0] * (len(note) - learned + len(ask)) + [1.0] * len(answer) + [VERDICT_WEIGHT],
        )

    def loss(self, pairs: Sequence[Pair]) -> Any:
        """Weighted negative log-likelihood, the sum over a pair's learned tokens, the mean over pairs."""
        import torch

        packs = [self.pack(pair) for pair in pairs]
        longest = max(len(pack.ids) for pack in packs)
        ids, positions = (torch.zeros(len(packs), longest, dtype=torch.long) for _ in range(2))
        visible = torch.zeros(len(packs), 1, longest, longest, dtype=torch.bool)
        places, targets, weights = [], [], []
        for row, pack in enumerate(packs):
            n = len(pack.ids)
            ids[row, :n], positions[row, :n] = torch.tensor(pack.ids), torch.tensor(pack.positions)
            visible[row, 0] = torch.eye(longest, dtype=torch.bool)  # a padded place sees itself: no empty softmax
            visible[row, 0, :n, :n] = sees(torch.tensor(pack.branch))
            for i in (i for i, weight in enumerate(pack.weights) if weight):
                places.append(row * longest + pack.predicted_from[i])
                targets.append(pack.ids[i])
                weights.append(pack.weights[i])
        dtype = self.head.weight.dtype
        mask = torch.zeros(visible.shape, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)
        hidden = self.body(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
        logits = self.head(hidden.last_hidden_state.flatten(0, 1)[torch.tensor(places)]).float()
        losses = torch.nn.functional.cross_entropy(logits, torch.tensor(targets), reduction="none")
        return (losses * torch.tensor(weights)).sum() / len(pairs)

    def leans(self, pairs: Sequence[Pair]) -> list[tuple[float, float]]:
        """How far each twin (right, wrong) leans to INCORRECT, after its term: the difference of two logits."""
        import torch

        self.model.eval()
        found: list[tuple[float, float]] = []
        with torch.inference_mode():
            for start in range(0, len(pairs), PAIRS_PER_STEP):
                batch = pairs[start : start + PAIRS_PER_STEP]
                notes = [pair.right for pair in batch] + [pair.wrong for pair in batch]
                leans = self._verdicts([self.ids(note) for note in notes])
                found += zip(leans[: len(batch)], leans[len(batch) :], strict=True)
        self.model.train()
        return found

    def _verdicts(self, notes: Sequence[list[int]]) -> list[float]:
        if not self.verdict_only:
            notes = self._with_terms([note + self.ids("\nRight:") for note in notes])
        ids, mask = padded([note + self.ids("\nVerdict:") for note in notes])
        last = self.body(
            input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0), use_cache=False
        ).last_hidden_state[:, -1]
        logits = self.head(last).float()
        correct, incorrect = self.verdicts
        return (logits[:, incorrect] - logits[:, correct]).tolist()

    def _with_terms(self, prompts: Sequence[list[int]]) -> list[list[int]]:
        """Each prompt with the term that the model writes, greedily, to the end of the line."""
        ids, mask = padded(prompts)
        end = self.ids("\n")[0]
        written = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=TERM_TOKENS,
            do_sample=False,
            eos_token_id=end,
            pad_token_id=end,
        )
        terms = written[:, ids.shape[1] :].tolist()
        return [
            [*prompt, *(term[: term.index(end)] if end in term else term)]
            for prompt, term in zip(prompts, terms, strict=True)
        ]


def common_words(a: str, b: str) -> str:
    """The text that both begin with, up to the last space in it."""
    n = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return a[: max(0, a.rfind(" ", 0, n))]


def sees(branch: Any) -> Any:
    """(n, n) bool: every place sees the shared text and its own branch, up to itself."""
    import torch

    n = len(branch)
    return torch.ones(n, n, dtype=torch.bool).tril() & ((branch[None] == 0) | (branch[None] == branch[:, None]))


def padded(rows: Sequence[list[int]]) -> tuple[Any, Any]:
    """(N, L) ids and mask, padded on the left."""
    import torch

    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def fit(
    reader: Reader, train: Sequence[Pair], validation: Sequence[Pair], options: argparse.Namespace, curve: Curve
) -> float:
    """AdamW, its rate decaying linearly over the minutes; returns the minutes, validation not counted."""
    import torch

    rng = random.Random(options.seed)
    parameters = [parameter for parameter in reader.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=options.lr, betas=(0.9, 0.95), weight_decay=0.0)
    seconds, step, epoch, losses = 0.0, 0, 0, []
    while True:
        for batch in step_batches(train, rng):
            left = 1 - seconds / (60 * options.minutes)
            if left <= 0:
                return round(seconds / 60, 1)
            for group in optimizer.param_groups:
                group["lr"] = options.lr * min(1.0, (step + 1) / WARM_UP_STEPS) * left
            started = time.monotonic()
            losses.append(train_step(reader, batch))
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            seconds, step = seconds + time.monotonic() - started, step + 1
        epoch += 1
        if epoch % options.evaluate_every == 0:
            leans = reader.leans(validation[: options.validation_pairs])
            point = {
                "epoch": epoch,
                "minutes": round(seconds / 60, 1),
                "loss": fmean(losses),
                "validation_ordered": fmean(wrong > right for right, wrong in leans),
                "validation_both_right": fmean(wrong > 0 > right for right, wrong in leans),
            }
            losses = []
            curve.points.append(point)
            print(point, flush=True)


def train_step(reader: Reader, batch: Sequence[Pair]) -> float:
    """Accumulate the gradients of one step, a few pairs at a time; the mean loss of a pair."""
    total = 0.0
    for start in range(0, len(batch), PAIRS_PER_PASS):
        some = batch[start : start + PAIRS_PER_PASS]
        loss = reader.loss(some) * (len(some) / len(batch))
        loss.backward()
        total += loss.item()
    return total


def step_batches(pairs: Sequence[Pair], rng: random.Random) -> Iterator[list[Pair]]:
    """Shuffled pairs, sorted by length within a few steps, those steps in random order."""
    shuffled = rng.sample(pairs, len(pairs))
    size = PAIRS_PER_STEP * SORTED_TOGETHER
    for start in range(0, len(shuffled), size):
        together = sorted(shuffled[start : start + size], key=lambda pair: len(pair.right))
        steps = [together[i : i + PAIRS_PER_STEP] for i in range(0, len(together), PAIRS_PER_STEP)]
        yield from rng.sample(steps, len(steps))


if __name__ == "__main__":
    sys.exit(main())
