"""BERTScore and BLEURT of corrected sentences, from checkpoints in local folders; nothing is ever fetched.

BERTScore (Zhang et al., ICLR 2020) is computed here as the package `bert-score` 0.3.13 does under the shared task's
settings: layer 40 of microsoft/deberta-xlarge-mnli, no idf weights, rescaled with that package's English baseline. The
package itself breaks off on this model's tokenizer with current transformers. BLEURT needs Google's own package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medserl.errors import ModelError
from medserl.evaluation.official import BERTSCORE, BLEURT, Scorer

if TYPE_CHECKING:
    import torch

LAYER = 40
BASELINE_F1 = 0.5150192
"""F1 of unrelated English sentences at layer 40 of this model: what rescaling makes 0."""
_BATCH, _MAX_TOKENS = 16, 512


@dataclass
class Scorers:
    """The metrics that can be computed, and of each other one why it cannot."""

    available: dict[str, Scorer] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def load_scorers(bertscore: Path | None = None, bleurt: Path | None = None) -> Scorers:
    """Scorers of the checkpoints given: a folder of microsoft/deberta-xlarge-mnli, and one of BLEURT-20.

    Raises:
        ModelError: a folder was given and cannot be used.
    """
    found = Scorers()
    for name, folder, load, model in (
        (BERTSCORE, bertscore, load_bertscore, "microsoft/deberta-xlarge-mnli"),
        (BLEURT, bleurt, load_bleurt, "BLEURT-20"),
    ):
        if folder is None:
            found.left_out[name] = f"no local checkpoint of {model} was given"
        else:
            found.available[name] = load(folder)
    return found


def load_bertscore(folder: Path, layer: int = LAYER, baseline: float = BASELINE_F1) -> Scorer:
    """Rescaled BERTScore F1, not clipped. Raises ModelError where the folder holds no such model."""
    from transformers import AutoModel, AutoTokenizer

    if not (folder / "config.json").is_file():
        raise ModelError(f"BERTScore: {folder} holds no model; give the folder of microsoft/deberta-xlarge-mnli")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    except (OSError, ValueError) as error:
        raise ModelError(f"BERTScore: {folder} cannot be loaded: {str(error).splitlines()[0]}") from error
    if model.config.model_type != "deberta" or model.config.num_hidden_layers < layer:
        raise ModelError(
            f"BERTScore: {folder} is a {model.config.model_type} of {model.config.num_hidden_layers} layers; "
            f"the shared task's is layer {layer} of microsoft/deberta-xlarge-mnli"
        )
    del model.encoder.layer[layer:]
    return partial(_bertscore, tokenizer, model, baseline)


def _bertscore(
    tokenizer: Any, model: Any, baseline: float, predictions: Sequence[str], references: Sequence[str]
) -> list[float]:
    vectors = _token_vectors(tokenizer, model, sorted({*predictions, *references}, key=len))
    scores = (match_f1(vectors[a], vectors[b]) for a, b in zip(predictions, references, strict=True))
    return [(score - baseline) / (1 - baseline) for score in scores]


def _token_vectors(tokenizer: Any, model: Any, sentences: Sequence[str]) -> dict[str, torch.Tensor]:
    """Of each sentence the unit vectors of its tokens, [CLS] and [SEP] at the ends: shape (tokens, hidden size)."""
    import torch

    vectors = {}
    for start in range(0, len(sentences), _BATCH):
        batch = sentences[start : start + _BATCH]
        inputs = tokenizer(
            [sentence.strip() for sentence in batch],
            padding=True,
            truncation=True,
            max_length=_MAX_TOKENS,
            return_tensors="pt",
        )
        with torch.inference_mode():
            hidden = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])[0]
        hidden = torch.nn.functional.normalize(hidden.float(), dim=-1)
        for sentence, rows, mask in zip(batch, hidden, inputs["attention_mask"], strict=True):
            vectors[sentence] = rows[mask.bool()]
    return vectors


def match_f1(prediction: torch.Tensor, reference: torch.Tensor) -> float:
    """F1 of greedy matching by cosine (Zhang et al., section 3), before rescaling.

    Both are unit vectors of shape (tokens, hidden size). The first and last token, [CLS] and [SEP], may be matched
    with, but are not averaged over. A sentence without any other token scores 0.
    """
    if len(prediction) <= 2 or len(reference) <= 2:
        return 0.0
    similarity = prediction @ reference.T
    precision = similarity.max(dim=1).values[1:-1].mean()
    recall = similarity.max(dim=0).values[1:-1].mean()
    return float(2 * precision * recall / (precision + recall))


def load_bleurt(folder: Path) -> Scorer:
    """BLEURT (Sellam et al., ACL 2020), not clipped. Raises ModelError where package or checkpoint is not there."""
    if not (folder / "bleurt_config.json").is_file():
        raise ModelError(f"BLEURT: {folder} holds no BLEURT checkpoint; give the unpacked folder BLEURT-20")
    try:
        from bleurt.score import BleurtScorer
    except ImportError:
        raise ModelError(
            "BLEURT: Google's package bleurt is not installed: pip install git+https://github.com/google-research/bleurt"
        ) from None
    scorer = BleurtScorer(checkpoint=str(folder))

    def score(predictions: Sequence[str], references: Sequence[str]) -> list[float]:
        return list(scorer.score(references=list(references), candidates=list(predictions), batch_size=1))

    return score
