"""MEDIQA-CORR 2024's scores (Ben Abacha et al., ClinicalNLP 2024), by the definitions of the shared task's own script.

- Flag and sentence accuracy over all reference texts. A text without a row is wrong in both. The sentence id of a text
  without an error is -1, and ids are compared whatever the flag says. Where all texts have an error there is no flag
  accuracy, and where none has one no score at all: always saying the same would be right throughout.
- The reference correction of a text without an error is NA; a flag of 0 makes a row's correction NA.
- A text's score in a metric of corrections is the metric where neither side is NA, 1 where both are, 0 where one is or
  where there is no row. The *composite* is the mean of that over all reference texts; the *subset* score is the mean
  of the metric over the texts where neither is NA.
- ROUGE-1, -2 and -L are F scores of the `rouge` package. Its F adds 1e-8 to the denominator, so that equal sentences
  score 0.999999995, it counts each word once, and it cuts at every full stop, inside numbers too.
- BERTScore and BLEURT are clipped to 0..1. AggregateScore is a text's mean of ROUGE-1, BERTScore and BLEURT.

A correction of full stops alone, on which the task's script breaks off, scores 0 in ROUGE.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from medserl.errors import DataError
from medserl.evaluation.predictions import LabelledText, check_unique
from medserl.evaluation.statistics import NOTHING, Estimate, mean_estimate, share_estimate
from medserl.evaluation.submission import NO_SENTENCE, NOT_APPLICABLE, SubmissionRow

ROUGE = {"ROUGE-1": "rouge-1", "ROUGE-2": "rouge-2", "ROUGE-L": "rouge-l"}
BERTSCORE, BLEURT, AGGREGATE = "BERTScore", "BLEURT", "AggregateScore"
CORRECTION_METRICS = (*ROUGE, BERTSCORE, BLEURT, AGGREGATE)
FLAG_ACCURACY, SENTENCE_ACCURACY = "flag accuracy", "sentence accuracy"

Scorer = Callable[[Sequence[str], Sequence[str]], Sequence[float]]
"""From predictions and as many references to one score each."""


@dataclass(frozen=True)
class OfficialScores:
    """The task's scores, each with a 95 % interval; subset and composite are by metric's name.

    `n_predicted` texts have a row, `n_both_corrected` a correction on both sides, `n_both_na` on neither. `left_out`
    says why a score is not there. `subset` is `NOTHING` where no text has a correction on both sides.
    """

    flag_accuracy: Estimate | None
    sentence_accuracy: Estimate | None
    subset: Mapping[str, Estimate]
    composite: Mapping[str, Estimate]
    n_texts: int
    n_predicted: int
    n_both_corrected: int
    n_both_na: int
    left_out: Mapping[str, str]

    def figures(self) -> dict[str, Estimate]:
        """Every score that there is, by name; of a metric `ROUGE-1` over the subset and `ROUGE-1 composite`."""
        accuracies = {FLAG_ACCURACY: self.flag_accuracy, SENTENCE_ACCURACY: self.sentence_accuracy}
        composites = {f"{name} composite": estimate for name, estimate in self.composite.items()}
        return {name: one for name, one in accuracies.items() if one is not None} | dict(self.subset) | composites


@dataclass(frozen=True)
class _Judged:
    """One reference text with its row, and the metrics of its correction where both sides have one."""

    text: LabelledText
    row: SubmissionRow | None
    scores: Mapping[str, float]

    @property
    def both_na(self) -> bool:
        return self.row is not None and self.row.correction == NOT_APPLICABLE == reference_correction(self.text)


def official_scores(
    texts: Sequence[LabelledText],
    rows: Sequence[SubmissionRow],
    scorers: Mapping[str, Scorer] | None = None,
    left_out: Mapping[str, str] | None = None,
) -> OfficialScores:
    """Score a submission as the shared task does.

    Args:
        texts: the reference texts as published (`labelled_texts(notes, published_only=True)`).
        rows: the last row on a text counts; rows on other texts are passed over.
        scorers: of BERTScore and BLEURT, as far as there are (see `medserl.evaluation.checkpoint_metrics`).
        left_out: scores not to be computed, and why (see `not_asked`).

    Raises:
        DataError: no reference texts, or two with the same id.
    """
    return official_scores_by_collection(texts, rows, scorers, left_out)["all"]


def official_scores_by_collection(
    texts: Sequence[LabelledText],
    rows: Sequence[SubmissionRow],
    scorers: Mapping[str, Scorer] | None = None,
    left_out: Mapping[str, str] | None = None,
) -> dict[str, OfficialScores]:
    """The scores of all texts together (`all`), and where there are several collections (`MS`, `UW`) of each apart."""
    left_out = left_out or {}
    scorers = {name: scorer for name, scorer in (scorers or {}).items() if name not in left_out}
    judged = _judge(texts, rows, scorers)
    scores = {"all": _summary(judged, scorers, left_out)}
    names = sorted({text.collection for text in texts})
    if len(names) > 1:
        for name in names:
            members = [one for one in judged if one.text.collection == name]
            scores[name] = _summary(members, scorers, left_out)
    return scores


def not_asked(subtasks: str) -> dict[str, str]:
    """The scores that answers to these subtasks alone (`A`, `AB`, `ABC`) cannot have, and why."""
    sentence = {} if "B" in subtasks else {SENTENCE_ACCURACY: "subtask B was not asked"}
    return sentence if "C" in subtasks else sentence | dict.fromkeys(CORRECTION_METRICS, "subtask C was not asked")


def scored_texts(texts: Sequence[LabelledText]) -> list[LabelledText]:
    """The texts that the shared task scores: the published ones.

    Where these are of one class, as in a file of pairs, both twins: of texts that all have an error none is flagged
    wrongly by always saying so.
    """
    published = [text for text in texts if text.is_published]
    return published if len({text.is_error for text in published}) == 2 else list(texts)


def reference_correction(text: LabelledText) -> str:
    return text.corrected_sentence if text.is_error and text.corrected_sentence is not None else NOT_APPLICABLE


def _judge(
    texts: Sequence[LabelledText], rows: Sequence[SubmissionRow], scorers: Mapping[str, Scorer]
) -> list[_Judged]:
    if not texts:
        raise DataError("no reference texts to score against")
    check_unique([text.text_id for text in texts], "text")
    by_id = {row.text_id: row for row in rows}
    compared = {
        text.text_id: (by_id[text.text_id].correction, reference_correction(text))
        for text in texts
        if text.text_id in by_id and NOT_APPLICABLE not in (by_id[text.text_id].correction, reference_correction(text))
    }
    scores = _score(list(compared.values()), scorers)
    by_text = dict(zip(compared, scores, strict=True))
    return [_Judged(text, by_id.get(text.text_id), by_text.get(text.text_id, {})) for text in texts]


def _score(pairs: Sequence[tuple[str, str]], scorers: Mapping[str, Scorer]) -> list[dict[str, float]]:
    """Every metric of every pair of prediction and reference."""
    scores = [rouge_scores(prediction, reference) for prediction, reference in pairs]
    if not pairs:
        return scores
    for name, scorer in scorers.items():
        values = scorer([prediction for prediction, _ in pairs], [reference for _, reference in pairs])
        for one, value in zip(scores, values, strict=True):
            if not np.isfinite(value):
                raise DataError(f"{name} gave {value}, which is no score; is its checkpoint complete?")
            one[name] = min(1.0, max(0.0, float(value)))
    if {BERTSCORE, BLEURT} <= scorers.keys():
        for one in scores:
            one[AGGREGATE] = (one["ROUGE-1"] + one[BERTSCORE] + one[BLEURT]) / 3
    return scores


def rouge_scores(prediction: str, reference: str) -> dict[str, float]:
    """ROUGE-1, -2 and -L F of the `rouge` package; 0 where either text holds nothing but full stops."""
    from rouge import Rouge

    if not prediction.strip(".") or not reference.strip("."):
        return dict.fromkeys(ROUGE, 0.0)
    with _deep_recursion(len(prediction) + len(reference)):  # in characters: never fewer than words
        found = Rouge().get_scores(prediction, reference)[0]
    return {name: found[key]["f"] for name, key in ROUGE.items()}


@contextmanager
def _deep_recursion(words: int) -> Iterator[None]:
    """The package's ROUGE-L recurses once a word: a rambling correction must not end the evaluation."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + words)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def _summary(judged: Sequence[_Judged], scorers: Mapping[str, Scorer], left_out: Mapping[str, str]) -> OfficialScores:
    ids = [one.text.text_id for one in judged]
    reasons = _reasons(judged, scorers, left_out)
    metrics = [name for name in CORRECTION_METRICS if name not in reasons]
    both = [one for one in judged if one.scores]
    return OfficialScores(
        flag_accuracy=None
        if FLAG_ACCURACY in reasons
        else share_estimate([one.row is not None and one.row.flag == _flag(one.text) for one in judged]),
        sentence_accuracy=None
        if SENTENCE_ACCURACY in reasons
        else share_estimate([one.row is not None and one.row.sentence_id == _sentence(one.text) for one in judged]),
        subset={
            name: mean_estimate([one.scores[name] for one in both], [one.text.text_id for one in both])
            if both
            else NOTHING
            for name in metrics
        },
        composite={
            name: mean_estimate([one.scores.get(name, float(one.both_na)) for one in judged], ids) for name in metrics
        },
        n_texts=len(judged),
        n_predicted=sum(one.row is not None for one in judged),
        n_both_corrected=len(both),
        n_both_na=sum(one.both_na for one in judged),
        left_out=reasons,
    )


