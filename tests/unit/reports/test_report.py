"""The report of a run: complete runs, runs with nearly nothing in them, hostile notes, long runs, wrong folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.config import Settings
from medserl.errors import RunError
from medserl.game.text import normalize
from medserl.reports.games import choose_games, game_shown, marked
from medserl.reports.html import script_json, write_report
from medserl.reports.own_games import count, periods
from medserl.runs.runlog import EPISODES, METRICS, read_rows
from tests.report_page import Page
from tests.synthetic_run import (
    HOSTILE,
    episode,
    write_config,
    write_evaluation,
    write_rows,
    write_run,
)

NOTE = "The patient has type 2 diabetes. Metformin was started."
ERROR = "The patient has type 1 diabetes. Metformin was started."


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(write_report(write_run(tmp_path_factory.mktemp("runs") / "full")))


def test_a_complete_run_tells_its_story(full: Page) -> None:
    for words in (
        "Self-play made the model better at finding errors: accuracy 52.0 % → 65.5 % on the texts of the evaluation, "
        "p = 0.003; it learnt from play rewards of both roles and a KL penalty towards the reference model "
        "(weight 0.01), starting from the warm-up adapter shipped with MedSeRL",
        "of 200 texts: 52.0 % (95 % interval 45.1–58.6 %) by the warmed-up model, 65.5 % (95 %",
        "The trained model is not distinguishable from the warmed-up model in pairs right (p = 0.21).",
        "The trained model is better than the majority answer by 15.5 points of texts right (p < 0.001).",
        "warmed-up model +13.5 points (5.5 to 21.5) p = 0.003 +5.4 points (−2.6 to 13.4) p = 0.21",
        "Against a frozen opponent, 24 edits that the starting policy made of the validation notes and that stay the",
        "smollm2-135m played 384 games in 12 rounds",
        "Invented patients, for developing software, not for clinical use",
        "Not a medical device",
        "All 384 games of the run.",
        "medserl 0.1.0, git 0123456789ab",
        "first 3 rounds",
        "rollout_batch_size",
    ):
        assert words in full.text
    assert len(full.games) == 384
    classes = [(attributes.get("class") or "").split() for tag, attributes in full.tags if tag == "figure"]
    assert sum("chart" in names for names in classes) == 29
    assert sum("panel" in names for names in classes) == 2


def test_the_page_asks_the_network_for_nothing(full: Page) -> None:
    for tag, attributes in full.tags:
        assert tag not in ("iframe", "object", "embed", "img", "base")
        assert not attributes.get("src")
        assert (attributes.get("href") or "#").startswith(("#", "data:,"))
    policy = next(a["content"] for tag, a in full.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy and policy.startswith("default-src 'none'")


def test_the_report_goes_where_it_is_asked_to(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rounds=1, games=2)
    assert write_report(run) == run / "report.html"
    assert write_report(run, tmp_path / "other.html").is_file()
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize(
    ("source", "label"), [("sample", True), ("data/medec_train_sample.jsonl", True), ("medec_train.jsonl", False)]
)
def test_only_invented_patients_are_called_invented(tmp_path: Path, source: str, label: bool) -> None:
    page = Page(write_report(write_run(tmp_path / "run", rounds=1, games=2, prompt_data=source)))
    assert ("Invented patients" in page.text) is label
    assert "Not a medical device" in page.text


@pytest.mark.parametrize(
    ("adapter", "told"),
    [
        ("auto", "from the warm-up adapter shipped with MedSeRL"),
        ("none", "from the model without an adapter"),
        ("outputs/mine", "from the adapter outputs/mine"),
    ],
)
def test_the_report_says_what_training_started_from(tmp_path: Path, adapter: str, told: str) -> None:
    run = write_run(tmp_path / "run", rounds=1, games=2, adapter=adapter)
    assert told in Page(write_report(run)).text


def test_one_round_without_evaluation(tmp_path: Path) -> None:
    page = Page(write_report(write_run(tmp_path / "run", rounds=1, games=4, evaluation=False)))
    assert "No notes were judged before and after training" in page.text
    assert "medserl evaluate" in page.text
    assert "first round" not in page.text


def test_a_run_that_has_not_played_yet(tmp_path: Path) -> None:
    write_config(tmp_path, Settings())
    page = Page(write_report(tmp_path))
    assert "No round has been played yet" in page.text
    assert "No game was logged" in page.text
    assert page.games == []


def test_rounds_full_of_nothing_are_shown(tmp_path: Path) -> None:
    write_config(tmp_path, Settings())
    silent = {"round": 1, "games": 2, "accepted_games": 0, "vcf_acceptance_rate": 0.0, "assessor_accuracy": None}
    write_rows(tmp_path / METRICS, [silent, silent | {"round": 2}])
    write_rows(tmp_path / EPISODES, [episode(NOTE, [None, NOTE]).record(1), episode(NOTE, []).record(2)])
    page = Page(write_report(tmp_path))
    assert "0 of 4 games" in page.text
    assert [game["outcome"] for game in page.games] == ["no_note", "no_note"]
    assert page.games[0]["attempts"][1]["reason"] == "no_change"


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    evil = f"The patient has {HOSTILE} today. Metformin was started."
    run = write_run(tmp_path / "<b>run&amp;", rounds=1, games=2)
    game = episode(evil, [f"{evil} {HOSTILE}", evil.replace("Metformin", "Insulin")], said=HOSTILE)
    write_rows(run / EPISODES, [game.record(1)])
    page = Page(write_report(run))
    assert page.games[0]["assessor"] == HOSTILE
    assert "".join(page.games[0]["original"]) == evil
    assert "<b>run&amp;" in page.text
    assert "img" not in {tag for tag, _ in page.tags}
    assert sum(tag == "script" for tag, _ in page.tags) == 2


@given(st.text())
def test_embedded_json_cannot_end_its_element(text: str) -> None:
    embedded = script_json([{"note": text}])
    assert "<" not in embedded
    assert json.loads(embedded) == [{"note": text}]


def test_half_a_surrogate_pair_does_not_stop_the_report(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rounds=1, games=2)
    row = episode(NOTE, [ERROR]).record(1)
    (run / EPISODES).write_text(json.dumps(row | {"assessor_completion": "\ud83d"}) + "\n", encoding="utf-8")
    assert Page(write_report(run)).games[0]["assessor"] == "?"


def test_ten_thousand_games_make_less_than_ten_megabytes(tmp_path: Path) -> None:
    sentence = "The patient was seen again and the plan of treatment was discussed at length. "
    notes = [(f"Note {i}. {NOTE} {sentence * 15}", f"Note {i}. {ERROR} {sentence * 15}") for i in range(50)]
    run = write_run(tmp_path / "run", rounds=1, games=32, notes=notes, evaluation=False)
    for name in (METRICS, EPISODES):
        rows = read_rows(run / name)
        write_rows(run / name, [row | {"round": number} for number in range(1, 314) for row in rows])
    report = write_report(run)
    page = Page(report)
    assert report.stat().st_size < 10_000_000
    assert f"{len(page.games):,} of 10,016 games, a random share of every round" in page.text
    assert {game["round"] for game in page.games} == set(range(1, 314))
    assert "every point is the mean of 3 rounds" in page.text


def test_a_sample_of_games_takes_alike_from_every_round() -> None:
    rows = [episode(NOTE, [ERROR]).record(1 + i % 4) for i in range(400)]
    size = len(json.dumps(game_shown(rows[0])).encode())
    shown = choose_games(rows, budget=43 * size)
    assert shown.sampled
    assert [sum(g["round"] == r for g in shown.games) for r in (1, 2, 3, 4)] == [11, 11, 11, 10]
    assert shown == choose_games(rows, budget=43 * size)
    assert not choose_games(rows).sampled


def test_a_game_shows_its_edit_and_its_winner() -> None:
    game = game_shown(episode(NOTE, [None, ERROR], said="final_answer: CORRECT").record(3))
    assert game["original"] == ["The patient has type ", "2", " diabetes. Metformin was started."]
    assert game["modified"] == ["The patient has type ", "1", " diabetes. Metformin was started."]
    assert game["outcome"] == "injector"
    assert [attempt["reason"] for attempt in game["attempts"]] == ["format", None]
    assert game["attempts"][1]["edits"] == [["2", "1"]]
    assert game["rewards"] == [1.0, -1.0]


@pytest.mark.parametrize(
    ("mode", "said", "ending"),
    [
        ("error", "final_answer: INCORRECT", "assessor"),
        ("benign", "final_answer: INCORRECT", "injector"),
        ("benign", "final_answer: CORRECT", "assessor"),
        ("benign", "fine", "no_verdict"),
    ],
)
def test_outcomes(mode: str, said: str, ending: str) -> None:
    assert game_shown(episode(NOTE, [ERROR], mode=mode, said=said).record(1))["outcome"] == ending


@pytest.mark.parametrize(
    ("mode", "still_true", "label"),
    [
        ("error", "false", "right"),
        ("error", "true", "wrong"),
        ("benign", "true", "right"),
        ("benign", "false", "wrong"),
        ("benign", "unknown", "unknown"),
        ("error", None, None),
    ],
)
def test_a_game_says_whether_the_fact_table_agrees_with_its_label(
    mode: str, still_true: str | None, label: str | None
) -> None:
    row = episode(NOTE, [ERROR], mode=mode).record(1)
    assert game_shown(row | {"still_true": still_true})["label"] == label
    del row["still_true"]  # runs of before the fact table was asked
    assert game_shown(row)["label"] is None


@given(st.text(), st.lists(st.integers(0, 40), max_size=6))
def test_marking_loses_no_letter(text: str, cuts: list[int]) -> None:
    text = normalize(text)
    places = sorted(min(cut, len(text)) for cut in cuts[: len(cuts) // 2 * 2])
    spans = list(zip(places[::2], places[1::2], strict=True))
    pieces = marked(text, spans)
    assert "".join(pieces) == text
    assert pieces[1::2] == [text[start:end] for start, end in spans]


def test_long_completions_are_cut_and_say_so() -> None:
    game = game_shown(episode(NOTE, [ERROR], said="word " * 1000 + "end").record(1))
    assert game["assessor"].endswith("(1,003 more characters are in episodes.jsonl)")


def test_shares_of_own_games_are_counted_with_wilson_intervals() -> None:
    games = [episode(NOTE, [ERROR], said="final_answer: INCORRECT").record(1)] * 3
    games += [episode(NOTE, [ERROR], said="final_answer: CORRECT").record(1), episode(NOTE, [None]).record(1)]
    accepted, accuracy, recall, specificity, silent = count(games)
    assert (accepted.value, accepted.n) == (0.8, 5)
    assert (accuracy.value, recall.value) == (0.75, 0.75)
    assert (recall.low, recall.high) == pytest.approx((0.30064, 0.95441), abs=1e-5)
    assert (specificity.value, specificity.n) == (None, 0)
    assert silent.value == 0.0


def test_periods_are_the_first_and_last_quarter() -> None:
    rows = [episode(NOTE, [ERROR]).record(r) for r in range(1, 9)]
    named = {period.name: [row["round"] for row in period.games] for period in periods(rows)}
    assert named == {"first 2 rounds": [1, 2], "last 2 rounds": [7, 8], "all rounds": list(range(1, 9))}


def test_what_convergence_finds_is_noticed_and_drawn(tmp_path: Path) -> None:
    write_config(tmp_path, Settings())
    rows = [{"round": r, "games": 1, "assessor_flag_rate": 1.0, "no_verdict_rate": 0.0} for r in (1, 2, 3)]
    write_rows(tmp_path / METRICS, rows)
    write_rows(tmp_path / EPISODES, [episode(NOTE, [ERROR]).record(r) for r in (1, 2, 3)])
    text = Page(write_report(tmp_path)).text
    assert "Worth a look From round 1 on the Assessor's answer is INCORRECT" in text
    assert "Variety of the edits" in text


def test_recorded_versions_and_hashes_are_shown(tmp_path: Path) -> None:
    write_config(tmp_path, Settings())
    assert "not recorded by this run" in Page(write_report(tmp_path)).text
    record = {"versions": {"torch": "2.13.0"}, "sha256": {"medec_train.jsonl": "0a1b2c"}}
    (tmp_path / "provenance.json").write_text(json.dumps(record), encoding="utf-8")
    text = Page(write_report(tmp_path)).text
    assert "versions.torch 2.13.0" in text
    assert "sha256.medec_train.jsonl 0a1b2c" in text


# -- folders that hold no run, and broken files


def test_wrong_folders_get_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such folder"):
        write_report(tmp_path / "absent")
    with pytest.raises(RunError, match=r"no config\.toml there"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.toml", "a = = 1", "cannot be read as TOML"),
        (METRICS, '{"loss": 1}\n', "line 1 has no 'round'"),
        (EPISODES, '{"round": 1}\n', "line 1 has no 'mode'"),
        ("eval/table.json", "{}", "expected a JSON list"),
        ("eval/table.json", "[", "is no JSON"),
        ("eval/table.json", '[{"system": "base"}]', "entry 1 has no"),
        ("eval/comparisons.json", "[3]", "entry 1 has no"),
        ("eval/evaluation.json", "[]", "expected a JSON dict"),
        ("frozen_opponent.jsonl", "{}\n", "line 1 has no 'mode'"),
    ],
)
def test_broken_files_get_one_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    write_config(tmp_path, Settings())
    write_evaluation(tmp_path / "eval")
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(RunError, match=message) as caught:
        write_report(tmp_path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [METRICS, EPISODES])
def test_a_broken_line_is_left_out_and_named(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    run = write_run(tmp_path / "run")
    lines = (run / name).read_bytes().split(b"\n")
    lines[2] = lines[2][:40]
    (run / name).write_bytes(b"\n".join(lines))
    write_report(run)
    assert f"{run / name}: line 3 is no record and was left out (1 of them)" in caplog.text


@pytest.mark.parametrize("place", ["absent/report.html", ".", "run", "/proc/report.html"])
def test_a_place_that_cannot_be_written_gets_one_line(tmp_path: Path, place: str) -> None:
    """A folder, one that is not there, and one where nobody may write, root included."""
    (tmp_path / "run").mkdir()
    write_config(tmp_path / "run", Settings())
    with pytest.raises(RunError, match=r"the report cannot be written there \(.*--output FILE") as caught:
        write_report(tmp_path / "run", tmp_path / place)
    assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"run"} and not (tmp_path / "run" / "report.html").exists()


def test_a_report_is_its_owners_alone(tmp_path: Path) -> None:
    write_config(tmp_path, Settings())
    assert write_report(tmp_path).stat().st_mode & 0o777 == 0o600
