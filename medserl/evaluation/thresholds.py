"""Thresholds on calibrated P(INCORRECT), and the file that keeps one beside the weights that it was chosen for."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medserl.config import Settings
from medserl.files import sha256_of, write_private
from medserl.game.prompts import load_prompts

log = logging.getLogger("medserl")

THRESHOLD = "threshold.json"
"""Its name in the folder of a run or of an adapter."""
_WEIGHTS = "weights"


@dataclass(frozen=True)
class Threshold:
    """A text is called INCORRECT where its calibrated probability of INCORRECT is at least `value`.

    Calibrated is a model's own probability p by sigmoid(slope x logit(p) + intercept), which keeps its order
    (`calibration.calibrated_threshold`); as it stands, 1 and 0 leave p as it is. It holds where as many notes have an
    error as among those that it was fitted on. `brier` is the Brier score there after it, `brier_before` before it.
    `recall` and `specificity` are those on the `n` validation texts of `source` on which it was chosen: they flatter,
    and are no result. They are None where it was chosen on no texts; `source` may then say where it is from.
    """

    value: float
    recall: float | None = None
    specificity: float | None = None
    n: int = 0
    source: str = ""
    slope: float = 1.0
    intercept: float = 0.0
    brier_before: float | None = None
    brier: float | None = None

    def calibrated(self, p: float) -> float:
        """What a model's own probability of INCORRECT comes to."""
        return p if (self.slope, self.intercept) == (1.0, 0.0) else sigmoid(self.slope * logit(p) + self.intercept)

    @property
    def balanced_accuracy(self) -> float | None:
        """Mean of recall and specificity."""
        return None if self.recall is None or self.specificity is None else (self.recall + self.specificity) / 2

    def describe(self) -> str:
        """One line for a person: what it is, and how it did where it was chosen."""
        if self.recall is None or self.specificity is None:
            return f"{self.value:.3g}, {self.source or 'chosen on no notes'}"
        if self.n < FEW_TEXTS:
            return f"{self.value:.3g}, chosen on {self.n} texts of {self.source}: too few to say how it does"
        return (
            f"{self.value:.3g}, chosen on {self.n} texts of {self.source}: there it flags {100 * self.recall:.0f} % of "
            f"those with an error and passes {100 * self.specificity:.0f} % of the correct ones{self._fit()}"
        )

    def _fit(self) -> str:
        if self.brier is None or self.brier_before is None:
            return ""
        return f"; P(error) is calibrated on them (Brier score {self.brier_before:.2f} before, {self.brier:.2f} after)"


FEW_TEXTS = 20
"""Below so many, recall and specificity are shares of a handful, and a calibration follows from it."""

UNCHOSEN = Threshold(0.5)
"""Where nothing is known: the more probable of the two verdicts."""


def logit(p: float) -> float:
    """Finite: probabilities that are 0 or 1 but for rounding are taken for 1e-12 from there."""
    p = min(max(p, 1e-12), 1 - 1e-12)
    return math.log(p) - math.log1p(-p)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def weights_key(settings: Settings) -> str:
    """A hash of what P(INCORRECT) follows from, but for rounding: the trained weights, the model, the prompt.

    The same on every machine and device. Of a model of the hub without an adapter its name stands for its weights.

    Raises:
        ConfigError, ModelError: the prompts or the adapter cannot be found.
    """
    from medserl.models import adapter_source

    prompts = load_prompts(settings.prompts, settings.injector_format)
    parts: list[Any] = [prompts.assessor("A note."), settings.thinking]
    adapter = adapter_source(settings)
    folder = adapter or Path(settings.model)
    weights = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    parts.append([[path.name, sha256_of(path)] for path in weights])
    if adapter or not weights:
        parts.append(settings.model)
    if settings.load_in_4bit:
        parts.append("4 bits")
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def read_threshold(folder: Path, key: str) -> Threshold | None:
    """The threshold kept in the folder for the weights of this `weights_key`; None where there is none.

    One of other weights, or one that cannot be read, is not used, and the log says so.
    """
    path = folder / THRESHOLD
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        weights = stored.pop(_WEIGHTS)
        found = Threshold(**stored)
        if not _is_sound(found):
            raise ValueError("a number is out of range")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        log.warning("%s: cannot be read (%s), so it is not used", path, error)
        return None
    if weights != key:
        log.warning("%s is of other weights or another prompt, so it is not used", path)
        return None
    return found


def _is_sound(found: Threshold) -> bool:
    shares = (found.value, found.recall, found.specificity)
    scores = [score for score in (found.brier, found.brier_before) if score is not None]
    return (
        all(isinstance(number, int | float) and math.isfinite(number) for number in (found.slope, found.intercept))
        and found.slope > 0
        and all(
            isinstance(share, int | float) and math.isfinite(share) and 0 <= share <= 1 for share in (*shares, *scores)
        )
        and isinstance(found.n, int)
        and isinstance(found.source, str)
    )


def write_threshold(folder: Path, key: str, threshold: Threshold) -> None:
    """Keep it for the weights of this `weights_key`. Raises OutputError where the file cannot be written."""
    write_private(folder / THRESHOLD, json.dumps({**asdict(threshold), _WEIGHTS: key}, indent=1) + "\n")
