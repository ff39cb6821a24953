"""One table and two figures out of the raw figures that `run.py` kept.

    python benchmarks/learning/table.py [--experiment sample] [--data FILE] [--against ARM ...] [--seeds 1]

Writes `table.md`, `curves.png` and `gains.png` beside the raw figures; with `--seeds` it only shows the table. Arms
with several seeds are pooled: the texts of all seeds count, and a pair is one cluster over all of them. Intervals are
95 % (Wilson on the effective number of texts). Each arm is compared with the warm-up, and seed by seed with `best` or
the arm that `--against` names, on the same pairs: by McNemar's exact test, or with several seeds a permutation test
that swaps the two pair by pair. The same on the notes that the warm-up wrote as Injector, for the runs that judged
these. Before all this stand the figures that are free of what a model is inclined to say (`unbiased.py`), each arm
compared with its own start and with the arms that `--against` names. The figures need matplotlib (`pip install
'medserl[dev]'`).
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean

import unbiased
from figures import draw_curves, draw_gains
from kept import FEW_ROUNDS, WARMUP, Row, Run, read_runs, rows, test_notes

from medserl.evaluation.metrics import Outcome, judge, pairs_right
from medserl.evaluation.predictions import LabelledText, labelled_texts
from medserl.evaluation.statistics import Estimate, compare, format_p, share_estimate
from medserl.game.roles import MODES

HERE = Path(__file__).resolve().parent
SPLITS = ("test-seen", "test-unseen")
CURVES = {
    "gold_pairwise_accuracy": "gold pairs of the round, both twins right",
    "eval_pairwise_accuracy": "validation pairs, both twins right",
    "vcf_acceptance_rate": "notes that the VCF and the audit accepted",
    "right": "self-made notes, right by mode",
    "flagged": "self-made notes called INCORRECT",
    "noise": "label noise, error mode",
}
OF_ROUNDS = {
    "eval_pairwise_accuracy": "validation pairs right",
    "gold_pairwise_accuracy": "gold pairs right",
    "gold_accuracy": "gold right",
    "assessor_accuracy": "self-made right",
    "assessor_flag_rate": "called INCORRECT",
    "vcf_acceptance_rate": "VCF acceptance",
    "kl_assessor": "KL, Assessor",
    "sft_loss": "SFT loss",
}
NATS = ("kl_assessor", "sft_loss")
BLOCK, FEWEST = 5, 8
"""Rounds of one point of a curve, and the games that a share must be of to be drawn."""
DECIDED = ("true", "false")
STAGES = 3
"""Parts of a run for which the table says what a verdict earned."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", default="sample")
    parser.add_argument(
        "--data", type=Path, help="the notes that the arms were judged on; default: as run.py kept them"
    )
    parser.add_argument("--results", type=Path, default=HERE / "results", help="where run.py kept the figures")
    parser.add_argument(
        "--against", nargs="+", default=["best"], metavar="ARM", help="compare with these arms, besides the start"
    )
    parser.add_argument("--seeds", nargs="+", type=int, help="runs with these seeds alone; nothing is written")
    options = parser.parse_args()
    folder = options.results / options.experiment
    runs = [run for run in read_runs(folder) if run.is_start or options.seeds is None or run.seed in options.seeds]
    texts, games = labelled_texts(test_notes(folder, options.data)), rows(folder / "frozen_notes.jsonl.xz")
    table = markdown(runs, texts, games, options.against)
    print(table)
    if options.seeds is None:
        (folder / "table.md").write_text(table, encoding="utf-8")
        draw(runs, texts, folder)


def markdown(runs: Sequence[Run], texts: Sequence[LabelledText], frozen: Sequence[Row], others: Sequence[str]) -> str:
    arms = by_arm(runs)
    trained = {arm: mine for arm, mine in arms.items() if not mine[0].is_start}
    other = others[0]
    return "\n".join(
        [
            *free_of_bias(arms, texts, others),
            *on_test_notes(arms, texts, other),
            *on_frozen_notes(arms, texts, frozen, other),
            *of_rounds(trained),
            *of_games(trained),
        ]
    )


def free_of_bias(arms: Mapping[str, list[Run]], texts: Sequence[LabelledText], others: Sequence[str]) -> list[str]:
    said = {arm: [run.predictions for run in mine] for arm, mine in arms.items()}
    starts = {arm: mine[0].start for arm, mine in arms.items() if not mine[0].is_start}
    lines = []
    for title, columns, each in unbiased.rows(said, starts, texts, others):
        lines += table_of(columns, each, f"Free of bias: {title}.")
    return lines


