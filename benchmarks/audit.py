"""What the edit audit finds and what it misses.

    python benchmarks/audit.py [--episodes RUN/episodes.jsonl ...]

- Gold errors of MEDEC (train and validation pairs, from $MEDEC_DIR or ../shared/medec) and of the sample notes: the
  share that error mode would accept, and the share mistaken for neutral, which benign mode would accept.
- The neutral pairs: how many are taken for more than wording, with the table and with each pair left out of it.
- Hand-labelled edits of real games (tests/data/audit_edits.jsonl): label noise of each mode without and with rejection
  (precision is the rest of it), and the recall of what each mode should accept.
- With `--episodes`: the truth oracle's label noise over the accepted games of runs, without and with rejection.

Prints a table and writes benchmarks/results/audit.json: counts and shares, no text of any note.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medserl.data.readers import read_notes
from medserl.data.sample_paths import sample_path
from medserl.evaluation.statistics import Estimate, share_estimate
from medserl.game.note import Note
from medserl.game.roles import MODES, Mode
from medserl.game.vcf import apply_vcf
from medserl.knowledge.audit import Audit, EditClass, audit, neutral_pairs, rules_of
from medserl.knowledge.facts import load_facts
from medserl.knowledge.neutral import load_substitutions
from medserl.knowledge.oracle import check_edit

ROOT = Path(__file__).resolve().parents[1]
LABELLED = ROOT / "tests" / "data" / "audit_edits.jsonl"
RESULTS = Path(__file__).resolve().parent / "results" / "audit.json"
MEDEC = {
    "MEDEC train": "medec_ms_train_pairs.jsonl",
    "MEDEC validation": "MEDEC-MS-ValidationSet-with-GroundTruth-and-ErrorType.csv",
}


@dataclass(frozen=True)
class Line:
    """One line of the table: a share, of how many, with its 95 % Wilson interval."""

    data: str
    group: str
    measure: str
    share: float | None
    low: float | None
    high: float | None
    n: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()

    lines: list[Line] = []
    classes: dict[str, dict[str, Counter[str]]] = {}
    seconds: list[float] = []
    for name, groups in gold_pairs().items():
        classes[name] = {}
        audited = {group: [timed(pair, seconds) for pair in pairs] for group, pairs in sorted(groups.items())}
        audited["all"] = [found for audits in audited.values() for found in audits]
        for group, audits in audited.items():
            classes[name][group] = Counter(str(found.edit_class) for found in audits)
            lines += gold_lines(name, group, audits)
    lines += neutral_lines()
    lines += labelled_lines()
    lines += [line for path in arguments.episodes for line in episode_lines(path)]

    milliseconds = 1e3 * sum(seconds) / len(seconds)
    show(lines)
    print(f"\n{milliseconds:.2f} ms an edit over {len(seconds):,} gold pairs")
    record = {"ms_per_edit": round(milliseconds, 3), "lines": [asdict(line) for line in lines], "classes": classes}
    RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


# -- gold errors ----------------------------------------------------------------------------------------------------


def gold_pairs() -> dict[str, dict[str, list[tuple[str, str]]]]:
    """Data -> type of error (MEDEC) or kind of term (sample) -> pairs (correct, incorrect) that the VCF accepts."""
    found: dict[str, dict[str, list[tuple[str, str]]]] = {}
    folders = (os.environ.get("MEDEC_DIR"), ROOT.parent / "shared" / "medec")
    for name, file in MEDEC.items():
        path = next((Path(folder) / file for folder in folders if folder and (Path(folder) / file).is_file()), None)
        if path is None:
            print(f"{name}: no {file} in $MEDEC_DIR or ../shared/medec, so it is left out")
            continue
        found[name] = accepted_pairs((note.error_type or "none given", note) for note in read_notes(path).notes)
    kinds = {fact.fact_id: fact.pool.kind for fact in load_facts().facts}
    sample = [note for split in ("train", "validation", "test") for note in read_notes(sample_path(split)).notes]
    return found | {"sample": accepted_pairs((kinds[note.fact_id or ""], note) for note in sample)}


def accepted_pairs(notes: Iterable[tuple[str, Note]]) -> dict[str, list[tuple[str, str]]]:
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for group, note in notes:
        if note.correct_note and note.incorrect_note and apply_vcf(note.correct_note, note.incorrect_note).passed:
            groups[group].append((note.correct_note, note.incorrect_note))
    return groups


def timed(pair: tuple[str, str], seconds: list[float]) -> Audit:
    start = time.process_time()
    found = audit(*pair)
    seconds.append(time.process_time() - start)
    return found


def gold_lines(name: str, group: str, audits: Sequence[Audit]) -> list[Line]:
    neutral = [found.edit_class is EditClass.NEUTRAL for found in audits]
    return [
        line(name, group, "accepted in error mode", [found.objection("error") is None for found in audits]),
        line(name, group, "mistaken for neutral", neutral),
    ]


# -- neutral pairs --------------------------------------------------------------------------------------------------


def neutral_lines() -> list[Line]:
    pairs = sorted({frozenset((sub.old, sub.new)) for sub in load_substitutions()}, key=sorted)
    with_table, without = [], []
    for pair in pairs:
        old, new = sorted(pair)
        with_table.append(audit(old, new).edit_class)
        without.append(audit(old, new, rules_of(known for known in neutral_pairs() if set(known) != pair)).edit_class)
    return [
        line("neutral pairs", group, measure, [edit_class in wanted for edit_class in found])
        for group, found in (("as they are", with_table), ("each left out", without))
        for measure, wanted in (
            ("neutral", {EditClass.NEUTRAL}),
            ("unknown", {EditClass.UNKNOWN}),
            ("false alarm: a class", set(EditClass) - {EditClass.NEUTRAL, EditClass.UNKNOWN}),
        )
    ]


# -- edits of real games --------------------------------------------------------------------------------------------


def labelled_lines() -> list[Line]:
    rows = [json.loads(row) for row in LABELLED.read_text(encoding="utf-8").splitlines()]
    parts = {name: [row for row in rows if row["set"] == name] for name in ("development", "held-out")}
    return [
        one
        for name, part in [*parts.items(), ("both", rows)]
        for mode in MODES
        for one in mode_lines(f"labelled, {name}", mode, [row for row in part if row["mode"] == mode])
    ] + class_lines(rows)


def mode_lines(name: str, mode: Mode, rows: Sequence[Mapping[str, Any]]) -> list[Line]:
    """An edit is honest where its label by mode is right: no longer true in error mode, still true in benign mode."""
    judged = [
        (row["still_true"] is (mode == "benign"), audit(row["original"], row["modified"]).objection(mode) is None)
        for row in rows
    ]
    return [
        line(name, mode, "label noise, off", [not honest for honest, _ in judged]),
        line(name, mode, "label noise, reject", [not honest for honest, accepted in judged if accepted]),
        line(name, mode, "recall of honest edits", [accepted for honest, accepted in judged if honest]),
        line(name, mode, "accepted", [accepted for _, accepted in judged]),
    ]


def class_lines(rows: Sequence[Mapping[str, Any]]) -> list[Line]:
    """How the audit finds the edits that change no meaning, and the class of those that change something named."""
    found = [(row, audit(row["original"], row["modified"]).edit_class) for row in rows]
    name, group = "labelled, both", "all"
    neutral = [(not row["changes_meaning"], edit_class is EditClass.NEUTRAL) for row, edit_class in found]
    known = [(row, edit_class) for row, edit_class in found if row["class"] not in ("neutral", "unknown")]
    return [
        line(name, group, "neutral: precision", [really for really, called in neutral if called]),
        line(name, group, "neutral: recall", [called for really, called in neutral if really]),
        line(name, group, "the named class", [row["class"] == edit_class for row, edit_class in known]),
    ]


def episode_lines(path: Path) -> list[Line]:
    facts = {fact.fact_id: fact for fact in load_facts().facts}
    rows = [json.loads(row) for row in path.read_text(encoding="utf-8").splitlines()]
    played = [row for row in rows if row["modified"] and row.get("fact_id") in facts]
    lines = []
    for mode in MODES:
        mine = [row for row in played if row["mode"] == mode]
        truths = [check_edit(row["original"], row["modified"], facts[row["fact_id"]]).still_true for row in mine]
        accepted = [audit(row["original"], row["modified"]).objection(mode) is None for row in mine]
        dishonest = "true" if mode == "error" else "false"
        told = zip(truths, accepted, strict=True)
        decided = [(truth == dishonest, kept) for truth, kept in told if truth != "unknown"]
        name = f"oracle, {path.parent.name}/{path.name}"
        lines += [
            line(name, mode, "label noise, off", [noisy for noisy, _ in decided]),
            line(name, mode, "label noise, reject", [noisy for noisy, kept in decided if kept]),
            line(name, mode, "undecided", [truth == "unknown" for truth in truths]),
            line(name, mode, "accepted", accepted),
        ]
    return lines


# -- the table ------------------------------------------------------------------------------------------------------


def line(data: str, group: str, measure: str, hits: Sequence[bool]) -> Line:
    found: Estimate = share_estimate(hits)
    return Line(data, group, measure, found.value, found.low, found.high, found.n)


def show(lines: Sequence[Line]) -> None:
    print("| data | group | measure | share (95 % interval) | n |\n| --- | --- | --- | --- | --- |")
    for one in lines:
        share = "none" if one.share is None else f"{one.share:.1%} ({one.low:.1%} to {one.high:.1%})"
        print(f"| {one.data} | {one.group} | {one.measure} | {share} | {one.n} |")


if __name__ == "__main__":
    main()
