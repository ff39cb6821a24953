"""What a run learnt from: every training signal that its settings switch on, in words.

Whatever came of a run came of all of these together. A report that names one of them alone credits it with the rest.
"""

from __future__ import annotations

from medserl.config import Settings
from medserl.models import shipped_warmup
from medserl.models.base_names import last_part

SIGNAL_SETTINGS = frozenset(
    {
        "roles_trained", "policy_loss_weight", "assessor_reward",
        "judge_originals", "gold_fraction", "sft_verdict_pairs", "sft_edit_pairs", "sft_games", "sft_loss_weight",
        "gold_data", "kl_coef", "kl_target", "adapter", "lora_rank", "edit_audit",
    }
)  # fmt: skip
"""The settings that say what is learnt from, all told by this module."""


def training_signals(settings: Settings) -> list[str]:
    """What moved the weights, play first. Without a policy loss no reward did."""
    rewards = [_play(settings), *_gold(settings)] if settings.is_rewarded else []
    return [*rewards, *_sft(settings), *(_kl(settings) if settings.is_rewarded else [])]


def is_play_alone(settings: Settings) -> bool:
    """Whether nothing but games moved the weights."""
    return settings.is_played and not settings.takes_gold_pairs


def start(settings: Settings) -> str:
    """What training started from."""
    merged = " and merged into all weights" if settings.lora_rank == 0 else ""
    if settings.adapter not in ("none", "auto"):
        return f"the adapter {settings.adapter}{merged}"
    if settings.adapter == "auto" and shipped_warmup(settings):
        return f"the warm-up adapter shipped with MedSeRL, taught on pairs of the sample's seen facts{merged}"
    return "the model without an adapter"


def _play(settings: Settings) -> str:
    trained = settings.roles_trained
    roles = "both roles"
    if trained != "both":
        roles = f"the {trained.capitalize()} alone, the other role's turns teaching nothing"
    details = [
        f"weight {settings.policy_loss_weight:g}" if settings.policy_loss_weight != 1 else "",
        "the Assessor's for the words that should stand there too" if settings.assessor_reward == "correction" else "",
        "the Assessor judges the original of each accepted error too" if settings.judge_originals else "",
        "edits that the audit calls wrong for their mode are rejected" if settings.edit_audit == "reject" else "",
    ]
    told = "; ".join(filter(None, details))
    return f"play rewards of {roles}" + (f" ({told})" if told else "")


def _gold(settings: Settings) -> list[str]:
    if not settings.gold_fraction:
        return []
    share = f"{100 * settings.gold_fraction:.0f} % of the Assessor's turns"
    return [f"rewards for verdicts on gold pairs{_of_whom(settings)} ({share})"]


def _sft(settings: Settings) -> list[str]:
    weight = "" if settings.sft_loss_weight == 1 else f", weight {settings.sft_loss_weight:g}"
    of_whom = _of_whom(settings)
    verdicts, edits, games = settings.sft_verdict_pairs, settings.sft_edit_pairs, settings.sft_games
    found = [
        f"the right verdicts on {verdicts} gold pairs{of_whom} a round" if verdicts else "",
        f"the edits of {edits} gold pairs{of_whom} a round" if edits else "",
        f"the right verdicts on at most {games} errors of its own games a round" if games else "",
    ]
    return [f"an auxiliary SFT loss towards {told}{weight}" for told in filter(None, found)]


def _of_whom(settings: Settings) -> str:
    """Where gold pairs are from, if not from the training notes."""
    if settings.gold_data == "auto":
        return ""
    return " of the sample" if settings.gold_data == "sample" else f" of {last_part(settings.gold_data)}"


def _kl(settings: Settings) -> list[str]:
    if not settings.kl_coef:
        return []
    steered = f", steered to {settings.kl_target:g} nats a token" if settings.kl_target else ""
    return [f"a KL penalty towards the reference model (weight {settings.kl_coef:g}{steered})"]


def in_a_row(parts: list[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
