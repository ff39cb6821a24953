"""MEDIQA-CORR 2024's scores against values worked by hand, to 1e-9, quirks included."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge import Rouge

from medserl.data.readers import read_notes
from medserl.errors import DataError
from medserl.evaluation.official import (
    AGGREGATE,
    BERTSCORE,
    BLEURT,
    CORRECTION_METRICS,
    ROUGE,
    not_asked,
    official_scores,
    official_scores_by_collection,
    rouge_scores,
)
from medserl.evaluation.predictions import LabelledText, Prediction, labelled_texts
from medserl.evaluation.statistics import NOTHING
from medserl.evaluation.submission import SubmissionRow, read_submission, submission_rows

EXACT = 1e-9


def f(precision: float, recall: float) -> float:
    """The rouge package's F, with its 1e-8."""
    return 2 * precision * recall / (precision + recall + 1e-8)


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        # 3 of 4 words, 1 of 3 bigrams; the longest common subsequence is Diagnosis is rupture
        (
            "Diagnosis is pulmonary rupture.",
            "Diagnosis is bronchial rupture.",
            (f(3 / 4, 3 / 4), f(1 / 3, 1 / 3), f(3 / 4, 3 / 4)),
        ),
        # equal sentences do not score 1
        ("It is flu.", "It is flu.", (2 / (2 + 1e-8),) * 3),
        # a word counts once: {a, b} against {a, c}; bigrams {aa, ab} against {aa, ac}
        ("a a b", "a a c", (f(1 / 2, 1 / 2), f(1 / 2, 1 / 2), f(1 / 2, 1 / 2))),
        # capitals and punctuation other than full stops belong to the word
        ("flu, likely", "Flu likely", (f(1 / 2, 1 / 2), 0.0, f(1 / 2, 1 / 2))),
        # a full stop cuts inside a number: {38, 3, C} against {38, 9, C}
        ("38.3 C", "38.9 C", (f(2 / 3, 2 / 3), 0.0, f(2 / 3, 2 / 3))),
        # what stands after the last full stop is a word, be it empty: 3 of 3 and 3 of 4
        (
            "Hemodialysis is required.",
            "Hemodialysis is required. \n",
            (f(3 / 3, 3 / 4), f(2 / 2, 2 / 3), f(3 / 3, 3 / 4)),
        ),
        # order counts in ROUGE-2 and -L alone
        ("flu is it", "it is flu", (2 / (2 + 1e-8), 0.0, f(1 / 3, 1 / 3))),
        ("one", "one", (2 / (2 + 1e-8), 0.0, 2 / (2 + 1e-8))),
        ("...", "It is flu.", (0.0, 0.0, 0.0)),
    ],
)
def test_rouge_by_hand(prediction: str, reference: str, expected: tuple[float, float, float]) -> None:
    assert list(rouge_scores(prediction, reference).values()) == pytest.approx(list(expected), abs=EXACT)


def test_a_rambling_correction_is_scored_too() -> None:
    long = " ".join(f"word{i}" for i in range(1500))
    assert rouge_scores(long, "word7 is it")["ROUGE-1"] == pytest.approx(f(1 / 1500, 1 / 3), abs=EXACT)


def _error(text_id: str, sentence: int | None, corrected: str | None) -> LabelledText:
    return LabelledText(text_id, "text", True, error_sentence_id=sentence, corrected_sentence=corrected)


def _fine(text_id: str) -> LabelledText:
    return LabelledText(text_id, "text", False)


