"""Where a verdict goes wrong: does the Assessor name the right term, and does its verdict follow what it named?

    python benchmarks/learning/terms.py [--experiment sample]

For runs with the prompt set `term` on the sample's test notes, out of the predictions that `run.py` kept. A term is
right where the answer of the note's fact, or a synonym of it, stands in what the Assessor wrote; a verdict follows
where it is CORRECT just when the note itself has the words that the Assessor wrote. Who copies a right twin's own words
names its right term; only on the wrong twin does it show that the term is known.
"""

from __future__ import annotations

import argparse
import json
import lzma
from pathlib import Path
from statistics import fmean
from typing import Any

from medserl.data.sample_paths import sample_path
from medserl.knowledge.facts import load_facts

RESULTS = Path(__file__).resolve().parent / "results"
SPLITS = ("test-seen", "test-unseen")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", default="sample")
    options = parser.parse_args()
    lines = sample_path("test").read_text(encoding="utf-8").splitlines()
    notes = {note["note_id"]: note for note in map(json.loads, lines)}
    columns = "right term, right twins | right term, wrong twins | verdict right, of those with the right term"
    print(f"| run | notes | {columns} | verdict right, wrong term | verdict follows the term |")
    print("|---|---|---|---|---|---|---|")
    for path in sorted((RESULTS / options.experiment).glob("*/predictions.jsonl.xz")):
        with lzma.open(path, "rt", encoding="utf-8") as file:
            judged = [looked_at(json.loads(line), notes) for line in file]
        for split in SPLITS:
            mine = [each for each in judged if each["split"] == split]
            by_term = {right: [each["right"] for each in mine if each["term"] == right] for right in (True, False)}
            shares = [
                *([each["term"] for each in mine if each["sound"] == sound] for sound in (True, False)),
                by_term[True],
                by_term[False],
                [each["follows"] for each in mine],
            ]
            print(f"| {path.parent.name} | {split} | {' | '.join(map(share, shares))} |")


def looked_at(prediction: dict[str, Any], notes: dict[str, Any]) -> dict[str, Any]:
    """What one answer got right."""
    note = notes[prediction["text_id"].removesuffix("-corrected")]
    sound = prediction["text_id"].endswith("-corrected")
    lines = dict(line.partition(":")[::2] for line in prediction["completion"].split("\n"))
    said = lines.get("should_say", "").strip(" .").casefold()
    says_correct = prediction["verdict"] == "CORRECT"
    forms = load_facts().fact(note["fact_id"]).answer.forms
    return {
        "split": note["split"],
        "sound": sound,
        "term": any(form.casefold() in said for form in forms),
        "right": says_correct == sound,
        "follows": says_correct == (said in note["correct_note" if sound else "incorrect_note"].casefold()),
    }


def share(hits: list[bool]) -> str:
    return f"{100 * fmean(hits):.0f} % of {len(hits)}" if hits else "-"


if __name__ == "__main__":
    main()
