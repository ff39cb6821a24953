"""Which curves the report shows, in which groups, and what each means in a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from medserl.evaluation.convergence import Convergence, EditDiversity, GoldGap
from medserl.game.vcf import Reason
from medserl.phases import PHASES
from medserl.reports.curves import Chart, Plan, draw
from medserl.reports.run_files import Row


@dataclass(frozen=True)
class Group:
    title: str
    charts: list[Chart]


def _reason(reason: str) -> str:
    return reason.replace("_", " ")


GAME = (
    Plan(
        "Edits accepted by the VCF",
        "Share of a round's notes for which the Injector wrote an acceptable edit.",
        "percent",
        (
            ("vcf_acceptance_rate", "within all attempts"),
            ("vcf_first_attempt_rate", "at the first attempt"),
        ),
    ),
    Plan(
        "Why attempts were rejected",
        "Rejected attempts of a round, by the VCF's reason.",
        "count",
        tuple((f"vcf_reject_{reason}", _reason(reason)) for reason in Reason),
        stacked=True,
    ),
    Plan(
        "Injector's wins",
        "Share of accepted games in which the Assessor was fooled. Half is even.",
        "percent",
        (
            ("injector_win_rate_error", "error mode"),
            ("injector_win_rate_benign", "benign mode"),
        ),
    ),
    Plan(
        "Assessor on its own games",
        "Recall: injected errors found. Specificity: harmless edits let pass. No verdict counts as wrong.",
        "percent",
        (
            ("assessor_accuracy", "accuracy"),
            ("assessor_recall", "recall"),
            ("assessor_specificity", "specificity"),
        ),
    ),
    Plan(
        "How the Assessor answers",
        "Answering alike whatever the note is a collapse: the flag rate goes to 0 or 100 %.",
        "percent",
        (("assessor_flag_rate", "says INCORRECT"), ("no_verdict_rate", "gives no verdict")),
    ),
    Plan(
        "Mean reward by role",
        "Zero-sum: what one role gains, the other loses, but for games without a verdict.",
        "reward",
        (("reward_assessor", "Assessor"), ("reward_injector", "Injector")),
    ),
    Plan(
        "Variety of the edits",
        "Different edits among a round's accepted ones; and how much of an edit's words others use too (self-BLEU).",
        "percent",
        (("distinct_ratio", "different edits"), ("self_bleu", "shared words")),
    ),
    Plan(
        "Variety of the error types",
        "Entropy in bits over accepted error games; five types alike give 2.32.",
        "number",
        (("error_type_entropy", "entropy of types"),),
    ),
)

HELD_OUT = (
    Plan(
        "Accuracy on validation notes",
        "Pairwise: both the wrong note and its corrected twin judged rightly; guessing gives 25 %.",
        "percent",
        (("eval_accuracy", "accuracy"), ("eval_pairwise_accuracy", "pairwise accuracy")),
    ),
    Plan(
        "Errors found and correct notes let pass",
        "On the fixed validation notes, greedy answers.",
        "percent",
        (
            ("eval_recall", "recall"),
            ("eval_specificity", "specificity"),
            ("eval_flag_rate", "flag rate"),
            ("eval_no_verdict_rate", "no verdict"),
        ),
    ),
    Plan(
        "Self-made against gold errors",
        "The Assessor in its own games minus on validation notes; growth means it learns the Injector's habits.",
        "number",
        (("accuracy_gap", "accuracy"), ("recall_gap", "recall")),
    ),
)

LEARNING = (
    Plan(
        "Distance from the reference model",
        "KL by role, in nats a token. It should grow slowly; a run-away means language is lost.",
        "number",
        (("kl_assessor", "Assessor"), ("kl_injector", "Injector")),
    ),
    Plan(
        "Entropy",
        "Nats a token. Near 0 the policy always writes the same.",
        "number",
        (("entropy", "entropy"),),
    ),
    Plan(
        "Length of completions",
        "Mean tokens of a completion.",
        "number",
        (
            ("tokens_per_completion_assessor", "Assessor"),
            ("tokens_per_completion_injector", "Injector"),
        ),
    ),
    Plan(
        "Mean advantage by role",
        "What REINFORCE++ multiplies the gradient with, averaged over a round's turns.",
        "number",
        (("advantage_assessor", "Assessor"), ("advantage_injector", "Injector")),
    ),
    Plan("Gradient norm", "Before clipping.", "number", (("grad_norm", "gradient norm"),)),
    Plan(
        "Clip fraction",
        "Share of tokens whose probability moved beyond PPO's clip; 0 with one step a round.",
        "percent",
        (("clip_fraction", "clip fraction"),),
    ),
    Plan(
        "Sampler against trainer",
        "Mean gap between the sampled and the recomputed log-probabilities; near 0 when both agree.",
        "number",
        (("logprob_gap", "log-probability gap"),),
    ),
)

MACHINE = (
    Plan(
        "Time of a round",
        "Seconds by phase.",
        "seconds",
        tuple((f"seconds_{phase}", phase) for phase in PHASES),
        stacked=True,
    ),
    Plan(
        "Speed",
        "Tokens a second: completion tokens when sampling, all tokens in the reference pass and the update.",
        "number",
        tuple((f"tokens_per_second_{phase}", phase) for phase in PHASES if phase != "sync"),
    ),
    Plan("Peak memory", "Gigabytes.", "number", (("peak_memory_gb", "peak memory"),)),
)

GROUPS = (
    ("The game", GAME),
    ("Held-out notes during training", HELD_OUT),
    ("Learning", LEARNING),
    ("Machine", MACHINE),
)


def with_convergence(rows: Sequence[Row], found: Convergence) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl together with the figures that only convergence computes."""
    extra: dict[int, dict[str, Any]] = {}
    figures: list[EditDiversity | GoldGap] = [*found.diversity, *found.gold_gaps]
    for one in figures:
        extra.setdefault(one.round, {}).update(vars(one))
    return [{**row, **extra.get(row["round"], {})} for row in rows]


def draw_groups(rows: Sequence[Row]) -> list[Group]:
    """The charts that the run has figures for; groups without any are left out."""
    groups = []
    for title, plans in GROUPS:
        charts = [chart for plan in plans if (chart := draw(plan, rows)) is not None]
        if charts:
            groups.append(Group(title, charts))
    return groups