REFERENCE = [
    _error("ms-0", 4, "Diagnosis is bronchial rupture."),
    _error("ms-1", 2, "It is flu."),
    _error("ms-2", 7, "Give aspirin."),
    _error("ms-3", 1, "Give heparin."),
    _error("ms-4", 0, "Give insulin."),
    _fine("uw-5"),
    _fine("uw-6"),
    _fine("uw-7"),
    _fine("uw-8"),
    _fine("uw-9"),
]
ROWS = [
    SubmissionRow("ms-0", "1", "4", "Diagnosis is pulmonary rupture."),  # all right but a word
    SubmissionRow("ms-1", "0", "2", "NA"),  # not flagged, yet the sentence counts; one side NA
    SubmissionRow("ms-2", "1", "07", "Give aspirin."),  # 07 is not 7
    SubmissionRow("ms-3", "1", "1", "NA"),  # flagged without a correction
    # ms-4 is missing
    SubmissionRow("uw-5", "0", "-1", "NA"),  # all right
    SubmissionRow("uw-6", "1", "-1", "NA"),  # a false alarm, yet sentence and NA count
    SubmissionRow("uw-7", "1", "3", "It is gout."),  # a false alarm with a correction
    SubmissionRow("uw-8", "01", "-1", "NA"),  # 01 is neither 1 nor 0
    SubmissionRow("uw-9", "0", "5", "NA"),  # not flagged, a sentence named
    SubmissionRow("xx-9", "1", "5", "unknown text"),  # passed over
]
FLAGS_RIGHT = {"ms-0", "ms-2", "ms-3", "uw-5", "uw-9"}
SENTENCES_RIGHT = {"ms-0", "ms-1", "ms-3", "uw-5", "uw-6", "uw-8"}
BOTH_NA = {"uw-5", "uw-6", "uw-8", "uw-9"}
R1 = {"ms-0": f(3 / 4, 3 / 4), "ms-2": f(1, 1)}
R2 = {"ms-0": f(1 / 3, 1 / 3), "ms-2": f(1, 1)}


def test_scores_of_a_submission_with_every_quirk() -> None:
    found = official_scores(REFERENCE, ROWS)
    assert found.flag_accuracy.value == pytest.approx(len(FLAGS_RIGHT) / 10, abs=EXACT)
    assert found.sentence_accuracy.value == pytest.approx(len(SENTENCES_RIGHT) / 10, abs=EXACT)
    assert (found.n_texts, found.n_predicted, found.n_both_corrected, found.n_both_na) == (10, 9, 2, len(BOTH_NA))
    for name, scores in (("ROUGE-1", R1), ("ROUGE-2", R2), ("ROUGE-L", R1)):
        assert found.subset[name].value == pytest.approx(sum(scores.values()) / 2, abs=EXACT)
        assert found.composite[name].value == pytest.approx((sum(scores.values()) + len(BOTH_NA)) / 10, abs=EXACT)
    for estimate in (found.flag_accuracy, found.sentence_accuracy, *found.composite.values()):
        assert estimate.low < estimate.value < estimate.high


def test_model_based_scores_are_left_out_and_said_to_be() -> None:
    found = official_scores(REFERENCE, ROWS, left_out={BLEURT: "the folder is empty"})
    assert set(found.subset) == set(found.composite) == {"ROUGE-1", "ROUGE-2", "ROUGE-L"}
    assert found.left_out == {
        BERTSCORE: "no local checkpoint was given",
        BLEURT: "the folder is empty",
        AGGREGATE: "it needs BERTScore and BLEURT",
    }


def test_model_based_scores_are_clipped_and_aggregated() -> None:
    asked = []

    def bertscore(predictions: Sequence[str], references: Sequence[str]) -> list[float]:
        asked.append((list(predictions), list(references)))
        return [-0.25, 0.5]

    found = official_scores(REFERENCE, ROWS, {BERTSCORE: bertscore, BLEURT: lambda p, r: [0.7, 1.125]})
    assert asked == [
        (
            ["Diagnosis is pulmonary rupture.", "Give aspirin."],
            ["Diagnosis is bronchial rupture.", "Give aspirin."],
        )
    ]
    assert found.left_out == {}
    both = {BERTSCORE: [0.0, 0.5], BLEURT: [0.7, 1.0]}
    both[AGGREGATE] = [(R1["ms-0"] + 0.0 + 0.7) / 3, (R1["ms-2"] + 0.5 + 1.0) / 3]
    for name, scores in both.items():
        assert found.subset[name].value == pytest.approx(sum(scores) / 2, abs=EXACT)
        assert found.composite[name].value == pytest.approx((sum(scores) + len(BOTH_NA)) / 10, abs=EXACT)


