"""`medserl report --without-notes`: every figure, and nothing of a note, of its id, of a completion, of a folder."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.cli import main
from medserl.reports.html import write_report
from medserl.reports.run_files import read_run
from medserl.reports.shareable import without_notes
from medserl.runs.runlog import EPISODES, read_rows
from tests.places import ROOT
from tests.report_page import Page
from tests.synthetic_run import add_official, write_run


def secrets_of(run: Path) -> set[str]:
    """All that the games and held-out notes of a run say and nobody else may read: texts, pieces of them, ids."""
    found: set[str] = set()

    def gather(value: object, name: str = "") -> None:
        if isinstance(value, dict):
            for key, part in value.items():
                gather(part, key)
        elif isinstance(value, list):
            for part in value:
                gather(part, name)
        elif isinstance(value, str) and name not in {"mode", "reason", "verdict", "error_type", "still_true", "role"}:
            found.update(piece for piece in re.split(r"[\n<>]", value) if len(piece) > 12 or name == "note_id")

    for path in (run / EPISODES, run / "frozen_opponent.jsonl"):
        for row in read_rows(path) if path.is_file() else []:
            gather(row)
    provenance = run / "provenance.json"
    if provenance.is_file():
        gather(json.loads(provenance.read_text("utf-8"))["notes"].get("held_out", []), "note_id")
    return found


@pytest.fixture(scope="module")
def own_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a person's own notes, part of them held out, played through the command line without a model."""
    folder = tmp_path_factory.mktemp("Mrs Smith") / "ward 3"
    folder.mkdir()
    rows = [
        f"MRN-{4100 + i},The patient Xaver{i} Qux has type 2 diabetes. He takes metformin {i}00 mg. He lives in Zzyzx."
        for i in range(30)
    ]
    (folder / "notes.csv").write_text("nr,note\n" + "\n".join(rows) + "\n", encoding="utf-8")
    run = folder / "run"
    main(
        ["train", "--engine", "scripted", "--no-tensorboard", "--prompt-data", str(folder / "notes.csv"), "--id-column",
         "nr", "--rollout-batch-size", "8", "--max-rounds", "3", "--output-dir", str(run)]
    )  # fmt: skip
    return run


def test_nothing_of_a_note_is_in_it(own_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["report", str(own_run), "--without-notes"])
    path = own_run / "report_without_notes.html"
    assert str(path) in "".join(capsys.readouterr().out.split("\n"))
    secrets = secrets_of(own_run)
    assert len(secrets) > 60 and any(secret.startswith("MRN-") for secret in secrets)
    page = path.read_text(encoding="utf-8")
    assert [secret for secret in secrets if secret in page] == []
    for part in ("MRN", "Xaver", "Zzyzx", "final_answer", "Mrs Smith", "ward 3", 'id="games-data"'):
        assert part not in page
    assert not (own_run / "report.html").exists()  # a report with games is another file
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_same_run_with_notes_has_them(own_run: Path, tmp_path: Path) -> None:
    """The control: the words sought above are in an ordinary report."""
    page = write_report(own_run, tmp_path / "with.html").read_text(encoding="utf-8")
    for part in ("MRN", "Xaver", "Zzyzx", "final_answer", "Mrs Smith", "ward 3", 'id="games-data"'):
        assert part in page


def test_every_figure_is_in_it(own_run: Path, tmp_path: Path) -> None:
    full = Page(write_report(own_run, tmp_path / "full.html"))
    bare = Page(write_report(own_run, tmp_path / "bare.html", with_notes=False))
    charts = [sum(tag == "figure" for tag, _ in page.tags) for page in (full, bare)]
    assert charts[0] == charts[1] > 5
    for section in ("Summary", "The run's own games", "Curves by round"):
        shown = [re.findall(r"\d+(?:\.\d+)?", page.text.partition(section)[2][:600]) for page in (full, bare)]
        assert shown[0][:20] == shown[1][:20]
    assert bare.games == [] and "so that this file can be handed on" in bare.text
    assert "notes.csv" in bare.text and "entries" in bare.text


