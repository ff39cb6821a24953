"""Which curves the report shows, in which groups, and what each means in a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from medserl.game.roles import MODES
from medserl.game.vcf import Reason
from medserl.knowledge.audit import EditClass
from medserl.reports.convergence import Convergence, GoldGap, Notice
from medserl.reports.curves import Chart, ChartPlan, draw
from medserl.reports.diversity import EditDiversity
from medserl.rounds.clock import PHASES, WITH_TOKENS
from medserl.runs.records import Record


@dataclass(frozen=True)
class ChartGroup:
    title: str
    charts: list[Chart]
    note: str = ""


def _words(key: str) -> str:
    return key.replace("_", " ")


GAME = (
    ChartPlan(
        "Edits accepted by the VCF",
        "Share of a round's notes for which the Injector wrote an acceptable edit.",
        "percent",
        (
            ("vcf_acceptance_rate", "within all attempts"),
            ("vcf_first_attempt_rate", "at the first attempt"),
        ),
    ),
    ChartPlan(
        "Modes of the accepted edits",
        "Share of error mode among them. Away from half, one verdict pays more on notes that cannot be told apart, "
        "unless advantage_normalization is per_mode.",
        "percent",
        (("accepted_error_share", "error mode"),),
    ),
    ChartPlan(
        "Why attempts were rejected",
        "Rejected attempts of a round, by the VCF's reason.",
        "count",
        tuple((f"vcf_reject_{reason}", _words(reason)) for reason in Reason),
        stacked=True,
    ),
    ChartPlan(
        "Injector's wins",
        "Share of accepted games in which the Assessor was fooled. Half is even.",
        "percent",
        (
            ("injector_win_rate_error", "error mode"),
            ("injector_win_rate_benign", "benign mode"),
        ),
    ),
    ChartPlan(
        "Assessor on its own games",
        "Recall: injected errors found. Specificity: harmless edits let pass. No verdict counts as wrong.",
        "percent",
        (
            ("assessor_accuracy", "accuracy"),
            ("assessor_recall", "recall"),
            ("assessor_specificity", "specificity"),
            ("original_specificity", "originals let pass"),
        ),
    ),
    ChartPlan(
        "How the Assessor answers",
        "Answering alike whatever the note is a collapse: the flag rate goes to 0 or 100 %.",
        "percent",
        (("assessor_flag_rate", "says INCORRECT"), ("no_verdict_rate", "gives no verdict")),
    ),
    ChartPlan(
        "Mean reward by role",
        "Zero-sum: what one role gains, the other loses, but for games without a verdict.",
        "reward",
        (("reward_assessor", "Assessor"), ("reward_injector", "Injector")),
    ),
    ChartPlan(
        "Variety of the edits",
        "Different edits among a round's accepted ones; and self-BLEU, which is 1 where all write the same words.",
        "percent",
        (("distinct_ratio", "different edits"), ("self_bleu", "self-BLEU")),
    ),
    ChartPlan(
        "Variety of the error types",
        "Entropy in bits of the types asked for in accepted error games; five alike give 2.32.",
        "number",
        (("error_type_entropy", "entropy of types"),),
    ),
)

LABELS = (
    ChartPlan(
        "Labels that are wrong",
        "Of the accepted edits on which the fact table decides: error mode, but still true; benign mode, but false.",
        "percent",
        (("label_noise_error", "error mode"), ("label_noise_benign", "benign mode")),
    ),
    ChartPlan(
        "Labels that cannot be checked",
        "Of the accepted edits of notes with a fact: the fact table does not decide whether the note is still true.",
        "percent",
        (("label_undecided_error", "error mode"), ("label_undecided_benign", "benign mode")),
    ),
    ChartPlan(
        "What the edits changed",
        "Accepted edits by the edit audit's class, as shares of those it looked at.",
        "percent",
        tuple((f"audit_{name}", str(name)) for name in EditClass),
        stacked=True,
    ),
)

GOLD = (
    ChartPlan(
        "Assessor on gold pairs",
        "The round's gold twins, whose label nobody can game; its own games are drawn above. Sampled verdicts.",
        "percent",
        (
            ("gold_accuracy", "accuracy"),
            ("gold_recall", "recall"),
            ("gold_specificity", "specificity"),
            ("gold_pairwise_accuracy", "pairs, both right"),
        ),
    ),
    ChartPlan(
        "Auxiliary SFT loss",
        "Negative log-likelihood of right answers to gold texts and games, before they are learnt, in nats a token.",
        "number",
        (("sft_loss", "nats a token"),),
    ),
)

HELD_OUT_CHARTS = (
    ChartPlan(
        "Accuracy on validation notes",
        "Pairwise: both the wrong note and its corrected twin judged rightly; a coin gets 25 % at most.",
        "percent",
        (("eval_accuracy", "accuracy"), ("eval_pairwise_accuracy", "pairwise accuracy")),
    ),
    ChartPlan(
        "Told apart, whatever the model is inclined to say",
        "Wrong validation notes have the higher P(INCORRECT): of twins, and of any two. Guessing gets 50 %.",
        "percent",
        (("eval_pair_ordering", "pairs ordered"), ("eval_auroc", "AUROC")),
    ),
    ChartPlan(
        "Recall and specificity",
        "On the fixed validation notes: errors found, correct notes let pass. Greedy answers.",
        "percent",
        (
            ("eval_recall", "recall"),
            ("eval_specificity", "specificity"),
            ("eval_flag_rate", "flag rate"),
            ("eval_no_verdict_rate", "no verdict"),
            ("eval_truncated_rate", "cut off"),
        ),
    ),
    ChartPlan(
        "Self-made against gold errors",
        "The Assessor in its own games minus on validation notes; growth means it learns the Injector's habits.",
        "points",
        (("accuracy_gap", "accuracy"), ("recall_gap", "recall")),
    ),
    ChartPlan(
        "Against the frozen opponent",
        "Accuracy on the same edits each time, labelled by the mode they were asked for, and by the fact table.",
        "percent",
        (
            ("frozen_accuracy", "by mode"),
            ("frozen_pairwise_accuracy", "pairs, by mode"),
            ("frozen_fact_accuracy", "by the fact table"),
        ),
    ),
    ChartPlan(
        "The frozen opponent by mode",
        "Its error-mode edits found, its benign-mode edits let pass, whatever they really did.",
        "percent",
        (
            ("frozen_recall", "recall"),
            ("frozen_specificity", "specificity"),
            ("frozen_flag_rate", "flag rate"),
            ("frozen_no_verdict_rate", "no verdict"),
        ),
    ),
)

LEARNING = (
    ChartPlan(
        "Distance from the reference model",
        "KL by role, in nats a token. It should grow slowly; a run-away means language is lost.",
        "number",
        (("kl_assessor", "Assessor"), ("kl_injector", "Injector")),
    ),
    ChartPlan(
        "Weight of the KL",
        "kl_coef after the round; it stays as set unless kl_target steers it.",
        "number",
        (("kl_coef", "weight"),),
    ),
    ChartPlan(
        "Entropy",
        "Nats a token. Near 0 the policy always writes the same.",
        "number",
        (("entropy", "entropy"),),
    ),
    ChartPlan(
        "Length of completions",
        "Mean tokens of a completion.",
        "number",
        (
            ("tokens_per_completion_assessor", "Assessor"),
            ("tokens_per_completion_injector", "Injector"),
        ),
    ),
    ChartPlan(
        "Completions cut off",
        "How many met the token limit before they ended: no edit, and no verdict.",
        "count",
        (("truncated_injector", "Injector"), ("truncated_assessor", "Assessor")),
        stacked=True,
    ),
    ChartPlan(
        "Rewards that were all alike",
        "Share of roles and modes of a round; then nothing but the KL tells turns apart.",
        "percent",
        (
            ("no_variance_share", "roles and modes"),
            ("no_variance_assessor", "Assessor"),
            ("no_variance_injector", "Injector"),
        ),
    ),
    ChartPlan(
        "Mean advantage by role",
        "What REINFORCE++ multiplies the gradient with, averaged over a round's turns.",
        "number",
        (("advantage_assessor", "Assessor"), ("advantage_injector", "Injector")),
    ),
    ChartPlan(
        "Loss",
        "Mean of the clipped loss over tokens; near 0 before the policy moves, and no measure of learning.",
        "number",
        (("loss", "loss"),),
    ),
    ChartPlan("Gradient norm", "Before clipping.", "number", (("grad_norm", "gradient norm"),)),
    ChartPlan("Learning rate", "Of the round's update.", "number", (("lr", "learning rate"),)),
    ChartPlan(
        "Clip fraction",
        "Share of tokens whose probability moved beyond PPO's clip; 0 with one step a round.",
        "percent",
        (("clip_fraction", "clip fraction"),),
    ),
    ChartPlan(
        "Sampler against trainer",
        "Mean gap between the sampled and the recomputed log-probabilities; near 0 when both agree.",
        "number",
        (("logprob_gap", "log-probability gap"),),
    ),
)

MACHINE = (
    ChartPlan(
        "Time of a round",
        "Seconds by phase.",
        "seconds",
        tuple((f"seconds_{phase}", phase) for phase in PHASES),
        stacked=True,
    ),
    ChartPlan(
        "Speed",
        "Tokens a second: completion tokens when sampling, all tokens in the reference pass and the update.",
        "number",
        tuple((f"tokens_per_second_{phase}", phase) for phase in WITH_TOKENS),
    ),
    ChartPlan("Peak memory", "Gigabytes.", "number", (("peak_memory_gb", "peak memory"),)),
)

GROUPS = (
    ("The game", GAME),
    ("How far the labels by mode can be trusted", LABELS),
    ("Gold pairs and the auxiliary SFT loss", GOLD),
    ("Validation notes during training", HELD_OUT_CHARTS),
    ("Learning", LEARNING),
    ("Machine", MACHINE),
)


NOT_DRAWN = {"round", "epoch", "games", "accepted_games", "samples", "optimizer_steps", "mean_reward"} | {
    field.name for kind in (EditDiversity, GoldGap) for field in fields(kind)
}
"""Counts, what other figures say, and what convergence computes on the way."""


def other_plans(rows: Sequence[Record]) -> tuple[ChartPlan, ...]:
    """A chart for each figure that the rows hold and nothing above draws: a new one is not kept from the reader."""
    drawn = {metric for _, plans in GROUPS for plan in plans for metric, _ in plan.curves} | NOT_DRAWN
    keys = dict.fromkeys(key for row in rows for key in row if key not in drawn)
    return tuple(
        ChartPlan(_words(key).capitalize(), f"{key} in metrics.jsonl.", "number", ((key, _words(key)),)) for key in keys
    )


def with_convergence(rows: Sequence[Record], found: Convergence) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl together with the figures that only convergence computes."""
    extra: dict[int, dict[str, Any]] = {}
    figures: list[EditDiversity | GoldGap] = [*found.diversity, *found.gold_gaps]
    for one in figures:
        extra.setdefault(one.round, {}).update(vars(one))
    return [{**row, **extra.get(row["round"], {})} for row in rows]