def test_one_model_alone_gives_no_aggregate() -> None:
    found = official_scores(REFERENCE, ROWS, {BLEURT: lambda p, r: [0.5] * len(p)})
    assert found.left_out == {BERTSCORE: "no local checkpoint was given", AGGREGATE: "it needs BERTScore"}


def test_a_score_that_is_no_number_stops() -> None:
    with pytest.raises(DataError, match="BLEURT gave nan"):
        official_scores(REFERENCE, ROWS, {BLEURT: lambda p, r: [float("nan")] * len(p)})


def test_collections_apart_and_together() -> None:
    found = official_scores_by_collection(REFERENCE, ROWS)
    assert list(found) == ["all", "MS", "UW"]
    assert found["all"] == official_scores(REFERENCE, ROWS)
    assert found["MS"] == official_scores(REFERENCE[:5], ROWS)
    assert found["UW"] == official_scores(REFERENCE[5:], ROWS)
    # each is of one class here, by which always saying the same would be right
    assert found["MS"].flag_accuracy is found["UW"].flag_accuracy is None
    assert found["MS"].left_out["flag accuracy"] == "all 5 texts have an error: always INCORRECT would be right"
    assert found["MS"].sentence_accuracy.value == 3 / 5
    assert "always CORRECT would be right" in found["UW"].left_out["sentence accuracy"]
    assert found["UW"].figures() == {}
    assert found["all"].flag_accuracy.value == 1 / 2
    assert list(official_scores_by_collection(REFERENCE[:5], ROWS)) == ["all"]


def test_nothing_predicted_scores_nothing() -> None:
    found = official_scores(REFERENCE, [])
    assert (found.flag_accuracy.value, found.sentence_accuracy.value) == (0.0, 0.0)
    assert all(estimate.value == 0.0 for estimate in found.composite.values())
    assert all(estimate == NOTHING for estimate in found.subset.values())


def test_all_called_correct_scores_the_share_of_correct_texts() -> None:
    rows = submission_rows([Prediction(text.text_id, "CORRECT") for text in REFERENCE])
    found = official_scores(REFERENCE, rows)
    assert (found.flag_accuracy.value, found.sentence_accuracy.value) == (0.5, 0.5)
    assert all(estimate.value == 0.5 for estimate in found.composite.values())


def test_a_reference_without_numbers_or_corrections_leaves_scores_out() -> None:
    found = official_scores([_error("a", None, None), _fine("b")], [SubmissionRow("b", "0", "-1", "NA")])
    assert (found.flag_accuracy.value, found.sentence_accuracy) == (0.5, None)
    assert found.subset == found.composite == {}
    assert set(found.left_out) == {"sentence accuracy", *CORRECTION_METRICS}


def test_an_error_without_correction_is_na_as_in_the_task() -> None:
    texts = [_error("a", 1, None), _error("b", 1, "It is flu.")]
    found = official_scores(texts, [SubmissionRow("a", "1", "1", "NA")])
    assert found.composite["ROUGE-1"].value == pytest.approx(1 / 2, abs=EXACT)


def test_references_must_be_there_and_unique() -> None:
    with pytest.raises(DataError, match="no reference texts"):
        official_scores([], ROWS)
    with pytest.raises(DataError, match="'uw-5' occurs twice"):
        official_scores([_fine("uw-5")] * 2, ROWS)


def test_medec_validation_against_itself(medec_dir: Path) -> None:
    notes = read_notes(medec_dir / "MEDEC-MS-ValidationSet-with-GroundTruth-and-ErrorType.csv").notes
    texts = labelled_texts(notes, published_only=True)
    perfect = [
        Prediction(t.text_id, "INCORRECT" if t.is_error else "CORRECT", t.error_sentence_id, t.corrected_sentence)
        for t in texts
    ]
    found = official_scores(texts, submission_rows(perfect))
    assert (found.flag_accuracy.value, found.sentence_accuracy.value) == (1.0, 1.0)
    assert (found.n_both_corrected, found.n_both_na) == (319, 255)
    assert 0.99 < found.composite["ROUGE-1"].value < 1 - 1e-9  # the 1e-8, and spaces after full stops


