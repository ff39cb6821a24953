"""What `import medserl` gives, and what a trainer made from Python does with what it is given."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import medserl
from medserl import Assessor, MedSeRLTrainer, Note, Settings, load_notes, sample_notes
from medserl.commands import train
from medserl.data.given import given_notes, notes_to_judge
from medserl.data.readers import read_notes
from medserl.data.writing import note_lines
from medserl.engines.scripted import ScriptedEngine
from medserl.errors import ConfigError, DataError, RunError
from medserl.runs.runlog import read_rows, read_settings

QUICK: dict[str, Any] = {"engine": "scripted", "rollout_batch_size": 4, "tensorboard": False, "frozen_games": 0}
TEXT = "The patient has type {} diabetes. It is controlled with metformin. He feels well."
TEXTS = [TEXT.format(number) for number in range(6)]


# -- the names ------------------------------------------------------------------------------------------------


def test_each_public_name_is_one_thing_and_a_type_checker_sees_the_same() -> None:
    assert sorted(medserl.__all__) == sorted(medserl._HOMES)
    source = Path(medserl.__file__).read_text(encoding="utf-8")
    for name, home in medserl._HOMES.items():
        value = getattr(medserl, name)
        assert value.__module__ == home and value.__doc__
        assert any(f"from {home} import" in line and name in line for line in source.splitlines())
    assert set(medserl.__all__) <= set(dir(medserl))


def test_a_name_that_is_not_there_is_told_as_any_module_does() -> None:
    with pytest.raises(AttributeError, match="'medserl' has no attribute 'Trainer'"):
        medserl.Trainer  # type: ignore[attr-defined]  # noqa: B018


def test_the_package_says_where_to_begin() -> None:
    assert medserl.__doc__ is not None
    assert all(name in medserl.__doc__ for name in ("MedSeRLTrainer", "Assessor", "load_notes", "docs/python.md"))


@pytest.mark.parametrize("code", ["import medserl", "from medserl import apply_vcf, load_notes, Note, Settings"])
def test_it_costs_nothing_to_import(code: str) -> None:
    heavy = {"torch", "transformers", "pandas", "pyarrow", "datasets", "scipy", "sklearn"}
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not heavy & set(done.stdout.split())


# -- notes ----------------------------------------------------------------------------------------------------


def test_a_list_is_what_a_file_of_the_same_notes_is(tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        notes = sample_notes(split)  # type: ignore[arg-type]
        path = tmp_path / f"{split}.jsonl"
        path.write_text(note_lines(notes), encoding="utf-8")
        assert load_notes(path) == notes == list(given_notes(notes).notes)
        assert read_notes(path).sha256 == given_notes(notes).sha256


_TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=2, max_size=60).filter(
    lambda text: text.strip() and text.isprintable()
)


@given(st.lists(st.tuples(_TEXTS, st.none() | _TEXTS), min_size=1, max_size=4), st.booleans())
def test_notes_survive_being_kept(tmp_path_factory: Any, texts: list[tuple[str, str | None]], labelled: bool) -> None:
    made = [
        Note(f"n{i}", f"It is so: {text}", other and f"It is not: {other}", labelled=labelled or other is not None)
        for i, (text, other) in enumerate(texts)
    ]
    kinds = {note.labelled for note in made}
    path = tmp_path_factory.mktemp("kept") / "notes.jsonl"
    path.write_text(note_lines(made), encoding="utf-8")
    if len(kinds) == 1:
        assert load_notes(path) == made == list(given_notes(made).notes)


def test_texts_rows_and_notes_may_be_mixed_and_keep_their_order() -> None:
    rows = [TEXTS[0], {"note_id": "own", "correct_note": TEXTS[1], "incorrect_note": TEXTS[2]}, Note("n", TEXTS[3])]
    read = given_notes([*rows, TEXTS[4]]).notes
    assert [note.note_id for note in read] == ["note-1", "own", "n", "note-4"]
    assert [note.correct_note for note in read] == [TEXTS[0], TEXTS[1], TEXTS[3], TEXTS[4]]
    assert read[1].is_pair and all(note.labelled for note in read)


def test_an_id_that_occurs_again_is_told_apart() -> None:
    assert [note.note_id for note in given_notes([Note("a", "one"), Note("a", "two")]).notes] == ["a", "a#2"]


class Frame:
    columns = ("note", "label")

    def __iter__(self) -> Any:
        return iter(self.columns)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (TEXTS[0], "give a list of notes, not a text"),
        (Path("notes.csv"), "give a list of notes, not a"),
        ({"note": TEXTS[0]}, "give a list of notes, not a dict"),
        (Note("n", TEXTS[0]), "give a list of notes, not one note"),
        (Frame(), r"give a list of rows, not a table: df\.to_dict"),
        (7, "give a list of notes, not a int"),
        ([], "the list is empty"),
        ([TEXTS[0], 7], "item 2: give a Note, a row"),
        ([TEXTS[0], "  "], "item 2: no text"),
        ([TEXTS[0], "", Note("n", None)], r"item 2: no text"),
        ([{"finding": "pale"}], "no column of notes; it has 'finding'"),
        ([{"note": 3}], "item 1: 'note' holds int, not text"),
        ([Note("n", "the same", "the  same")], "item 1: the correct and the incorrect text are the same"),
    ],
)
def test_what_is_no_list_of_notes_is_refused_by_its_place(bad: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"^notes.*{message}") as caught:
        given_notes(bad)
    assert "\n" not in str(caught.value)


def test_notes_to_judge_are_one_for_each_item_whatever_their_labels() -> None:
    rows = [TEXTS[0], " ", {"text": TEXTS[1], "label": "who knows"}, {"text": ""}, Note("own", None, TEXTS[2])]
    read = notes_to_judge(rows)
    assert [note.note_id for note in read] == ["note-1", "note-2", "note-3", "note-4", "own"]
    assert [note.correct_note for note in read] == [TEXTS[0], " ", TEXTS[1], "", None]
    assert not any(note.labelled for note in read[:4])
    with pytest.raises(DataError, match="notes: give a list of notes, not a text"):
        notes_to_judge("a text")
    with pytest.raises(DataError, match="notes, item 2: 'text' holds int, not text"):
        notes_to_judge(["a text", {"text": 3}])


def test_an_assessor_takes_settings_by_name_and_lists_of_any_kind(tmp_path: Path) -> None:
    with Assessor(engine="scripted", threshold=0.25) as assessor:
        assert assessor.settings.engine == "scripted" and assessor.threshold.value == 0.25
        found = assessor.judge([TEXTS[0], {"note_id": "row", "text": TEXTS[1]}, Note("n", TEXTS[2]), ""])
        assert [finding.note_id for finding in found] == ["note-1", "row", "n", "note-4"]
        assert [finding.flagged for finding in found] == [True, True, True, None] and found[3].reason
        game = assessor.play({"note_id": "row", "correct_note": TEXTS[1]}, "benign")
        assert (game.note_id, game.mode, game.original) == ("row", "benign", TEXTS[1])
    with pytest.raises(ConfigError, match="unknown setting 'modle'; did you mean 'model'"):
        Assessor(modle="x")
    with pytest.raises(DataError, match="give a list of notes, not a text"):
        Assessor(engine="scripted", threshold=0.5).judge(TEXTS[0])


def test_the_assessor_of_a_run_on_a_list(tmp_path: Path, tiny_llama: Path) -> None:
    """Its threshold is chosen on the notes that validated the run, which lie in its folder."""
    short = [f"He has a cough {number}. He feels well." for number in range(4)]
    pairs = [Note(f"v{i}", text, text.replace("well", "bad")) for i, text in enumerate(short)]
    options: dict[str, Any] = {**QUICK, "engine": "local", "model": str(tiny_llama), "adapter": "none", "device": "cpu"}
    options |= {"max_new_tokens_injector": 8, "max_new_tokens_assessor": 8, "sft_verdict_pairs": 1}
    with MedSeRLTrainer(notes=pairs, validation=pairs, output_dir=tmp_path / "run", max_rounds=1, **options) as trainer:
        run = trainer.train()
    assert run.path
    with Assessor.from_run(run.path, max_new_tokens_assessor=6) as assessor:
        assert assessor.settings.max_new_tokens_assessor == 6 and assessor.settings.model == str(tiny_llama)
        assert "validation notes" in assessor.threshold.describe()
        assert [finding.note_id for finding in assessor.judge(short[:2])] == ["note-1", "note-2"]


def test_sample_notes_are_a_list_of_notes() -> None:
    assert len(sample_notes("validation")) == 182 and isinstance(sample_notes()[0], Note)
    assert sample_notes(size=5) == sample_notes(size=5) != sample_notes(size=5, seed=1)
    with pytest.raises(DataError, match="no sample notes called 'dev'"):
        sample_notes("dev")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="9999 sample notes were asked for"):
        sample_notes(size=9999)


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("nr;befund\n7;He feels well.\n", encoding="utf-8")
    with pytest.raises(DataError, match="no column of notes"):
        load_notes(path)
    assert load_notes(path, note_column="befund", id_column="nr") == [Note("7", "He feels well.", labelled=False)]


# -- training -------------------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    path = tmp_path / "notes.jsonl"
    path.write_text(note_lines(given_notes(TEXTS * 5).notes), encoding="utf-8")
    return path


def test_a_file_is_trained_on_where_it_is_said(kept: Path, tmp_path: Path) -> None:
    run = MedSeRLTrainer(prompt_data=kept, output_dir=tmp_path / "run", max_rounds=2, **QUICK).train()
    assert run.path == tmp_path / "run"
    assert [row["round"] for row in run] == [1, 2] and "mean_reward" in run[-1]
    assert run == read_rows(run.path / "metrics.jsonl")[1:]
    played = {row["original"] for row in read_rows(run.path / "episodes.jsonl")}
    assert played <= set(TEXTS) and len(read_rows(run.path / "episodes.jsonl")) == 8


def test_from_python_and_from_the_command_line_the_same_games_are_played(kept: Path, tmp_path: Path) -> None:
    settings = Settings(**QUICK, prompt_data=str(kept), max_rounds=3, output_dir=str(tmp_path / "a"))
    first = train(settings)
    second = MedSeRLTrainer(**QUICK, prompt_data=str(kept), max_rounds=3, output_dir=str(tmp_path / "b")).train()
    third = MedSeRLTrainer(notes=load_notes(kept), max_rounds=3, output_dir=str(tmp_path / "c"), **QUICK).train()
    games = [(path / "episodes.jsonl").read_text(encoding="utf-8") for path in (first, second.path, third.path) if path]
    assert games[0] == games[1] == games[2]


def test_a_run_on_a_list_is_a_run_like_any_other(tmp_path: Path) -> None:
    """Its notes are in its folder, private, and its settings name them: resuming is as from a file."""
    validation = [Note("v", TEXTS[0], TEXTS[1])]
    options: dict[str, Any] = {"notes": TEXTS * 2, "validation": validation, **QUICK, "save_every": 1}
    whole = MedSeRLTrainer(**options, output_dir=tmp_path / "whole", max_rounds=3).train()
    part = MedSeRLTrainer(**options, output_dir=tmp_path / "part", max_rounds=2).train()
    assert part.path and whole.path
    settings = read_settings(part.path)
    assert load_notes(settings.prompt_data) == list(given_notes(TEXTS * 2).notes)
    assert load_notes(settings.validation_data) == validation
    assert {path.stat().st_mode & 0o777 for path in part.path.glob("*.jsonl")} == {0o600}
    resumed = MedSeRLTrainer(resume=part.path, max_rounds=3).train()
    assert [row["round"] for row in resumed] == [3] and resumed.path == part.path
    assert (part.path / "episodes.jsonl").read_bytes() == (whole.path / "episodes.jsonl").read_bytes()
    assert "eval_accuracy" in resumed[-1]


def test_a_list_that_was_changed_in_the_run_folder_is_not_gone_on_with(tmp_path: Path) -> None:
    run = MedSeRLTrainer(notes=TEXTS, output_dir=tmp_path / "run", max_rounds=1, max_epochs=3, **QUICK).train()
    with (tmp_path / "run/notes.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"note_id": "x", "correct_note": "Another note."}\n')
    with pytest.raises(RunError, match=r"notes\.jsonl has changed since the run began"):
        MedSeRLTrainer(resume=run.path, max_rounds=3)


def test_some_notes_of_a_long_list_validate_it(tmp_path: Path) -> None:
    trainer = MedSeRLTrainer(notes=TEXTS * 5, **QUICK)
    assert trainer.validation is not None and len(trainer.validation.notes) + len(trainer.sampler.notes) == 30
    assert MedSeRLTrainer(notes=TEXTS * 5, validation=None, **QUICK).validation is None
    assert MedSeRLTrainer(notes=TEXTS * 5, validation_data="none", **QUICK).validation is None


def test_nothing_is_written_before_training_nor_where_it_is_not_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = MedSeRLTrainer(notes=TEXTS, max_rounds=1, run=None, **QUICK).train()
    assert run.path is None and len(run) == 1 and not list(tmp_path.iterdir())
    trainer = MedSeRLTrainer(notes=TEXTS, max_rounds=1, **QUICK)
    assert not list(tmp_path.iterdir())
    made = trainer.train().path
    assert made is not None and made.parent == Path("outputs") and (made / "metrics.jsonl").is_file()


def test_a_folder_is_free_after_training_and_an_old_run_is_kept(tmp_path: Path) -> None:
    first = MedSeRLTrainer(notes=TEXTS, output_dir=tmp_path / "run", max_rounds=1, **QUICK)
    first.train()
    before = (tmp_path / "run/notes.jsonl").read_bytes()
    with pytest.raises(RunError, match="there is a run in this folder"):
        MedSeRLTrainer(notes=TEXTS[:4], output_dir=tmp_path / "run", max_rounds=1, **QUICK).train()
    assert (tmp_path / "run/notes.jsonl").read_bytes() == before
    assert first.train() == []  # it has all its rounds


Refused = tuple[dict[str, Any], type[Exception], str]
REFUSED: list[Refused] = [
    ({"max_round": 2}, ConfigError, "unknown setting 'max_round'; did you mean 'max_rounds'"),
    ({"max_rounds": 0}, ConfigError, "max_rounds"),
    ({"prompt_data": "gone.jsonl"}, DataError, "gone.jsonl"),
    ({"prompt_data": ["a text"]}, ConfigError, "prompt_data"),
    ({"notes": TEXTS, "prompt_data": "mine.jsonl"}, ConfigError, "notes and prompt_data both say"),
    ({"validation": TEXTS, "validation_data": "none"}, ConfigError, "validation and validation_data both say"),
    ({"validation": None, "validation_data": "v.jsonl"}, ConfigError, "validation is None, but validation_data"),
    ({"validation": "v.jsonl"}, DataError, "validation: give a list of notes, not a text"),
    ({"notes": [Note("a", "x y"), Note("b", "z", labelled=False)]}, DataError, "1 of the 2 notes have no label"),
    ({"notes": [Note("a", None, "only a wrong text")]}, DataError, "nothing to play on"),
    ({"resume": "gone"}, RunError, "gone: no config.toml there"),
    ({"notes": TEXTS, "resume": "gone"}, ConfigError, "leave notes out"),
    ({"notes": [{"befund": t} for t in TEXTS], "note_column": "befund", "validation_data": "v.jsonl"},
     ConfigError, "give validation as a list too"),
    ({"top_p": 0.9}, ConfigError, "top_p is 0.9"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "kind", "message"), REFUSED, ids=lambda value: "-".join(value)[:40] if isinstance(value, dict) else ""
)
def test_what_is_given_is_used_or_refused(
    given: dict[str, Any], kind: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a model is loaded, in one line, and with nothing written."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=message) as caught:
        MedSeRLTrainer(engine=_unloaded, **given)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def _unloaded() -> None:
    """Not an engine: whoever uses it fails."""


def test_columns_of_rows_can_be_named(tmp_path: Path) -> None:
    rows = [{"nr": number, "befund": text} for number, text in enumerate(TEXTS)]
    run = MedSeRLTrainer(
        notes=rows, note_column="befund", id_column="nr", output_dir=tmp_path / "run", max_rounds=1, **QUICK
    ).train()
    assert run.path and {row["note_id"] for row in read_rows(run.path / "episodes.jsonl")} <= set("012345")
    MedSeRLTrainer(resume=run.path, max_epochs=2, max_rounds=2).train()


@pytest.mark.parametrize("seat", [lambda notes: notes, lambda notes: sample_notes(size=8)])
def test_a_round_can_be_played_on_notes(seat: Callable[[Any], Any]) -> None:
    trainer = MedSeRLTrainer(**QUICK)
    metrics = trainer.training_step(seat(list(given_notes(TEXTS + TEXTS[:2]).notes)))
    assert metrics["games"] == 8 and "vcf_acceptance_rate" in metrics
    with pytest.raises(DataError, match="Notes or GameSetups"):
        trainer.training_step(TEXTS)  # type: ignore[arg-type]


def test_an_engine_may_be_named_or_given() -> None:
    assert isinstance(MedSeRLTrainer(engine="scripted", notes=TEXTS, rollout_batch_size=4).engine, ScriptedEngine)
    own = ScriptedEngine()
    assert MedSeRLTrainer(Settings(rollout_batch_size=4), engine=own, notes=TEXTS).engine is own


def test_playing_ahead_is_not_forgotten(tmp_path: Path) -> None:
    trainer = MedSeRLTrainer(notes=TEXTS, async_rollout=True, output_dir=tmp_path, max_rounds=2, max_epochs=2, **QUICK)
    assert trainer.ahead is not None
    assert len(trainer.train()) == 2


def test_settings_set_earlier_stay(tmp_path: Path) -> None:
    settings = Settings(**QUICK, kl_coef=0.05)
    trainer = MedSeRLTrainer(settings, notes=TEXTS, seed=3)
    assert (trainer.settings.kl_coef, trainer.settings.seed, trainer.settings.engine) == (0.05, 3, "scripted")


def test_unlabelled_notes_are_kept_as_such(tmp_path: Path) -> None:
    notes = [replace(note, labelled=False) for note in given_notes(TEXTS).notes]
    MedSeRLTrainer(notes=notes, output_dir=tmp_path / "run", max_rounds=1, **QUICK).train()
    rows = [json.loads(line) for line in (tmp_path / "run/notes.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all("correct_note" not in row for row in rows)
    assert load_notes(tmp_path / "run/notes.jsonl") == notes


def test_a_batch_whose_parts_do_not_match_is_refused() -> None:
    trainer = MedSeRLTrainer(notes=TEXTS, run=None, **QUICK)
    for options in ({"original_notes": TEXTS[:1]}, {"original_notes": TEXTS[:2], "modes": ["error"]}):
        with pytest.raises(ValueError, match="2 prompts, but 1"):
            trainer.rollout.generate_with_vcf(["one", "two"], **options)