def draw_groups(
    rows: Sequence[Record], notices: Sequence[Notice] = (), frozen: Sequence[Record] = (), validation: str = ""
) -> list[ChartGroup]:
    """The charts that the run has figures for, with the notices' rounds; groups without any are left out.

    `validation` says what the validation notes are.
    """
    groups = []
    for title, plans in (*GROUPS, ("Other figures", other_plans(rows))):
        charts = [chart for plan in plans if (chart := draw(plan, rows, notices)) is not None]
        if charts:
            told = [validation, frozen_in_words(frozen) if frozen else ""] if plans is HELD_OUT_CHARTS else []
            groups.append(ChartGroup(title, charts, " ".join(filter(None, told))))
    return groups


def frozen_in_words(games: Sequence[Record]) -> str:
    """What the frozen opponent's stored games are, and how far their labels can be trusted."""
    by_mode = {mode: [game for game in games if game["mode"] == mode] for mode in MODES}
    counts = " and ".join(f"{len(by_mode[mode])} in {mode} mode" for mode in MODES)
    edits = "1 edit" if len(games) == 1 else f"{len(games)} edits"
    text = f"The frozen opponent: {edits} that the starting policy made before round 1, {counts}."
    known = {mode: [one for one in by_mode[mode] if one.get("still_true") in ("true", "false")] for mode in MODES}
    if not any(known.values()):
        return f"{text} The mode is their label: what was asked for, not what the note says."
    false = sum(game["still_true"] == "false" for game in known["error"])
    true = sum(game["still_true"] == "true" for game in known["benign"])
    return (
        f"{text} The mode is their label, not the truth. Where the fact table knows that, {false} of "
        f"{len(known['error'])} error edits made the note false, and {true} of {len(known['benign'])} benign ones "
        "left it true."
    )