def test_what_was_not_asked_is_left_out_and_its_scorers_are_not_called() -> None:
    def scorer(predictions: Sequence[str], references: Sequence[str]) -> list[float]:
        raise AssertionError("not asked")

    flags = official_scores(REFERENCE, ROWS, {BERTSCORE: scorer, BLEURT: scorer}, not_asked("A"))
    assert set(flags.figures()) == {"flag accuracy"}
    assert flags.left_out == {"sentence accuracy": "subtask B was not asked"} | dict.fromkeys(
        CORRECTION_METRICS, "subtask C was not asked"
    )
    both = official_scores(REFERENCE, ROWS, {}, not_asked("AB"))
    assert list(both.figures()) == ["flag accuracy", "sentence accuracy"]
    assert not_asked("ABC") == {}


def test_figures_by_name() -> None:
    found = official_scores(REFERENCE, ROWS)
    assert list(found.figures()) == [
        *("flag accuracy", "sentence accuracy", "ROUGE-1", "ROUGE-2", "ROUGE-L"),
        *("ROUGE-1 composite", "ROUGE-2 composite", "ROUGE-L composite"),
    ]
    assert found.figures()["ROUGE-2 composite"] == found.composite["ROUGE-2"]


# -- the whole way from a file's lines, against the task's definitions written down again ------------------

SENTENCES = ["It is flu.", "Give aspirin.", "Give 38.3 mg of aspirin now", "NA", '"NA"', '"It is "flu".""', "it", "-"]
LINES = st.builds(
    "{} {} {} {}".format,
    st.sampled_from([text.text_id for text in REFERENCE] + ["ms-99"]),
    st.sampled_from(["0", "1", "1", "01", "2"]),
    st.sampled_from(["-1", "0", "1", "2", "04", "4", "7"]),
    st.sampled_from(SENTENCES),
)
MALFORMED = st.sampled_from(["", "   ", "ms-0", "ms-0 1 4", "ms-0 yes 4 NA", "ms-0  1 4 NA", "uw-5 0 -1.0 NA"])


def defined_scores(lines: Sequence[str]) -> dict[str, float]:
    """Flag and sentence accuracy and ROUGE composites by the definitions, with nothing of the code under test."""
    flags, numbers, corrections = {}, {}, {}
    for line in lines:
        if re.fullmatch(r"\S+\s[0-9]+\s-?[0-9]+\s.+", line.strip()):
            name, flag, number, *words = line.split()
            flags[name], numbers[name] = flag, number
            corrections[name] = "NA" if flag == "0" else " ".join(words).strip('"')
    totals = dict.fromkeys(("flag", "sentence", "rouge-1", "rouge-2", "rouge-l"), 0.0)
    for text in REFERENCE:
        name, correct = text.text_id, text.corrected_sentence or "NA"
        totals["flag"] += flags.get(name) == ("1" if text.is_error else "0")
        totals["sentence"] += numbers.get(name) == (str(text.error_sentence_id) if text.is_error else "-1")
        said = corrections.get(name)
        if said is None or (said == "NA") != (correct == "NA"):
            continue
        scores = None if said == "NA" else Rouge().get_scores(said, correct)[0]
        for key in ("rouge-1", "rouge-2", "rouge-l"):
            totals[key] += 1.0 if scores is None else scores[key]["f"]
    return {key: total / len(REFERENCE) for key, total in totals.items()}


@given(st.lists(LINES | MALFORMED, max_size=25))
def test_any_submission_scores_as_defined(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    path = tmp_path_factory.mktemp("submission") / "run.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    found = official_scores(REFERENCE, read_submission(path, skip_malformed=True))
    assert found.sentence_accuracy is not None
    scores = {
        "flag": found.flag_accuracy.value,
        "sentence": found.sentence_accuracy.value,
        **{key: found.composite[name].value for name, key in ROUGE.items()},
    }
    assert scores == pytest.approx(defined_scores(lines), abs=EXACT)
