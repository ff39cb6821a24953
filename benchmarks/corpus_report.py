"""Is the sample corpus sound? Writes `docs/corpus.md`: figures beside MEDEC's, shortcut tests, notes to read.

    python benchmarks/corpus_report.py [--model FOLDER [--pairs N]] [--output docs/corpus.md]

With `--model` it also asks an untrained language model and keeps the answers in `benchmarks/results/`, from where
later runs show them. Exits with 1 when a limit of the issue is broken. Invented patients, for developing software,
not for clinical use.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from medserl.data.readers import read_notes
from medserl.data.sample_paths import sample_path
from medserl.evaluation.statistics import Estimate, share_estimate
from medserl.game import apply_vcf
from medserl.game.note import Note
from medserl.game.text import split_sentences, split_words
from medserl.knowledge.facts import load_facts
from medserl.knowledge.neutral import n_pairs, neutral_edits
from medserl.knowledge.oracle import check_edit

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
LEARNED = ("ordered", "both_right")
EDITS = ROOT / "tests" / "data" / "truth_edits.jsonl"
FRESH_EDITS = EDITS.with_name("truth_edits_fresh.jsonl")
LIMITS = {"test-seen": 0.58, "test-unseen": 0.55}  # accuracy of any shortcut
MIN_ACCEPTANCE = 0.99
LABEL = "Invented patients, for developing software, not for clinical use."


@dataclass(frozen=True)
class Shortcut:
    """What one classifier without medicine reaches: share of notes judged rightly, and of pairs ordered rightly."""

    name: str
    split: str
    accuracy: float
    pairwise: Estimate


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="folder of a causal language model in Hugging Face form")
    parser.add_argument("--pairs", type=int, default=128, help="pairs and notes that the model is asked about")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "corpus.md")
    options = parser.parse_args(arguments)

    sample = {split: read_pairs(sample_path(split)) for split in ("train", "validation", "test")}
    medec = medec_pairs()
    if options.model:
        from model_figures import measure_model

        measure_model(options.model, options.pairs, sample["test"], medec, RESULTS / "corpus_model.json")
    shortcuts = shortcut_tests(sample["train"], sample["test"])
    notes = [note for pairs in sample.values() for note in pairs]
    text = "\n".join(
        [
            "# The sample corpus\n",
            f"{LABEL} Made by `benchmarks/corpus_report.py`; do not edit by hand.\n",
            *contents_section(sample),
            *shape_section(notes, medec),
            *shortcut_section(shortcuts),
            *oracle_section(),
            *model_section(),
            *reading_section(notes),
        ]
    )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text, encoding="utf-8")
    broken = [s for s in shortcuts if s.accuracy > LIMITS[s.split]]
    accepted = fmean(apply_vcf(*twins(note)).passed for note in notes)
    for shortcut in broken:
        print(f"shortcut {shortcut.name} reaches {shortcut.accuracy:.1%} on {shortcut.split}", file=sys.stderr)
    if accepted < MIN_ACCEPTANCE:
        print(f"the VCF accepts only {accepted:.1%} of the pairs", file=sys.stderr)
    return 1 if broken or accepted < MIN_ACCEPTANCE else 0


def read_pairs(path: Path) -> list[Note]:
    return [note for note in read_notes(path).notes if note.is_pair]


def medec_pairs() -> list[Note]:
    """MEDEC-MS's training pairs from $MEDEC_DIR or ../shared/medec; none where they are not there."""
    for folder in (os.environ.get("MEDEC_DIR"), ROOT.parent / "shared" / "medec"):
        path = Path(folder or "") / "medec_ms_train_pairs.jsonl"
        if folder and path.is_file():
            return read_pairs(path)
    return []


def twins(note: Note) -> tuple[str, str]:
    assert note.correct_note is not None and note.incorrect_note is not None
    return note.correct_note, note.incorrect_note


def contents_section(sample: dict[str, list[Note]]) -> list[str]:
    table = load_facts()
    opposites = [fact for fact in table.facts if len(fact.wrong_terms) == 1]
    kinds = Counter(fact.pool.kind for fact in table.facts)
    types = Counter(fact.pool.error_type for fact in table.facts)
    splits = Counter(note.split for pairs in sample.values() for note in pairs)
    return [
        "## What is in it\n",
        f"{len(table.facts)} facts in {len(table.pools)} pools. "
        f"Held out are {sum(f.heldout for f in table.facts)} of them. "
        f"There are {n_pairs()} neutral pairs of wordings.\n",
        f"Every fact has at least {min(len(fact.wrong) for fact in table.facts)} wrong answers. In {len(opposites)} "
        "of them, the yes-or-no ones, these are wordings of one meaning, since a negation has one opposite.\n",
        *as_table(("split", "pairs"), sorted(splits.items(), key=lambda item: str(item[0]))),
        *as_table(("error type", "facts"), sorted(types.items())),
        *as_table(("kind of error", "facts"), sorted(kinds.items())),
    ]


