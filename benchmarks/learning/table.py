"""One table and one figure out of the raw figures that `run.py` kept.

    python benchmarks/learning/table.py [--experiment sample] [--data FILE] [--against ARM]

Writes `table.md` and `curves.png` beside the figures. Arms that ran with several seeds are pooled: the texts of all
seeds count, and a pair is one cluster over all of them. Intervals are 95 % (Wilson on the effective number of texts).
Each arm is compared with the warm-up, and seed by seed with `best` or the arm that `--against` names, on the same
pairs: by McNemar's exact test, or with several seeds a permutation test that swaps the two pair by pair. The figure
needs matplotlib (`pip install 'medserl[dev]'`).
"""

from __future__ import annotations

import argparse
import json
import lzma
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from medserl.data.readers import load_notes
from medserl.data.sample_paths import sample_path
from medserl.evaluation.metrics import Outcome, judge, pairs_right
from medserl.evaluation.predictions import LabelledText, Prediction, labelled_texts
from medserl.evaluation.statistics import Estimate, compare, format_p, share_estimate
from medserl.game.roles import MODES

HERE = Path(__file__).resolve().parent
WARMUP = "warmup"
LAST_ROUNDS = 10
"""The end of a run: what the table says of its games is their mean over so many rounds."""
SPLITS = ("test-seen", "test-unseen")
CURVES = {
    "gold_pairwise_accuracy": "gold pairs of the round, both twins right",
    "eval_pairwise_accuracy": "validation pairs, both twins right",
    "frozen_pairwise_accuracy": "frozen warm-up Injector, both right",
    "assessor_accuracy": "self-made notes, right by mode",
    "assessor_flag_rate": "self-made notes called INCORRECT",
    "label_noise_error": "label noise, error mode",
}
AT_THE_END = {
    "gold_accuracy": "gold right",
    "assessor_accuracy": "self-made right",
    "assessor_flag_rate": "called INCORRECT",
    "vcf_acceptance_rate": "VCF acceptance",
    "repeat_rate": "repeats",
    "kl_assessor": "KL, Assessor",
    "frozen_pairwise_accuracy": "frozen warm-up, pairs right by mode",
    "frozen_fact_accuracy": "right by fact",
}

STAGES = 3
"""Parts of a run for which the table says what a verdict earned."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One arm with one seed."""

    arm: str
    seed: int
    metrics: list[Row]
    predictions: list[Prediction]
    games: list[Row]

    def last(self, name: str) -> float | None:
        """Mean over the last rounds, of those that have the figure."""
        end = self.metrics[-1]["round"] - LAST_ROUNDS if self.metrics else 0
        values = [row[name] for row in self.metrics if row["round"] > end and row.get(name) is not None]
        return fmean(values) if values else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", default="sample")
    parser.add_argument("--data", type=Path, default=sample_path("test"), help="the notes that the arms were judged on")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="where run.py kept the figures")
    parser.add_argument("--against", default="best", metavar="ARM", help="compare with this arm, besides the warm-up")
    options = parser.parse_args()
    folder = options.results / options.experiment
    runs = read_runs(folder)
    table = markdown(runs, labelled_texts(load_notes(options.data).notes), options.against)
    (folder / "table.md").write_text(table, encoding="utf-8")
    draw(runs, folder / "curves.png")
    print(table)


def read_runs(folder: Path) -> list[Run]:
    """Every kept run, the warm-up first, then by arm and seed."""
    runs = []
    for place in sorted(path.parent for path in folder.glob("*/predictions.jsonl.xz")):
        named = re.fullmatch(r"(.+)_seed(\d+)", place.name)
        arm, seed = (named[1], int(named[2])) if named else (place.name, 0)
        metrics, games = (rows(place / f"{name}.jsonl.xz") if named else [] for name in ("metrics", "games"))
        predictions = [Prediction(**row) for row in rows(place / "predictions.jsonl.xz")]
        runs.append(Run(arm, seed, metrics, predictions, games))
    return sorted(runs, key=lambda run: (run.arm != WARMUP, run.arm, run.seed))


