"""What takes no understanding: the majority class, and words counted by a linear classifier."""

from __future__ import annotations

from collections.abc import Sequence

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from medserl.data.notes import Note
from medserl.evaluation.predictions import LabelledText, Prediction, labelled_texts


def majority_predictions(train: Sequence[LabelledText], texts: Sequence[LabelledText]) -> list[Prediction]:
    """The commoner class of the training texts for every text; INCORRECT where they are even."""
    errors = sum(text.is_error for text in train)
    verdict = "INCORRECT" if 2 * errors >= len(train) else "CORRECT"
    return [Prediction(text.text_id, verdict) for text in texts]


def tfidf_predictions(train: Sequence[LabelledText], texts: Sequence[LabelledText]) -> list[Prediction]:
    """TF-IDF of words and word pairs with logistic regression, fitted on the training texts."""
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(max_iter=1000))
    model.fit([text.text for text in train], [text.is_error for text in train])
    flagged = model.predict([text.text for text in texts])
    return [
        Prediction(text.text_id, "INCORRECT" if flag else "CORRECT")
        for text, flag in zip(texts, flagged, strict=True)
    ]


def baseline_predictions(
    train_notes: Sequence[Note], texts: Sequence[LabelledText]
) -> dict[str, list[Prediction]]:
    """Both baselines by name; none where the training notes hold only one class."""
    train = labelled_texts(train_notes)
    if len({text.is_error for text in train}) < 2:
        return {}
    return {
        "majority": majority_predictions(train, texts),
        "tf-idf": tfidf_predictions(train, texts),
    }
