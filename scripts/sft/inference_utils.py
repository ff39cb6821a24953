"""Documented path: the VCF and the text helpers. The code lives in `medserl.game`."""

from medserl.game.text import normalize, split_sentences, split_words
from medserl.game.vcf import Edit, Reason, VCFResult, apply_vcf, bag_jaccard

__all__ = [
    "Edit",
    "Reason",
    "VCFResult",
    "apply_vcf",
    "bag_jaccard",
    "normalize",
    "split_sentences",
    "split_words",
]
