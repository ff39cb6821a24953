"""What the filter and the parsers do under attack: a million pairs of texts, and 300,000 completions.

    python benchmarks/attack.py [--pairs 1000000] [--completions 300000] [--seed 0]

- The VCF: random texts, and clinical ones with what an Injector may write (another word, symbols, odd white space,
  marks, halves of characters, other scripts). Counted: exceptions, results that break the filter's own promises, and,
  on one pair in `EVERY`, word distances other than a plain Levenshtein table's and audits that change when the pair is
  turned round.
- The parsers: completions built of keys, tags, numbers and noise. Counted: exceptions, and answers that no line states.

Prints counts of every outcome. Exits with 1 where anything failed.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence

from medserl.game.parsing import note_sentences, parse_answer, parse_injection, parse_verdict
from medserl.game.prompts import load_prompts
from medserl.game.text import split_words
from medserl.game.vcf import Reason, VCFResult, apply_vcf
from medserl.knowledge.audit import audit

EVERY = 20
"""One pair in this many is compared with the reference distance, and audited both ways: both are slow."""

NOTE = (
    "A 67-year-old man comes to the office because of a 2-day history of cough. Temperature is 38.3 C (100.9 F), pulse "
    "is 82/min. Bruises are seen on the patient's legs.\nMedications:\n- aspirin 81 mg b.i.d.\n- Vit. D .5 mg\nT-score "
    "is -2.5; platelets are 150 x 10\u2079/L. He has type 2 diabetes, treated by Dr. Smith with metformin."
)
SENTENCES = note_sentences(NOTE)
TASK = load_prompts("term", "edit").task
NOISE = (
    *(
        "\u00a0",
        "\u2003",
        "\u200b",
        "\u00ad",
        "\ufeff",
        "\u2028",
        "\x00",
        "\x85",
        "\r\n",
        "\t",
        "\ud800",
        "\udfff",
        "\ufe0f",
    ),
    *(
        "C\u00a0. He",
        ". ",
        "! ",
        "\u3002",
        "\u0964",
        "\u2026",
        "\u00ab a. ",
        "(",
        '"',
        "\u2019",
        "'",
        "-",
        "\u2212",
        "+",
        "/",
    ),
    *(
        "\u2191",
        "\u2193",
        "\u2260",
        "\u00bd",
        "\u2079",
        "\u2082",
        "10^9",
        ".5",
        "-8",
        "1/2",
        "\u00b5g",
        "\u03bcg",
        "%",
        "<",
        "=",
    ),
    *(
        "\u0410",
        "\u03bf",
        "\uff21",
        "\U0001d400",
        "\u0301",
        "\u0316\u0301" * 40,
        "\U0001f600",
        "\u2640",
        "\u00df",
        "\u0130",
    ),
    *("mg", "Dr.", "b.i.d.", "82/min.", "He", "is", "was", "not", "left", "right", "fever", "5", "500"),
)
KEYS = (
    *(
        "final_answer",
        "FINAL_ANSWER",
        "final answer",
        "sentence",
        "error_sentence",
        "corrected_sentence",
        "it_says",
        "should_say",
        ":",
        "=",
        " ",
        "\n",
        "\r\n",
    ),
    *(
        "CORRECT",
        "INCORRECT",
        "correct",
        "INC",
        "**",
        "`",
        '"',
        "<note>",
        "</note>",
        "<think>",
        "</think>",
        "0",
        "3",
        "12",
    ),
    *(
        "99999",
        "9" * 400,
        "\u0661",
        "final_answer: CORRECT",
        "final_answer: INCORRECT",
        "error_sentence: 1",
        "NA",
        "\x1b[0m",
    ),
)
_STATED = re.compile("final[_ ]answer.*correct", re.IGNORECASE | re.DOTALL)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--completions", type=int, default=300_000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    rng = random.Random(chosen.seed)
    failed = report("pairs through the VCF", chosen.pairs, lambda number: attack_filter(rng, number))
    failed += report("completions through the parsers", chosen.completions, lambda _: attack_parsers(rng))
    return 1 if failed else 0


def report(what: str, times: int, attack: Callable[[int], str]) -> int:
    """Attack so many times, print how often each outcome came, and return how many were failures."""
    start = time.perf_counter()
    outcomes: Counter[str] = Counter(attack(number) for number in range(times))
    failed = sum(count for outcome, count in outcomes.items() if outcome.startswith("FAILED"))
    print(f"{times:,} {what} in {time.perf_counter() - start:.0f} s: {failed:,} failed")
    for outcome, count in outcomes.most_common():
        print(f"  {count:>9,}  {outcome}")
    return failed


# -- the filter -----------------------------------------------------------------------------------------------------


def attack_filter(rng: random.Random, number: int) -> str:
    original = NOTE if rng.random() < 0.7 else random_text(rng)
    modified = mutated(rng, original) if rng.random() < 0.8 else random_text(rng)
    try:
        result = apply_vcf(original, modified)
        broken = broken_promise(result)
        if broken is None and number % EVERY == 0:
            broken = slow_checks(original, modified, result)
    except BaseException as error:  # a panic of a native library is no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"FAILED: {type(error).__name__}"
    return broken or (str(result.reason) if result.reason else "passed")


def broken_promise(result: VCFResult) -> str | None:
    if result.passed is not (result.reason is None) or result.reason is Reason.FORMAT:
        return "FAILED: passed and reason disagree"
    if not 0.0 <= result.jaccard <= 1.0 or result.word_edits < 0:
        return "FAILED: figures out of range"
    return None


def slow_checks(original: str, modified: str, result: VCFResult) -> str | None:
    if result.word_edits != reference_distance(split_words(original).keys, split_words(modified).keys):
        return "FAILED: wrong distance"
    if audit(original, modified).edit_class != audit(modified, original).edit_class:
        return "FAILED: audit changes when turned round"
    return None


def reference_distance(a: Sequence[str], b: Sequence[str]) -> int:
    """Levenshtein distance by Wagner and Fischer's table (1974), row by row."""
    row = list(range(len(b) + 1))
    for i, word in enumerate(a, start=1):
        above, row = row, [i]
        for j, other in enumerate(b, start=1):
            row.append(min(row[-1] + 1, above[j] + 1, above[j - 1] + (word != other)))
    return row[-1]