def shape_section(notes: Sequence[Note], medec: Sequence[Note]) -> list[str]:
    columns = [("sample", notes)] + ([("MEDEC-MS train", medec)] if medec else [])
    shapes = [shape(pairs) for _, pairs in columns]
    rows = [(name, *(figures[name] for figures in shapes)) for name in shapes[0]]
    missing = [] if medec else ["MEDEC was not there when this was made.\n"]
    return ["## Shape of the pairs\n", *missing, *as_table(("", *(name for name, _ in columns)), rows)]


def shape(notes: Sequence[Note]) -> dict[str, str]:
    """Length, edit and filter figures of pairs."""
    results = [apply_vcf(*twins(note)) for note in notes]
    lengths = [len(split_words(twins(note)[0]).keys) for note in notes]
    places = [place for note in notes if (place := relative_place(note)) is not None]
    sentences_after = [after for note in notes if (after := sentences_after_edit(note)) is not None]
    offered = fmean(
        bool(neutral_edits(twins(note)[0])) for note in random.Random(0).sample(notes, min(300, len(notes)))
    )
    return {
        "pairs": f"{len(notes):,}",
        "words a note, mean (least to most)": f"{fmean(lengths):.0f} ({min(lengths)} to {max(lengths)})",
        "words edited, mean": f"{fmean(result.word_edits for result in results):.2f}",
        "Jaccard, median": f"{median(result.jaccard for result in results):.3f}",
        "accepted by the VCF": f"{fmean(result.passed for result in results):.1%}",
        "place of the edit in the note, median (0 start, 1 end)": f"{median(places):.2f}",
        "edited sentence: the last, the last but one, an earlier one": " / ".join(
            f"{fmean(min(after, 2) == n for after in sentences_after):.0%}" for n in range(3)
        ),
        "notes that offer a neutral edit": f"{offered:.1%}",
    }


def relative_place(note: Note) -> float | None:
    correct, incorrect = twins(note)
    edits = apply_vcf(correct, incorrect).edits
    return edits[0].original_start / len(correct) if edits else None


def sentences_after_edit(note: Note) -> int | None:
    """How many sentences follow the one in which the twins first differ."""
    correct, incorrect = twins(note)
    edits = apply_vcf(correct, incorrect).edits
    return sum(span.start > edits[0].original_start for span in split_sentences(correct)) if edits else None


