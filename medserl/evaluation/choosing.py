"""A threshold on P(INCORRECT), calibrated and chosen on labelled notes that are read as those of a user will be."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from medserl.display.progress import track
from medserl.evaluation.calibration import calibrated_threshold
from medserl.evaluation.predict import COMPLETIONS_AT_ONCE
from medserl.evaluation.predictions import LabelledText, Prediction
from medserl.evaluation.reading import ShownText, batched, read_texts, worst_of
from medserl.evaluation.thresholds import Threshold
from medserl.rollout import VCFRolloutGenerator

log = logging.getLogger("medserl")


def threshold_on(rollout: VCFRolloutGenerator, texts: Sequence[LabelledText], source: str) -> Threshold | None:
    """The best one on these validation texts, which `source` names, and their calibration; None, and why in the log,
    where there is none."""
    shown = [ShownText(text.text_id, text.sentences) for text in texts]
    said: list[Prediction] = []
    if len({text.is_error for text in texts}) == 2:
        batches = list(batched(shown, COMPLETIONS_AT_ONCE))
        for batch in track(batches, f"choosing a threshold on {len(texts)} texts of {source}", sizes=len):
            for text, read in zip(batch, read_texts(rollout, batch), strict=True):
                worst = None if isinstance(read, str) else worst_of(read)
                said.append(Prediction(text.note_id, None, p_incorrect=worst.p_error if worst else None))
    known = {one.text_id for one in said if one.p_incorrect is not None}
    if len({text.is_error for text in texts if text.text_id in known}) < 2:
        log.warning("no threshold can be chosen: %s holds no notes of both classes that the model judges", source)
        return None
    return calibrated_threshold(texts, said, source)
