"""What a system must beat besides guessing: a classifier that sees words and no medicine."""

from __future__ import annotations

from collections.abc import Sequence

from medserl.errors import DataError
from medserl.evaluation.predictions import LabelledText, Prediction


def tfidf_predictions(train: Sequence[LabelledText], texts: Sequence[LabelledText]) -> list[Prediction]:
    """Logistic regression on TF-IDF weights of single words and neighbouring two (scikit-learn, C = 1).

    Raises:
        DataError: training texts of one class only.
    """
    labels = [text.is_error for text in train]
    if len(set(labels)) < 2:
        raise DataError("the TF-IDF baseline needs training texts with and without an error")
    if not texts:
        return []
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    # On data as balanced as twins are, the default tolerance stops the solver at weights of zero.
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=1.0, max_iter=1000, tol=1e-8)
    )
    model.fit([text.text for text in train], labels)
    chances = model.predict_proba([text.text for text in texts])[:, list(model.classes_).index(True)]
    return [
        Prediction(text.text_id, "INCORRECT" if chance >= 0.5 else "CORRECT", p_incorrect=float(chance))
        for text, chance in zip(texts, chances, strict=True)
    ]
