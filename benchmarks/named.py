"""How many of the sample's wrong test notes a system flags in the right sentence, and how many it puts right.

    python benchmarks/named.py outputs/PIPELINE/eval/warmup.predictions.jsonl

The file is one that `medserl evaluate` or the pipeline wrote on the sample's test notes. With 95 % intervals.
Invented patients, for developing software, not for clinical use.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from medserl.data.readers import read_notes
from medserl.data.sample_paths import sample_path
from medserl.evaluation.predictions import LabelledText, Prediction, labelled_texts
from medserl.evaluation.statistics import share_estimate
from medserl.runs.records import read_rows


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    said = {row["text_id"]: Prediction(**row) for row in read_rows(Path(sys.argv[1]))}
    texts = labelled_texts(read_notes(sample_path("test")).notes)
    flagged = [one for one in said.values() if one.verdict == "INCORRECT"]
    print(f"flagged {len(flagged)}, with a sentence {sum(one.error_sentence_id is not None for one in flagged)}")
    wrong = [text for text in texts if text.is_error]
    show("the right sentence", wrong, [names_it(said[text.text_id], text) for text in wrong])
    show("the right words, to the letter", wrong, [mends_it(said[text.text_id], text) for text in wrong])


def names_it(one: Prediction, text: LabelledText) -> bool:
    return one.verdict == "INCORRECT" and one.error_sentence_id == text.error_sentence_id


def mends_it(one: Prediction, text: LabelledText) -> bool:
    return one.verdict == "INCORRECT" and (one.correction or "").strip() == (text.corrected_sentence or "").strip()


def show(title: str, texts: Sequence[LabelledText], hits: Sequence[bool]) -> None:
    found = share_estimate(hits, [text.pair_id or text.text_id for text in texts])
    assert found.value is not None and found.low is not None and found.high is not None
    print(f"{title}: {100 * found.value:.1f} % ({100 * found.low:.1f} to {100 * found.high:.1f}) of {len(texts)}")


if __name__ == "__main__":
    main()