def on_test_notes(arms: Mapping[str, list[Run]], texts: Sequence[LabelledText], other: str) -> list[str]:
    columns = ["arm", "seeds", "pairs right, seen facts", "unseen facts", "all"]
    columns += ["against the warm-up", f"against {other}", "recall", "specificity"]
    lines = []
    for arm, mine in arms.items():
        splits = [[text for text in texts if text.split == split] for split in SPLITS]
        shares = [percent(pairwise(mine, some)) for some in (*splits, texts)]
        right = [percent(texts_right(mine, texts, errors=errors)) for errors in (True, False)]
        differences = [against(mine, arms.get(name, []), texts) for name in (WARMUP, other)]
        lines.append([arm, len(mine), *shares, *differences, *right])
    return table_of(columns, lines)


def on_frozen_notes(
    arms: Mapping[str, list[Run]], texts: Sequence[LabelledText], games: Sequence[Row], other: str
) -> list[str]:
    """A pair is a test note as it is and with an error that the warm-up's Injector put in."""
    as_it_is = {text.pair_id or text.text_id: text for text in texts if not text.is_error}
    edits = [
        LabelledText(game["note_id"], "", game["incorrect_note"] is not None, pair_id=game["of_note"]) for game in games
    ]
    errors, benign = [text for text in edits if text.is_error], [text for text in edits if not text.is_error]
    pairs = [*errors, *(replace(as_it_is[name], pair_id=name) for text in errors if (name := text.pair_id))]
    judged = {
        arm: [replace(run, predictions=[*run.predictions, *run.frozen]) for run in mine if run.frozen]
        for arm, mine in arms.items()
        if any(run.frozen for run in mine)
    }
    columns = ["arm", "seeds", "pairs right", "against the warm-up", f"against {other}"]
    columns += [f"{len(errors)} error edits called INCORRECT", f"{len(benign)} benign edits called CORRECT"]
    columns += ["modes told apart"]
    modes = {text.text_id: MODES[0] if text.is_error else MODES[1] for text in edits}
    lines = []
    for arm, mine in judged.items():
        differences = [against(mine, judged.get(name, []), pairs) for name in (WARMUP, other)]
        right = [percent(texts_right(mine, some, errors=some is errors)) for some in (errors, benign)]
        verdicts = [{"mode": modes[one.text_id], "verdict": one.verdict} for run in mine for one in run.frozen]
        lines.append([arm, len(mine), percent(pairwise(mine, pairs)), *differences, *right, told_apart(verdicts)])
    said = f"Test notes as they are, and edited by the frozen warm-up as Injector. {truth(games)}"
    return table_of(columns, lines, said) if lines else []


def of_rounds(arms: Mapping[str, list[Run]]) -> list[str]:
    lines = []
    for arm, mine in arms.items():
        lengths = [", ".join(f"{getattr(run, name):.0f}" for run in mine) for name in ("rounds", "minutes")]
        lengths.append(", ".join(f"{run.tokens / 1e6:.2f}" for run in mine))
        lines.append([arm, *lengths, *(from_first_to_last(mine, name) for name in OF_ROUNDS)])
    said = (
        f"First {FEW_ROUNDS} rounds to last {FEW_ROUNDS}, of short runs the halves; validation before to after. "
        "Means over seeds with both."
    )
    return table_of(
        ["arm", "rounds", "minutes of rounds", "million tokens of updates", *OF_ROUNDS.values()], lines, said
    )


def of_games(arms: Mapping[str, list[Run]]) -> list[str]:
    said = (
        "Accepted games by thirds of the run. What a verdict earned the Assessor: mean reward, number of verdicts; one "
        "that cannot tell notes apart learns the verdict that earns more. Modes told apart: whether the shares called "
        "INCORRECT differ by mode (Fisher's exact test). Label noise: labels that are wrong, of those that the truth "
        "oracle decides. Right words: error games in which the Assessor wrote what the edit took out."
    )
    lines = []
    for arm, mine in arms.items():
        parts = list(zip(*map(thirds, mine), strict=True))
        games = [[game for run in part for game in run] for part in parts]
        lines += [[arm, name, *map(figure, games)] for name, figure in BY_THIRDS.items()]
    return table_of(["arm", "figure", "first third", "second", "last"], lines, said)


def table_of(columns: Sequence[str], lines: Iterable[Sequence[object]], said: str = "") -> list[str]:
    """A table of Markdown, with what is said of it before, and an empty line after."""
    cells = [columns, ["---"] * len(columns), *lines]
    return [*([said, ""] if said else []), *(f"| {' | '.join(map(str, line))} |" for line in cells), ""]