def rows(path: Path) -> list[Row]:
    with lzma.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def markdown(runs: Sequence[Run], texts: Sequence[LabelledText], other: str) -> str:
    arms = {run.arm: [other for other in runs if other.arm == run.arm] for run in runs}
    lines = [
        "| arm | seeds | pairs right, seen facts | unseen facts | all | against the warm-up "
        f"| against {other} | recall | specificity |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for arm, mine in arms.items():
        seen, unseen = (pairwise(mine, [text for text in texts if text.split == split]) for split in SPLITS)
        recall, specificity = texts_right(mine, texts, errors=True), texts_right(mine, texts, errors=False)
        differences = [against(mine, arms.get(name, []), texts) for name in (WARMUP, other)]
        cells = [arm, str(len(mine)), *map(percent, (seen, unseen, pairwise(mine, texts))), *differences]
        lines.append(f"| {' | '.join([*cells, percent(recall), percent(specificity)])} |")
    lines += [
        "",
        f"Games and gold turns of the last {LAST_ROUNDS} rounds, and the last validation (frozen); means over seeds:",
        "",
        f"| arm | {' | '.join(AT_THE_END.values())} |",
        "|---" * (1 + len(AT_THE_END)) + "|",
    ]
    trained = {arm: mine for arm, mine in arms.items() if arm != WARMUP}
    for arm, mine in trained.items():
        lines.append(f"| {' | '.join([arm, *(_over_seeds(mine, name) for name in AT_THE_END)])} |")
    lines += [
        "",
        "Accepted games by thirds of the run. What a verdict earned the Assessor: mean reward, number of verdicts; one "
        "that cannot tell notes apart learns the verdict that earns more. Label noise: labels that are wrong, of those "
        "that the truth oracle decides. Right words: error games in which the Assessor wrote what the edit took out.",
        "",
        "| arm | figure | first third | second | last |",
        "|---|---|---|---|---|",
    ]
    for arm, mine in trained.items():
        parts = list(zip(*map(thirds, mine), strict=True))
        games = [[game for run in part for game in run] for part in parts]
        lines += [f"| {' | '.join([arm, name, *map(figure, games)])} |" for name, figure in BY_THIRDS.items()]
    return "\n".join(lines) + "\n"


def thirds(run: Run) -> list[list[Row]]:
    """The accepted games of the policy against itself, in each part of the run."""
    parts: list[list[Row]] = [[] for _ in range(STAGES)]
    last = max((game["round"] for game in run.games), default=0)
    for game in run.games:
        if game["reward_assessor"] is not None and not game["past_role"]:
            parts[(game["round"] - 1) * STAGES // last].append(game)
    return parts


def mix(games: Sequence[Row]) -> str:
    return " to ".join(str(sum(game["mode"] == mode for game in games)) for mode in MODES)


def earned(games: Sequence[Row], verdict: str) -> str:
    rewards = [game["reward_assessor"] for game in games if game["verdict"] == verdict]
    return f"{fmean(rewards):+.2f} ({len(rewards)})" if rewards else "-"


def flagged(games: Sequence[Row], mode: str) -> str:
    verdicts = [game["verdict"] for game in games if game["mode"] == mode]
    return f"{verdicts.count('INCORRECT')} of {len(verdicts)}"


def noise(games: Sequence[Row], mode: str, wrong: str) -> str:
    decided = [game["still_true"] for game in games if game["mode"] == mode and game["still_true"] in ("true", "false")]
    return f"{sum(each == wrong for each in decided)} of {len(decided)}"


def right_words(games: Sequence[Row]) -> str:
    looked_at = [game["right_words"] for game in games if game.get("right_words") is not None]
    return f"{sum(looked_at)} of {len(looked_at)}" if looked_at else "-"  # runs of an older run.py did not keep it


BY_THIRDS = {
    f"accepted, {' to '.join(MODES)}": mix,
    "INCORRECT earned": partial(earned, verdict="INCORRECT"),
    "CORRECT earned": partial(earned, verdict="CORRECT"),
    **{f"called INCORRECT, {mode} mode": partial(flagged, mode=mode) for mode in MODES},
    "label noise, error mode": partial(noise, mode="error", wrong="true"),
    "label noise, benign mode": partial(noise, mode="benign", wrong="false"),
    "right words written": right_words,
}


def outcomes(run: Run, texts: Sequence[LabelledText]) -> tuple[Outcome, ...]:
    return judge(texts, run.predictions)


def pairwise(runs: Iterable[Run], texts: Sequence[LabelledText]) -> Estimate:
    """Pairs with both twins right, over all seeds."""
    hits = [(hit, name) for run in runs for hit, name in pair_hits(run, texts)]
    return share_estimate([hit for hit, _ in hits], [name for _, name in hits])


def pair_hits(run: Run, texts: Sequence[LabelledText]) -> list[tuple[bool, str]]:
    judged = outcomes(run, texts)
    names = list(dict.fromkeys(one.cluster for one in judged if one.has_twin))
    return list(zip(pairs_right(judged), names, strict=True))


def texts_right(runs: Sequence[Run], texts: Sequence[LabelledText], *, errors: bool) -> Estimate:
    mine = [one for run in runs for one in outcomes(run, texts) if one.is_error == errors]
    return share_estimate([one.right for one in mine], [one.cluster for one in mine])


def against(runs: Sequence[Run], others: Sequence[Run], texts: Sequence[LabelledText]) -> str:
    """The difference in pairs right from another arm's runs with the same seeds, in points, and its p-value."""
    compared = [
        (run, other)
        for run in runs
        for other in others
        if run.arm != other.arm and (run.seed == other.seed or WARMUP in (run.arm, other.arm))
    ]
    if not compared:
        return ""
    after, before = ([hit for pair in compared for hit in pair_hits(pair[side], texts)] for side in (0, 1))
    found = compare([hit for hit, _ in after], [hit for hit, _ in before], [name for _, name in after])
    low, high, value = found.difference.low, found.difference.high, found.difference.value
    assert low is not None and high is not None and value is not None
    return f"{100 * value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f}), {format_p(found.p_value)}"


def percent(estimate: Estimate) -> str:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "-"
    return f"{100 * estimate.value:.1f} ({100 * estimate.low:.1f} to {100 * estimate.high:.1f})"


def _over_seeds(runs: Sequence[Run], name: str) -> str:
    values = [value for run in runs if (value := run.last(name)) is not None]
    if not values:
        return "-"
    return f"{fmean(values):+.3f}" if name.startswith("kl") else f"{100 * fmean(values):.0f}"


def draw(runs: Sequence[Run], path: Path) -> None:
    """The curves by round: one colour an arm, one line a seed, means over five rounds where every round has a value."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    trained = [run for run in runs if run.metrics]
    arms = list(dict.fromkeys(run.arm for run in trained))
    colours = dict(zip(arms, pyplot.colormaps["tab10"].colors, strict=False))
    figure, axes = pyplot.subplots(2, 3, figsize=(13, 7), sharex=True, layout="constrained")
    for axis, (name, title) in zip(axes.flat, CURVES.items(), strict=True):
        for run in trained:
            points = smoothed([(row["round"], row[name]) for row in run.metrics if row.get(name) is not None])
            label = run.arm if run.seed == min(other.seed for other in trained if other.arm == run.arm) else None
            axis.plot(*zip(*points, strict=True), color=colours[run.arm], label=label) if points else None
        axis.set(title=title, ylim=(0, 1), xlabel="round")
        axis.grid(alpha=0.3)
    axes.flat[list(CURVES).index("assessor_accuracy")].legend(fontsize="small")  # every arm has that one
    figure.savefig(path, dpi=100)


def smoothed(points: Sequence[tuple[int, float]], width: int = 5) -> list[tuple[float, float]]:
    if len(points) < 4 * width:
        return [(float(x), y) for x, y in points]
    blocks = [points[i : i + width] for i in range(0, len(points), width)]
    return [(fmean(x for x, _ in block), fmean(y for _, y in block)) for block in blocks]


if __name__ == "__main__":
    main()