def random_text(rng: random.Random) -> str:
    pieces = (
        rng.choice(NOISE) if rng.random() < 0.8 else chr(rng.randrange(0x110000)) for _ in range(rng.randrange(30))
    )
    return rng.choice(("", " ")).join(pieces)


def mutated(rng: random.Random, text: str) -> str:
    """`text` with one to three of its stretches, mostly short ones, replaced by noise."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        start = rng.randrange(len(text) + 1)
        end = min(len(text), start + rng.choice((0, 0, 1, 2, 6)))
        noise = rng.choice(NOISE) * rng.choice((1, 1, 1, 2, 50))
        text = text[:start] + noise + text[end:]
    return text


# -- the parsers ----------------------------------------------------------------------------------------------------


def attack_parsers(rng: random.Random) -> str:
    completion = "".join(rng.choice(KEYS if rng.random() < 0.8 else NOISE) for _ in range(rng.randrange(1, 14)))
    try:
        verdict = parse_verdict(completion)
        answer = parse_answer(completion, SENTENCES, TASK)
        injected = [parse_injection(completion, NOTE, form) for form in ("edit", "note")]
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"FAILED: {type(error).__name__}"
    if verdict != answer.verdict or (verdict and not _STATED.search(completion)):
        return "FAILED: a verdict that is not stated"
    if answer.error_sentence_id is not None and not 0 <= answer.error_sentence_id < len(SENTENCES):
        return "FAILED: a sentence that there is not"
    return str(verdict or ("injection" if any(injected) else "nothing"))


if __name__ == "__main__":
    sys.exit(main())
