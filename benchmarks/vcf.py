"""How many notes a second the VCF filters on one core, at the length of MEDEC's notes.

    python benchmarks/vcf.py

Reads MEDEC's training pairs from $MEDEC_DIR or ../shared/medec, else the sample notes. Exits with 1 below the target.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from statistics import fmean, median

from medserl.data.readers import read_notes
from medserl.data.sample_paths import sample_path
from medserl.game import apply_vcf
from medserl.game.sentences import forget_sentences
from medserl.game.text import split_words

TARGET = 5_000
"""Notes a second. A round has at most 128 games of 3 attempts, so the filter takes under a tenth of a second."""
PASSES = 9
PAIRS = "medec_ms_train_pairs.jsonl"


def main() -> int:
    source = notes_file()
    pairs = [(note.correct_note, note.incorrect_note) for note in read_notes(source).notes if note.is_pair]
    speeds = [len(pairs) / timed_pass(pairs) for _ in range(PASSES)]
    words = fmean(len(split_words(correct).keys) for correct, _ in pairs)
    print(
        f"VCF: {median(speeds):,.0f} notes/s on one core (median of {PASSES} passes, {min(speeds):,.0f} to "
        f"{max(speeds):,.0f}) over {len(pairs):,} pairs of {source.name}, {words:.0f} words a note; target {TARGET:,}"
    )
    return 0 if median(speeds) >= TARGET else 1


def notes_file() -> Path:
    shared = Path(__file__).resolve().parents[2] / "shared" / "medec"
    for folder in (os.environ.get("MEDEC_DIR"), shared):
        if folder and (Path(folder) / PAIRS).is_file():
            return Path(folder) / PAIRS
    return sample_path("train")


def timed_pass(pairs: list[tuple[str, str]]) -> float:
    """Processor seconds of one pass; nothing is remembered from the pass before."""
    forget_sentences()
    start = time.process_time()
    for correct, incorrect in pairs:
        apply_vcf(correct, incorrect)
    return time.process_time() - start


if __name__ == "__main__":
    sys.exit(main())
