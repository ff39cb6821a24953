"""What a reader of an evaluation's tables must know beside the figures: one line each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from medserl.errors import listed
from medserl.evaluation.inputs import Sources, Texts
from medserl.evaluation.metrics import DetectionMetrics
from medserl.evaluation.predictions import LabelledText, NoVerdict, Prediction
from medserl.evaluation.systems import TFIDF
from medserl.evaluation.table import escape_markdown

WHY_NO_VERDICT: Mapping[NoVerdict | None, str] = {
    "unreadable": "no verdict could be read",
    "truncated": "the answer was cut off",
    "too_long": "the note is too long for the model",
    None: "none was given",
}


def remarks(sources: Sources, texts: Texts, results: Mapping[str, DetectionMetrics]) -> list[str]:
    """As Markdown: names are escaped."""
    lines = [
        "always-incorrect, always-correct and coin are what guessing gets; pairs by coin: what a coin would get of the "
        "pairs that gives each verdict as often as the system.",
        *_of_one_class(results),
        *_sampled(results),
        escape_markdown(texts.seen.sentence(sources.train.file.name)),
        _words(sources, texts, results),
    ]
    for name, found in results.items():
        lines += [f"{escape_markdown(name)}: {line}" for line in (*_not_predicted(found), *_without_verdict(found))]
    if sources.judged.loaded.skipped:
        lines.append(escape_markdown(f"{sources.judged.file.name}: {sources.judged.loaded.skipped_summary()}."))
    return lines


def _of_one_class(results: Mapping[str, DetectionMetrics]) -> list[str]:
    found = max(results.values(), key=lambda each: each.n_texts)
    if not found.of_one_class:
        return []
    which, always = ("have an error", "INCORRECT") if found.n_errors else ("are correct", "CORRECT")
    return [f"all {found.n_texts} texts {which}: accuracy and F1 are left out, because always {always} gets 100 %."]


def _sampled(results: Mapping[str, DetectionMetrics]) -> list[str]:
    most = max(found.n_texts for found in results.values())
    return [
        f"{escape_markdown(name)} was asked about a sample of {found.n_texts} of the {most} texts, drawn by the seed; "
        "another system is compared with it on these alone."
        for name, found in results.items()
        if found.n_texts < most
    ]


def _words(sources: Sources, texts: Texts, results: Mapping[str, DetectionMetrics]) -> str:
    file = escape_markdown(sources.train.file.name)
    if TFIDF in results:
        return f"{TFIDF} is fitted on the {len(texts.train)} texts of {file}."
    why = "judged notes are among them" if texts.seen.ids else "these are not of both classes"
    return f"{TFIDF} is left out: it would be fitted on the texts of {file}, and {why}."


def _not_predicted(found: DetectionMetrics) -> list[str]:
    if not found.missing:
        return []
    ids = [one.text_id for one in found.outcomes if not one.predicted]
    named = escape_markdown(listed(ids))
    return [f"{found.missing} of {found.n_texts} texts are not predicted and count as wrong ({named})."]


def _without_verdict(found: DetectionMetrics) -> list[str]:
    silent = Counter(one.no_verdict for one in found.outcomes if one.predicted and one.verdict is None)
    if not silent:
        return []
    why = ", ".join(f"{count} because {WHY_NO_VERDICT[reason]}" for reason, count in silent.most_common())
    return [f"no verdict on {silent.total()} of {found.n_texts} texts, which counts as wrong: {why}."]


def no_verdict_counts(texts: Sequence[LabelledText], predictions: Sequence[Prediction]) -> dict[str, int]:
    """How many texts have no verdict, by the reason; `missing` where nothing was said of a text."""
    said = {one.text_id: one for one in predictions}
    silent = Counter(
        "missing" if text.text_id not in said else said[text.text_id].no_verdict or "unreadable"
        for text in texts
        if text.text_id not in said or said[text.text_id].verdict is None
    )
    return dict(silent)
