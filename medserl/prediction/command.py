"""`medserl predict NOTES`: a model's findings in notes that nobody has labelled, as a file, a table and a page."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from medserl.config import Settings
from medserl.data.seen import seen_in
from medserl.data.sources import STANDARD_INPUT, load_unlabelled
from medserl.display.console import say
from medserl.display.progress import counting
from medserl.errors import ConfigError, DataError, listed
from medserl.evaluation.thresholds import weights_key
from medserl.game.note import Note
from medserl.prediction.assessor import Assessor, Finding
from medserl.prediction.claim import claim_output, write_prediction_record
from medserl.prediction.findings import JudgedNote, by_suspicion, write_findings
from medserl.prediction.options import PredictOptions
from medserl.prediction.shown import show

log = logging.getLogger("medserl")


def predict_notes(settings: Settings, notes: str, options: PredictOptions) -> None:
    """Judge the notes, write what was found, and show it.

    Started again with the same output, it goes on: what was answered is not asked again.

    Raises:
        MedSeRLError: something that cannot be read, loaded or written, or an output that holds something else.
    """
    target = options.file(notes)
    if notes != STANDARD_INPUT and Path(notes).exists() and target.exists() and target.samefile(notes):
        raise ConfigError(f"--output {target}: these are the notes themselves; name another file")
    loaded = load_unlabelled(notes, settings)
    keep = not target.exists() or target.is_file()  # beside a device or a pipe nothing can be kept
    answers = target.with_name(f"{target.name}.answers") if keep else None
    if options.run:
        assessor = Assessor.from_run(options.run, options.threshold, settings=settings, answers=answers)
    else:
        assessor = Assessor(settings, options.threshold, answers=answers)
    with assessor:
        record = claim_output(target, answers, loaded, weights_key(assessor.settings)) if answers else {}
        assessor.load()
        if answers:
            write_prediction_record(answers, record)
        tell_seen(assessor, loaded.notes)
        judged = _judge(assessor, loaded.notes)
        say(f"threshold: {assessor.threshold.describe()}")
    if options.sort == "suspicion":
        judged = by_suspicion(judged)
    write_findings(target, judged)
    show(judged, len(loaded.skipped))
    say(f"predictions: {target}")
    if options.html:
        from medserl.prediction.page import write_page

        say(f"page: {write_page(options.html, by_suspicion(judged), loaded.source, assessor.threshold)}")


def tell_seen(assessor: Assessor, notes: Sequence[Note]) -> None:
    """Says which of the notes the run learnt from: it took them for correct, or saw what was wrong in them."""
    try:
        data = assessor.run_data
    except DataError as error:
        log.warning("%s: so nothing tells whether the run learnt from the notes that it judges", error)
        return
    seen = seen_in(notes, data.learnt.notes).ids if data else ()
    if seen:
        log.warning(
            "%d of the %d notes are among those that the run learnt from (%s): it may pass an error that it took for "
            "correct, so keep notes to judge apart from notes to train on",
            len(seen), len(notes), listed(seen),
        )  # fmt: skip


def _judge(assessor: Assessor, notes: Sequence[Note]) -> list[JudgedNote]:
    threshold = assessor.threshold.value
    found: list[Finding] = []
    try:
        with counting(f"judging {len(notes)} notes", len(notes)) as count:
            for batch in assessor.batches(notes):
                found += batch
                (count.skip if assessor.remembered else count.advance)(len(batch))
    except KeyboardInterrupt:
        log.warning("stopped after %d of %d notes: the same command goes on there", len(found), len(notes))
        raise
    return [JudgedNote(note, each, threshold) for note, each in zip(notes, found, strict=True)]