def test_an_evaluated_run_keeps_its_tables(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rounds=2, games=4, adapter="/home/her/outputs/warm", model="Qwen/Qwen3-4B")
    add_official(run / "eval")
    page = Page(write_report(run, with_notes=False))
    assert "MEDEC's official scores" in page.text and "65.5 %" in page.text
    assert "Qwen/Qwen3-4B" in page.text and "the adapter warm" in page.text and "/home/her" not in page.text
    assert [
        secret for secret in secrets_of(run) if secret in (run / "report_without_notes.html").read_text("utf-8")
    ] == []


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("/home/her/ward 3/notes.csv", "split of notes.csv (12 notes)"),
        (r"C:\Users\her\notes.csv", "split of notes.csv (12 notes)"),
        ("~/her/notes.csv", "split of notes.csv (12 notes)"),
        ("her/notes.csv", "split of notes.csv (12 notes)"),
        ("sample", "split of sample (12 notes)"),
        ("hf:acme/notes?split=train", "split of hf:acme/notes?split=train (12 notes)"),
    ],
)
def test_files_are_named_and_never_located(tmp_path: Path, source: str, told: str) -> None:
    run = write_run(tmp_path / "run", rounds=1, games=2, prompt_data=source)
    notes = {"validation": f"split of {source} (12 notes)", "held_out": ["MRN-1", "MRN-2"], "playable": 5}
    (run / "provenance.json").write_text(json.dumps({"notes": notes}), encoding="utf-8")
    bare = without_notes(read_run(run))
    assert bare.provenance["notes"] == {"validation": told, "held_out": "2 entries", "playable": 5}
    assert "her" not in str(bare.settings["prompt_data"])
    assert "her" not in Page(write_report(run, with_notes=False)).text.split()


_NAME = st.text("abcXYZ 01", min_size=3, max_size=12).map(lambda name: f"f{name.strip()}")


@given(st.lists(_NAME, min_size=1, max_size=4), _NAME, st.sampled_from(["/", "~/", "C:\\"]))
def test_no_folder_of_an_absolute_path_is_left_in_a_sentence(folders: list[str], name: str, root: str) -> None:
    from medserl.reports.shareable import _words

    path = root + ("\\" if "\\" in root else "/").join([*folders, f"{name}.csv"])
    for paths in ([], [path]):
        assert _words(f"split of {path} (12 notes)", paths) == f"split of {name}.csv (12 notes)"


# -- docs/privacy.md -----------------------------------------------------------------------------------------------

PAGE = ROOT / "docs" / "privacy.md"
_ROW = re.compile(r"\| (`[^|]+`) \| ([^|]+) \| ([^|]+) \|")


def promises() -> dict[str, tuple[bool, bool]]:
    """Of each file or folder of a run: whether the page says that it is free of text, and of ids."""
    section = PAGE.read_text(encoding="utf-8").partition("In a run folder")[2].partition("Outside of run folders")[0]
    return {
        name.rstrip("/"): (row[2] == "no", row[3] == "no")
        for row in _ROW.finditer(section)
        for name in re.findall(r"`([^`]+)`", row[1])
    }


def test_every_file_of_a_run_holds_what_the_privacy_page_says(own_run: Path) -> None:
    main(["train", "--resume", str(own_run), "--max-rounds", "4"])
    write_report(own_run)
    write_report(own_run, with_notes=False)
    told = promises()
    assert len(told) >= 14
    found = {"text": set(), "ids": set()}
    for path in own_run.rglob("*"):
        if not path.is_file() or path.name.endswith(".lock"):
            continue
        place = path.relative_to(own_run).as_posix()
        name = next((name for name in told if place == name or place.startswith(f"{name}/")), None)
        assert name is not None, f"docs/privacy.md does not name {place}"
        content = path.read_text(encoding="utf-8", errors="replace")
        for kind, is_free, words in (("text", told[name][0], ("Xaver", "Zzyzx")), ("ids", told[name][1], ("MRN-",))):
            if any(word in content for word in words):
                found[kind].add(name)
                assert not is_free, f"docs/privacy.md says that {name} holds no {kind}"
    assert {"episodes.jsonl", "report.html"} <= found["text"] and "provenance.json" in found["ids"]