def shortcut_tests(train: Sequence[Note], test: Sequence[Note]) -> list[Shortcut]:
    """Classifiers that know no medicine, trained on all training notes and scored on both halves of the test file."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    # Balanced terms make for a flat start: with the usual tolerance the solver stops there and learns nothing.
    logistic = {"C": 10.0, "max_iter": 5000, "tol": 1e-8}
    models = {
        "TF-IDF, words and word pairs": make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(**logistic)
        ),
        "TF-IDF, 2 to 5 characters": make_pipeline(
            TfidfVectorizer(analyzer="char", ngram_range=(2, 5), min_df=3, sublinear_tf=True),
            LogisticRegression(**logistic),
        ),
        "length and position": make_pipeline(
            FunctionTransformer(surface_features), StandardScaler(), LogisticRegression(**logistic)
        ),
    }
    texts = [text for note in train for text in twins(note)]
    labels = [0, 1] * len(train)
    halves = {split: [note for note in test if note.split == split] for split in LIMITS}
    shortcuts = [Shortcut("majority", split, 0.5, share_estimate([])) for split in LIMITS]
    for name, model in models.items():
        model.fit(texts, labels)
        shortcuts += [_shortcut(name, split, pairs, model.decision_function) for split, pairs in halves.items()]
    return shortcuts


def _shortcut(name: str, split: str, pairs: Sequence[Note], score: Callable[[list[str]], Any]) -> Shortcut:
    scores = score([text for note in pairs for text in twins(note)])
    right, wrong = scores[0::2], scores[1::2]
    accuracy = float(((right <= 0).mean() + (wrong > 0).mean()) / 2)
    return Shortcut(name, split, accuracy, share_estimate([bool(w > r) for r, w in zip(right, wrong, strict=True)]))


def surface_features(texts: Sequence[str]) -> list[list[float]]:
    """Length in characters, words and sentences, length of the last sentence, digits, and the mean word length."""
    features = []
    for text in texts:
        words, sentences = text.split(), text.split(". ")
        digits = sum(char.isdigit() for char in text)
        features.append(
            [len(text), len(words), len(sentences), len(sentences[-1]), digits, fmean(len(word) for word in words)]
        )
    return features


def shortcut_section(shortcuts: Sequence[Shortcut]) -> list[str]:
    rows = [(s.name, s.split, f"{s.accuracy:.1%}", f"{LIMITS[s.split]:.0%}", percent(s.pairwise)) for s in shortcuts]
    return [
        "## Can it be solved without medicine?\n",
        "Trained on the training notes. Twins differ in the term alone, and every form of a term is as often wrong as "
        "right, so counting words should not help.\n",
        *as_table(("classifier", "test notes", "accuracy", "limit", "pairs ordered rightly (95 % interval)"), rows),
    ]


def oracle_section() -> list[str]:
    verdicts = ("true", "false", "unknown")
    tuned, fresh = judged_edits(EDITS), judged_edits(FRESH_EDITS)
    counts = Counter(tuned)
    decidable = [answer != "unknown" for expected, answer in tuned if expected != "unknown"]
    return [
        "## The truth oracle\n",
        f"It was tried on {len(tuned)} edits written by hand. It decides {decided(tuned)}. Of the edits that a "
        f"clinician can decide from the note it decides {fmean(decidable):.1%}; the others are expected to be unknown. "
        "The expectations were written first, but rules were mended on these edits: the figures are those of a tuned "
        f"oracle. A further {len(fresh)} edits were written after the last change to the rules, and used to mend none. "
        f"Of these it decides {decided(fresh)}. What it leaves open there is free rewording, and terms that the table "
        "does not know.\n",
        *as_table(
            ("expected", *(f"oracle: {verdict}" for verdict in verdicts)),
            [(expected, *(counts[expected, answer] for answer in verdicts)) for expected in verdicts],
        ),
    ]


def judged_edits(path: Path) -> list[tuple[str, str]]:
    """(expected, answer of the oracle) for every edit of a file."""
    edits = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    facts = {fact.fact_id: fact for fact in load_facts().facts}
    said = [check_edit(edit["original"], edit["modified"], facts[edit["fact_id"]]).still_true for edit in edits]
    return list(zip((edit["expected"] for edit in edits), said, strict=True))


def decided(pairs: Sequence[tuple[str, str]]) -> str:
    """The share that is decided, and how much of that rightly."""
    right = [expected == answer for expected, answer in pairs if answer != "unknown"]
    return f"{len(right) / len(pairs):.1%}, {fmean(right):.1%} of them rightly"


def model_section() -> list[str]:
    """Figures that need a model, as they were last measured."""
    lines = ["## What a language model makes of it\n"]
    path = RESULTS / "corpus_model.json"
    if path.is_file():
        figures = json.loads(path.read_text())
        gone = " The prompt set `brief` is no longer shipped." if "brief prompts" in figures["about"] else ""
        lines += [f"{figures['about']}{gone}\n", *as_table(("", *figures["columns"]), figures["rows"])]
    else:
        lines.append("Not measured yet: run this script with `--model`.\n")
    return [*lines, *learnability_section()]


def learnability_section() -> list[str]:
    """What a LoRA fine-tuning reaches, as it was last measured: with the right term first, and as a bare classifier."""
    return [
        "## Can it be learned?\n",
        "Ordered: the wrong twin leans more to INCORRECT (chance 50%). "
        "Both right: both verdicts are right (chance 25%).\n",
        "### The right term, then the verdict\n",
        *learnability_of("learnability.json"),
        "### The verdict alone\n",
        *learnability_of("learnability_verdict_only.json"),
    ]


def learnability_of(file: str) -> list[str]:
    """The run kept in this file: how it was made, what it reached, its curve."""
    path = RESULTS / file
    if not path.is_file():
        return ["Not measured yet: run `benchmarks/learnability.py`.\n"]
    curve = json.loads(path.read_text())
    settings, final = curve["settings"], curve["final"]
    threads = f"{settings['threads']} CPU thread(s)" if settings["threads"] else "all CPU cores"
    asked = " --verdict-only" if settings["verdict_only"] else ""
    asked += f" --threads {settings['threads']}" if settings["threads"] else ""
    return [
        f"SmolLM2-135M with a LoRA of rank {settings['rank']}, {final['train_pairs']} training pairs. "
        f"It took {final['minutes']} minutes on {threads} "
        f"(`python benchmarks/learnability.py --model FOLDER --minutes {settings['minutes']:g}{asked} "
        f"--evaluate-every {settings['evaluate_every']}`) at commit {curve['commit']}; notes may have changed since.\n",
        *as_table(
            ("test notes", "pairs ordered rightly", "both twins right"),
            [(split, *(percent(Estimate(**final[split][name])) for name in LEARNED)) for split in LIMITS],
        ),
        *as_table(
            ("epoch", "minutes", "loss", "validation pairs ordered rightly", "both twins right"),
            [
                (
                    p["epoch"],
                    f"{p['minutes']:.1f}",
                    f"{p['loss']:.2f}",
                    *(f"{p[f'validation_{n}']:.1%}" for n in LEARNED),
                )
                for p in curve["points"]
            ],
        ),
    ]


def reading_section(notes: Sequence[Note]) -> list[str]:
    lines = ["## Ten notes, drawn by chance\n", f"{LABEL} The right term is in the note; the wrong sentence follows.\n"]
    for note in random.Random(10).sample(list(notes), 10):
        lines += [f"**{note.note_id}** ({note.fact_id})\n", f"> {note.correct_note}\n>\n> *{note.error_sentence}*\n"]
    return lines


def percent(estimate: Estimate) -> str:
    if estimate.value is None:
        return "no order"
    return f"{estimate.value:.1%} ({estimate.low:.1%} to {estimate.high:.1%}), n = {estimate.n}"


def as_table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> list[str]:
    """A Markdown table and the blank line after it."""
    lines = [head, ["---"] * len(head), *rows]
    return [*("| " + " | ".join(map(str, line)) + " |" for line in lines), ""]


if __name__ == "__main__":
    sys.exit(main())
