"""Which notes a run was judged on, in words: whose they are, and whether it had learnt from them."""

from __future__ import annotations

from pathlib import Path

from medserl.data.sample_names import is_sample
from medserl.reports.run_files import RunFiles
from medserl.runs.records import Record

INVENTED = "sample notes: invented patients"


def evaluated_on(run: RunFiles) -> str:
    """`200 held-out texts of test.jsonl`, `200 texts of test.jsonl (3 of their 100 notes are ...)`."""
    texts = run.evaluation.get("texts", {})
    file = run.evaluation.get("files", {}).get("judged", {}).get("name", "")
    n = int(texts.get("n") or 0)
    notes = texts.get("notes")
    held_out = "held-out " if isinstance(notes, dict) and not notes["in_both"] else ""
    words = (f"{n:,} " if n else "the ") + f"{held_out}texts" + (f" of {file}" if file else " of the evaluation")
    if is_evaluated_on_sample(run):
        words += f" ({INVENTED})"
    if isinstance(notes, dict) and notes["in_both"]:
        words += f" ({notes['in_both']:,} of their {notes['judged']:,} notes are among the training notes)"
    return words


def evaluation_overlap(run: RunFiles) -> str:
    """What an evaluation's figures are worth as held-out ones, in a sentence of its own."""
    notes = run.evaluation.get("texts", {}).get("notes")
    if not isinstance(notes, dict):
        return "Whether the judged notes are among the training notes was not recorded; medserl evaluate records it."
    return _overlap(notes)


def validated_on(run: RunFiles) -> str:
    """`the validation notes (split of notes.jsonl (12 notes))`, and how many of them were trained on, if any."""
    words = f"the validation notes ({_validation_source(run)}"
    notes = _validation_notes(run)
    if notes and notes["in_both"]:
        words += f", of which {notes['in_both']:,} are among the training notes"
    return f"{words})"


def validation_in_words(run: RunFiles) -> str:
    """What the validation notes are, for the curves made on them."""
    notes = _validation_notes(run)
    return f"The validation notes: {_validation_source(run)}." + (f" {_overlap(notes)}" if notes else "")


def _validation_source(run: RunFiles) -> str:
    recorded = run.provenance.get("notes", {}).get("validation")
    source = str(run.settings.get("validation_data", "auto"))
    if is_validated_on_sample(run):
        return INVENTED
    if isinstance(recorded, str):
        return recorded
    if source == "auto":
        return "held out of the training notes"
    return source if source == "none" else Path(source).name


def _validation_notes(run: RunFiles) -> Record | None:
    notes = run.provenance.get("notes", {}).get("notes")
    return notes if isinstance(notes, dict) else None


def _overlap(notes: Record) -> str:
    if notes["in_both"]:
        return (
            f"Not held out: {notes['in_both']:,} of the {notes['judged']:,} notes are among the "
            f"{notes['training']:,} training notes."
        )
    return f"Held out: none of the {notes['judged']:,} notes is among the {notes['training']:,} training notes."


def is_validated_on_sample(run: RunFiles) -> bool:
    source = str(run.settings.get("validation_data", "auto"))
    return is_sample(source) or (source == "auto" and run.uses_sample)


def is_evaluated_on_sample(run: RunFiles) -> bool:
    return bool(run.evaluation.get("texts", {}).get("sample"))


def sample_label(run: RunFiles) -> str:
    """The badge of a page on invented patients, and what they were used for; empty where they were not."""
    validated = is_validated_on_sample(run) and any("eval_accuracy" in row for row in run.rows)
    uses = {"trained": run.uses_sample, "judged": validated or is_evaluated_on_sample(run)}
    told = " and ".join(use for use, used in uses.items() if used)
    if not told:
        return ""
    return f"Invented patients, for developing software, not for clinical use ({told} on the sample notes)"
