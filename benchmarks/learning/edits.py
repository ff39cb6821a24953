"""What the errors of an arm's games change: the note's fact or something else, and whether some words are always wrong.

    python benchmarks/learning/edits.py outputs/learning/play/A_seed0

For runs on the notes of facts that nobody taught. The fact table has a wrong twin of each of them, which no arm has
seen: an error *hits* where it changes a word that the twin changes, too. *By its words alone* a pair is ordered where
the words put in are wrong more often, among the other pairs, than the words taken out; half where both are alike.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from medserl.data.corpus import build_untaught_pairs
from medserl.game.vcf import apply_vcf
from medserl.runs.records import read_rows

Pair = tuple[str, str]
"""The words that are right and those in their place, in small letters."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    games = read_rows(parser.parse_args().run / "episodes.jsonl")
    twins = {row["note_id"]: words(row["correct_note"], row["incorrect_note"]) for row in build_untaught_pairs()}
    errors = [game for game in games if game["mode"] == "error" and game["modified"] is not None]
    pairs = [words(game["original"], game["modified"]) for game in errors]
    hits = sum(
        bool(set(right.split()) & set(twins[game["note_id"]][0].split()))
        for game, (right, _) in zip(errors, pairs, strict=True)
    )
    print(f"accepted errors: {len(errors)}, of which {hits} change a word of the fact")
    print(f"ordered by their words alone: {100 * ordered_by_words(pairs):.0f} % of them")


def words(original: str, modified: str) -> Pair:
    edits = apply_vcf(original, modified).edits
    right, wrong = (" ".join(getattr(edit, side) for edit in edits) for side in ("original", "modified"))
    return right.casefold(), wrong.casefold()


def ordered_by_words(pairs: Sequence[Pair]) -> float:
    """The share of pairs that the words order, each pair judged by the others."""
    right, wrong = Counter(right for right, _ in pairs), Counter(wrong for _, wrong in pairs)

    def suspicion(word: str, pair: Pair) -> float:
        """The share of wrong ones among the other places of the word; a half where it has no other."""
        in_wrong, in_right = wrong[word] - (word == pair[1]), right[word] - (word == pair[0])
        return (in_wrong + 0.5) / (in_wrong + in_right + 1)

    scores = [suspicion(pair[1], pair) - suspicion(pair[0], pair) for pair in pairs]
    return sum(0.5 if score == 0 else score > 0 for score in scores) / len(scores)


if __name__ == "__main__":
    main()
