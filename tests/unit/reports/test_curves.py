"""The report's curves: what is drawn, where it breaks, what is left out and what is marked."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.reports.charts_shown import draw_groups, frozen_in_words, with_convergence
from medserl.reports.convergence import Notice, convergence
from medserl.reports.curves import MOST_POINTS, ChartPlan, draw, nice_steps
from tests.synthetic_run import edited_game


def test_a_line_breaks_at_a_missing_value_and_bridges_rounds_that_did_not_measure() -> None:
    plan = ChartPlan("t", "a", "percent", (("x", "x"), ("y", "y")))
    rows = [{"round": r} for r in range(5)]
    for row, value in zip(rows, (0.1, 0.2, None, 0.4, 0.5), strict=True):
        row["x"] = value
    rows[0]["y"], rows[4]["y"] = 0.3, 0.3
    chart = draw(plan, rows)
    assert chart is not None
    assert [re.findall("[ML]", series.shape) for series in chart.series] == [["M", "L", "M", "L"], ["M", "L"]]
    assert chart.series[0].labels == ["10\u00a0%", "20\u00a0%", "–", "40\u00a0%", "50\u00a0%"]


def test_a_notice_is_marked_in_the_chart_of_its_figure_alone() -> None:
    rows = [{"round": r, "kl_injector": 0.1, "entropy": 1.0} for r in range(1, 5)]
    notice = Notice("kl_runaway", 3, "text", "kl_injector")
    flags = {chart.plan.title: chart.flags for group in draw_groups(rows, [notice]) for chart in group.charts}
    (flag,) = flags.pop("Distance from the reference model")
    assert flag.label == "round 3"
    assert set(map(len, flags.values())) == {0}
    chart = draw(ChartPlan("t", "a", "number", (("kl_injector", "x"),)), rows, [notice])
    assert chart is not None
    assert chart.flags[0].place == pytest.approx(chart.readout["x"][2], abs=0.05)


def test_a_stack_leaves_out_what_is_always_0_and_sums_up_the_smallest() -> None:
    plan = ChartPlan("t", "a", "count", tuple((f"m{i}", f"name {i}") for i in range(12)), stacked=True)
    rows = [{"round": r} | {f"m{i}": i for i in range(12)} for r in (1, 2)]
    chart = draw(plan, rows)
    assert chart is not None
    assert [series.name for series in chart.series] == [*(f"name {i}" for i in range(6, 12)), "others"]
    assert chart.series[-1].labels == ["15", "15"]  # 1 to 5
    assert draw(plan, [{"round": 1} | {f"m{i}": 0 for i in range(12)}]) is None


@pytest.mark.parametrize(
    ("keys", "title", "chart"),
    [
        (("frozen_accuracy",), "Validation notes during training", "Against the frozen opponent"),
        (("frozen_recall",), "Validation notes during training", "The frozen opponent by mode"),
        (("label_noise_error",), "How far the labels by mode can be trusted", "Labels that are wrong"),
        (("label_undecided_benign",), "How far the labels by mode can be trusted", "Labels that cannot be checked"),
        (("audit_drug", "audit_neutral"), "How far the labels by mode can be trusted", "What the edits changed"),
        (("vcf_reject_audit_meaning",), "The game", "Why attempts were rejected"),
        (("a_new_figure",), "Other figures", "A new figure"),
        (("loss",), "Learning", "Loss"),
        (("lr",), "Learning", "Learning rate"),
        (("truncated_injector",), "Learning", "Completions cut off"),
        (("no_variance_share",), "Learning", "Rewards that were all alike"),
        (("kl_coef",), "Learning", "Weight of the KL"),
    ],
)
def test_figures_get_their_chart_only_where_the_run_has_them(keys: tuple[str, ...], title: str, chart: str) -> None:
    (group,) = draw_groups([{"round": r} | dict.fromkeys(keys, 0.5) for r in (1, 2)])
    assert (group.title, [one.plan.title for one in group.charts]) == (title, [chart])


def test_counts_and_steps_on_the_way_get_no_chart() -> None:
    row = {"round": 1, "epoch": 0, "games": 8, "accepted_games": 5, "samples": 10, "edits": 5}
    assert draw_groups([row | {"validation_recall": 0.5}]) == []


def test_what_convergence_computes_never_stands_in_for_what_a_round_logged() -> None:
    games = [edited_game(1, "metformin", "insulin")] * 2
    row = {"round": 1, "eval_accuracy": 0.6, "eval_recall": 0.2, "assessor_recall": 0.9, "gold_recall": 0.7}
    (merged,) = with_convergence([row], convergence([row], games))
    assert {key: merged[key] for key in row} == row
    assert merged["recall_gap"] == pytest.approx(0.7)
    assert merged["distinct_ratio"] == 0.5


def test_the_frozen_opponents_labels_are_told_from_the_truth() -> None:
    def frozen(mode: str, still_true: str | None) -> dict[str, object]:
        return {"mode": mode, "still_true": still_true}

    games = [frozen("error", "false"), frozen("error", "true"), frozen("error", "unknown"), frozen("benign", "true")]
    assert frozen_in_words(games).endswith(
        "Where the fact table knows that, 1 of 2 error edits made the note false, and 1 of 1 benign ones left it true."
    )
    assert frozen_in_words([frozen("benign", None)]).endswith(
        "1 edit that the starting policy made before round 1, 0 in error mode and 1 in benign mode. "
        "The mode is their label: what was asked for, not what the note says."
    )


def test_charts_without_figures_are_left_out() -> None:
    assert draw_groups([{"round": 1, "entropy": None, "kl_injector": float("nan")}]) == []
    assert [group.title for group in draw_groups([{"round": 1, "entropy": 1.5}])] == ["Learning"]


def test_long_runs_are_drawn_as_means() -> None:
    chart = draw(ChartPlan("t", "a", "number", (("x", "x"),)), [{"round": r, "x": r % 2} for r in range(1, 1001)])
    assert chart is not None
    assert len(chart.readout["x"]) <= MOST_POINTS
    assert chart.readout["rounds"][0] == "rounds 1–9"


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_axis_steps_are_few_and_inside(low: float, width: float) -> None:
    steps = nice_steps(low, low + width, 5)
    assert len(steps) <= 7
    assert all(low - 1e-6 * width <= step <= low + width * (1 + 1e-6) + 1e-9 for step in steps)