def _reasons(judged: Sequence[_Judged], scorers: Mapping[str, Scorer], left_out: Mapping[str, str]) -> dict[str, str]:
    """Why a score cannot be computed, by its name."""
    reasons = dict(left_out)
    errors = [one.text for one in judged if one.text.is_error]
    if len(errors) == len(judged):
        reasons.setdefault(FLAG_ACCURACY, f"all {len(judged)} texts have an error: always INCORRECT would be right")
    if not errors:
        why = f"none of the {len(judged)} texts has an error: always CORRECT would be right"
        return dict.fromkeys((FLAG_ACCURACY, SENTENCE_ACCURACY, *CORRECTION_METRICS), why) | reasons
    if any(text.error_sentence_id is None for text in errors):
        reasons.setdefault(SENTENCE_ACCURACY, "the reference does not number the sentence with the error")
    if errors and all(text.corrected_sentence is None for text in errors):
        return dict.fromkeys(CORRECTION_METRICS, "the reference holds no corrected sentences") | reasons
    for name in (BERTSCORE, BLEURT):
        if name not in scorers:
            reasons.setdefault(name, "no local checkpoint was given")
    missing = [name for name in (BERTSCORE, BLEURT) if name in reasons]
    if missing:
        reasons.setdefault(AGGREGATE, f"it needs {' and '.join(missing)}")
    return reasons


def _flag(text: LabelledText) -> str:
    return "1" if text.is_error else "0"


def _sentence(text: LabelledText) -> str:
    return NO_SENTENCE if not text.is_error or text.error_sentence_id is None else str(text.error_sentence_id)
