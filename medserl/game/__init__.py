"""The rules of the game, in pure Python: roles, prompts, parsing, the VCF, rewards, episodes."""

from medserl.game.vcf import Edit, Reason, VCFResult, apply_vcf

__all__ = ["Edit", "Reason", "VCFResult", "apply_vcf"]