def thirds(run: Run) -> list[list[Row]]:
    """The accepted games in each part of the run."""
    parts: list[list[Row]] = [[] for _ in range(STAGES)]
    last = max((game["round"] for game in run.games), default=0)
    for game in run.games:
        if game.get("accepted", is_judged(game)):  # an older run.py did not keep it
            parts[(game["round"] - 1) * STAGES // last].append(game)
    return parts


def mix(games: Sequence[Row]) -> str:
    return " to ".join(str(sum(game["mode"] == mode for game in games)) for mode in MODES)


def earned(games: Sequence[Row], verdict: str) -> str:
    rewards = [game["reward_assessor"] for game in games if game["verdict"] == verdict]
    return f"{fmean(rewards):+.2f} ({len(rewards)})" if rewards else "-"


def told_apart(games: Sequence[Row]) -> str:
    from scipy.stats import fisher_exact

    said = [
        [flag for game in games if game["mode"] == mode and (flag := is_flagged(game)) is not None] for mode in MODES
    ]
    if not all(said):
        return "-"
    return format_p(float(fisher_exact([[sum(each), len(each) - sum(each)] for each in said]).pvalue))


def truth(games: Sequence[Row]) -> str:
    """What the truth oracle says of the labels of frozen games."""
    judged = (label_is_wrong({"mode": MODES[game["incorrect_note"] is None], **game}) for game in games)
    known = [wrong for wrong in judged if wrong is not None]
    return f"The truth oracle decides {len(known)} of their {len(games)} labels, and {sum(known)} of these are wrong."


def share(games: Sequence[Row], of: Callable[[Row], bool | None], mode: str | None = None) -> str:
    """Of how many games it is so; None is of neither."""
    values = [of(game) for game in games if mode in (None, game["mode"])]
    looked_at = [value for value in values if value is not None]
    return f"{sum(looked_at)} of {len(looked_at)}" if looked_at else "-"


def is_judged(game: Row) -> bool:
    """Whether an Assessor was asked: none is where examples alone are learnt."""
    return game.get("reward_assessor", 0.0) is not None


def is_flagged(game: Row) -> bool | None:
    return bool(game["verdict"] == "INCORRECT") if is_judged(game) else None


def is_right(game: Row) -> bool | None:
    if not is_judged(game):
        return None
    return game["verdict"] is not None and is_flagged(game) == (game["mode"] == "error")


def label_is_wrong(game: Row) -> bool | None:
    """Whether an error game's note is still true, or a benign one's is not; None where the oracle does not decide."""
    return (game["still_true"] == "true") == (game["mode"] == "error") if game["still_true"] in DECIDED else None


def flagged_in_right_words(game: Row) -> bool | None:
    return is_flagged(game) if game.get("right_words") else None  # runs of an older run.py did not keep them


BY_THIRDS = {
    f"accepted, {' to '.join(MODES)}": mix,
    "INCORRECT earned": partial(earned, verdict="INCORRECT"),
    "CORRECT earned": partial(earned, verdict="CORRECT"),
    **{f"called INCORRECT, {mode} mode": partial(share, of=is_flagged, mode=mode) for mode in MODES},
    "right by mode": partial(share, of=is_right),
    "modes told apart": told_apart,
    **{f"label noise, {mode} mode": partial(share, of=label_is_wrong, mode=mode) for mode in MODES},
    "right words written": partial(share, of=lambda game: game.get("right_words")),
    "called INCORRECT where they were": partial(share, of=flagged_in_right_words),
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


def from_first_to_last(runs: Sequence[Run], name: str) -> str:
    ends = [(first, last) for run in runs if None not in ((first := run.first(name)), (last := run.last(name)))]
    means = [fmean(end) for end in zip(*ends, strict=True)]
    return " to ".join(f"{mean:.2f}" if name in NATS else f"{100 * mean:.0f}" for mean in means) or "-"


def draw(runs: Sequence[Run], texts: Sequence[LabelledText], folder: Path) -> None:
    """The curves by round, and where arms were judged on splits what each gained."""
    import matplotlib

    matplotlib.use("Agg")
    arms = by_arm(run for run in runs if run.metrics)
    lines = {
        title: {arm: [points(run, name) for run in mine] for arm, mine in arms.items()}
        for name, title in CURVES.items()
    }
    draw_curves(lines, folder / "curves.png")
    said = {arm: [run.predictions for run in mine] for arm, mine in by_arm(runs).items()}
    if gains := unbiased.gains(said, {arm: mine[0].start for arm, mine in arms.items()}, texts):
        draw_gains(gains, folder / "gains.png")


def by_arm(runs: Iterable[Run]) -> dict[str, list[Run]]:
    arms: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        arms[run.arm].append(run)
    return arms


def points(run: Run, name: str) -> list[tuple[float, float]]:
    """Round and mean of each block of rounds; of games, where there are enough."""
    if name in OF_GAMES:
        each = [(game["round"], OF_GAMES[name](game)) for part in thirds(run) for game in part]
    else:
        each = [(row["round"], row.get(name)) for row in run.metrics]
    blocks: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for number, value in each:
        if value is not None:
            blocks[(number - 1) // BLOCK].append((number, value))
    fewest = FEWEST if name in OF_GAMES else 1
    return [(fmean(x for x, _ in some), fmean(y for _, y in some)) for some in blocks.values() if len(some) >= fewest]


OF_GAMES: dict[str, Callable[[Row], bool | None]] = {
    "right": is_right,
    "flagged": is_flagged,
    "noise": lambda game: label_is_wrong(game) if game["mode"] == "error" else None,
}


if __name__ == "__main__":
    main()
