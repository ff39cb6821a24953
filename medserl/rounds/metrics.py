"""The figures of a round, out of its games and its update. Shares of nothing are None, never 0."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean

from medserl.engines.base import UpdateStats, WeightedTurn
from medserl.game.episode import Episode, Turn
from medserl.game.roles import MODES, ROLES, Role, truth
from medserl.game.vcf import Reason
from medserl.knowledge.audit import EditClass

RoundFigures = dict[str, float | int | None]


def game_metrics(episodes: Sequence[Episode]) -> RoundFigures:
    """Acceptance by the VCF, and how the games ended."""
    attempts = [attempt for episode in episodes for attempt in episode.attempts]
    rejected = Counter(attempt.vcf.reason for attempt in attempts if not attempt.vcf.passed)
    played = [episode for episode in episodes if episode.accepted]
    judged = [episode for episode in played if episode.assessor]
    figures: RoundFigures = {
        "games": len(episodes),
        "accepted_games": len(played),
        "vcf_acceptance_rate": share(episode.accepted is not None for episode in episodes),
        "accepted_error_share": share(episode.mode == "error" for episode in played),
        "vcf_first_attempt_rate": share(episode.attempts[0].vcf.passed for episode in episodes if episode.attempts),
        **{f"vcf_reject_{reason}": rejected[reason] for reason in Reason},
        **verdict_metrics(judged),
        **label_metrics(played),
    }
    assessor = [e.rewards.assessor for e in played if e.rewards.assessor is not None]
    injector = [e.rewards.injector for e in played if e.rewards.injector is not None]
    figures["mean_reward"] = mean(assessor + injector)
    figures["reward_assessor"], figures["reward_injector"] = mean(assessor), mean(injector)
    for mode in MODES:
        figures[f"injector_win_rate_{mode}"] = share(e.fooled for e in judged if e.mode == mode)
    for role in ROLES:
        completions = [turn.completion for turn in _turns(episodes, role)]
        figures[f"tokens_per_completion_{role}"] = mean([float(len(done.token_ids)) for done in completions])
        figures[f"truncated_{role}"] = sum(done.truncated for done in completions)
    return figures


def verdict_metrics(played: Sequence[Episode]) -> RoundFigures:
    """The Assessor on the games that reached it; no verdict counts as wrong."""
    return {
        "assessor_accuracy": share(e.verdict == truth(e.mode) for e in played),
        "assessor_recall": share(e.verdict == "INCORRECT" for e in played if e.mode == "error"),
        "assessor_specificity": share(e.verdict == "CORRECT" for e in played if e.mode == "benign"),
        "assessor_flag_rate": share(e.verdict == "INCORRECT" for e in played),
        "no_verdict_rate": share(e.verdict is None for e in played),
    }


def label_metrics(played: Sequence[Episode]) -> RoundFigures:
    """How honest the labels by mode are, and what the edits changed.

    `label_noise_<mode>`: of the games whose note carries a fact, and on which the truth oracle decides, the share
    whose label is wrong: error mode and still true, or benign mode and no longer true. `label_undecided_<mode>`: the
    share of those that carry a fact on which it does not decide. `audit_<class>`: shares of the audited edits.
    """
    figures: RoundFigures = {}
    for mode, dishonest in (("error", "true"), ("benign", "false")):
        known = [e.still_true for e in played if e.mode == mode and e.still_true is not None]
        figures[f"label_noise_{mode}"] = share(told == dishonest for told in known if told != "unknown")
        figures[f"label_undecided_{mode}"] = share(told == "unknown" for told in known)
    classes = [e.accepted.edit_class for e in played if e.accepted and e.accepted.edit_class]
    if classes:
        figures |= {f"audit_{name}": share(edit_class is name for edit_class in classes) for name in EditClass}
    return figures


def update_metrics(turns: Sequence[WeightedTurn], stats: UpdateStats, learning_rate: float) -> RoundFigures:
    """The figures of the policy update, by role where a role has a say."""
    metrics: RoundFigures = {}
    for role in ROLES:
        mine = [turn for turn in turns if turn.turn.role == role]
        metrics[f"advantage_{role}"] = mean([fmean(turn.advantages) for turn in mine])
        metrics[f"kl_{role}"] = mean(
            [
                old - ref
                for turn in mine
                if turn.ref_logprobs
                for old, ref in zip(turn.old_logprobs or (), turn.ref_logprobs, strict=True)
            ]
        )
    if stats.sft_loss is not None:
        metrics["sft_loss"] = stats.sft_loss
    if stats.vllm_kl is not None:
        metrics["vllm_kl"] = stats.vllm_kl
    if turns:  # of supervised turns, which nobody sampled, there is no ratio and no gap
        metrics |= {
            "clip_fraction": stats.clip_fraction,
            "logprob_gap": stats.logprob_gap,
            "logprob_gap_rms": stats.logprob_gap_rms,
            "logprob_gap_max": stats.logprob_gap_max,
        }
    return metrics | {
        "loss": stats.loss,
        "entropy": stats.entropy,
        "grad_norm": stats.grad_norm,
        "trained_parameters": stats.trained_parameters,
        "optimizer_steps": stats.optimizer_steps,
        "lr": learning_rate,
    }


def share(outcomes: Iterable[bool]) -> float | None:
    return mean([float(outcome) for outcome in outcomes])


def mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _turns(episodes: Sequence[Episode], role: Role) -> list[Turn]:
    """Every turn of the role in these games."""
    if role == "injector":
        return [attempt.turn for episode in episodes for attempt in episode.attempts]
    return [turn for episode in episodes for turn in episode.assessor_turns]
