"""A person's own notes: what judges a run on them, what is held out of training, and what can be scored at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.config import Settings
from medserl.data.holdout import FEWEST, FEWEST_TO_SPLIT, MOST, split_notes, text_key
from medserl.data.readers import read_notes
from medserl.data.sources import data_files, load, run_data
from medserl.data.writing import write_notes
from medserl.errors import DataError
from medserl.game.note import Note


def plain(count: int, **fields: str) -> list[Note]:
    return [Note(f"n{i}", f"Note {i}: he takes drug {i}.", labelled=False, **fields) for i in range(count)]


def pairs(count: int) -> list[Note]:
    return [Note(f"p{i}", f"Note {i}: drug a{i}.", f"Note {i}: drug b{i}.") for i in range(count)]


def csv(path: Path, header: str, rows: Sequence[str]) -> str:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return str(path)


def own_settings(path: str, **changes: object) -> Settings:
    return Settings(prompt_data=path, engine="scripted", **changes)


# -- the split -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "held"), [(19, 0), (20, FEWEST), (100, 10), (2000, MOST)])
def test_a_tenth_is_held_out_within_bounds(count: int, held: int) -> None:
    train, held_out = split_notes(plain(count), seed=0)
    assert (len(train), len(held_out)) == (count - held, held)
    assert [*train, *held_out] != plain(count) or not held  # not the end of the file


def test_the_split_is_the_same_for_a_seed_and_another_for_another() -> None:
    assert split_notes(plain(100), 1) == split_notes(plain(100), 1)
    assert split_notes(plain(100), 1) != split_notes(plain(100), 2)


def test_pairs_are_held_out_where_there_are_some() -> None:
    train, held_out = split_notes([*plain(80), *pairs(20)], 0)
    assert len(held_out) == 10
    assert all(note.is_pair for note in held_out)
    assert sum(note.is_pair for note in train) == 10


def test_notes_that_cannot_be_trained_on_judge_the_run_beside_as_many_correct_ones() -> None:
    wrong = [Note(f"w{i}", None, f"Wrong note {i}.") for i in range(40)]
    right = [Note(f"r{i}", f"Right note {i}.") for i in range(60)]
    train, held_out = split_notes([*wrong, *right], 0)
    assert sorted(note.correct_note is None for note in held_out) == [False] * 5 + [True] * 5
    assert sum(note.correct_note is not None for note in train) == 55


@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from([None, "a", "b", "c"])), min_size=20, max_size=60),
    st.integers(0, 5),
)
def test_nothing_that_belongs_together_stands_on_both_sides(rows: list[tuple[int, str | None]], seed: int) -> None:
    notes = [
        Note(
            f"{number}#{i}" if number % 7 == 0 else f"n{i}",
            f"Note  {number}!" if i % 2 else f"NOTE {number}",
            patient=who,
        )
        for i, (number, who) in enumerate(rows)
    ]
    train, held_out = split_notes(notes, seed)
    assert sorted(map(id, [*train, *held_out])) == sorted(map(id, notes))
    for tie in (lambda note: text_key(note.correct_note or ""), lambda note: note.patient):
        kept, held = ({tie(note) for note in side} - {None} for side in (train, held_out))
        assert not kept & held


def test_one_patients_many_notes_are_no_sample() -> None:
    notes = [*plain(60, patient="all of them"), *(Note(f"x{i}", f"Other {i}.") for i in range(40))]
    _, held_out = split_notes(notes, 0)
    assert held_out and all(note.patient is None for note in held_out)


# -- what judges a run -----------------------------------------------------------------------------------


def test_own_notes_are_judged_on_a_split_of_themselves_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = csv(tmp_path / "own.csv", "id,text", [f"{i},Note {i}." for i in range(50)])
    with caplog.at_level("INFO"):
        data = run_data(own_settings(path))
    assert data.validation and data.is_split
    held, kept = ({note.note_id for note in each.notes} for each in (data.validation, data.train))
    assert (len(held), len(kept), held & kept) == (5, 45, set())
    assert f"validation: split of {path} (5 notes)" in caplog.text
    assert f"{path}: 50 notes: 50 without a label (column 'text')" in caplog.text
    assert "takes 45 notes without a label for correct ones" in caplog.text
    assert data.record()["held_out"] == [note.note_id for note in data.validation.notes]
    assert data_files(own_settings(path)) == {"prompt_data": Path(path)}


def test_too_few_notes_are_judged_by_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = csv(tmp_path / "few.csv", "text", [f"Note {i}." for i in range(FEWEST_TO_SPLIT - 1)])
    with caplog.at_level("INFO"):
        data = run_data(own_settings(path))
    assert data.validation is None and len(data.train.notes) == FEWEST_TO_SPLIT - 1
    assert "validation: none: " in caplog.text


def test_the_sample_judges_the_sample_and_others_only_when_asked(tmp_path: Path) -> None:
    path = csv(tmp_path / "own.csv", "text", [f"Note {i}." for i in range(50)])
    assert run_data(Settings()).judged_by.startswith("sample (")
    assert run_data(own_settings(path, validation_data="sample")).judged_by.startswith("sample (")
    assert run_data(own_settings(path, validation_data="none")).validation is None


def test_medecs_validation_file_beside_its_training_file_is_taken(tmp_path: Path) -> None:
    write_notes(tmp_path / "medec_train.jsonl", pairs(30))
    assert run_data(own_settings(str(tmp_path / "medec_train.jsonl"))).is_split
    write_notes(tmp_path / "medec_validation.jsonl", pairs(3))
    data = run_data(own_settings(str(tmp_path / "medec_train.jsonl")))
    assert not data.is_split and data.validation and len(data.validation.notes) == 3 and len(data.train.notes) == 30
    assert set(data_files(own_settings(str(tmp_path / "medec_train.jsonl")))) == {"prompt_data", "validation_data"}


def test_validation_notes_that_are_trained_on_are_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever their case, spacing and signs; twins included."""
    train, judged = tmp_path / "train.jsonl", tmp_path / "judged.jsonl"
    write_notes(train, pairs(30))
    loud = [Note(f"x{i}", (note.incorrect_note or "").upper().replace(" ", "  ")) for i, note in enumerate(pairs(3))]
    write_notes(judged, [*loud, Note("new", "Another note.")])
    data = run_data(own_settings(str(train), validation_data=str(judged)))
    assert f"not held-out: 3 of the 4 judged notes are among the 30 of {train} (x0, x1, x2)" in caplog.text
    assert data.record()["notes"] == {"judged": 4, "training": 30, "in_both": 3}
    caplog.clear()
    assert run_data(Settings()).record()["notes"]["in_both"] == 0 and "held-out" not in caplog.text


# -- gold pairs of a source of their own -----------------------------------------------------------------


def test_gold_pairs_of_another_file_are_learnt_from_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """So they count as training notes wherever it is asked what is held out."""
    own, gold = tmp_path / "own.jsonl", tmp_path / "gold.jsonl"
    write_notes(own, plain(30))
    write_notes(gold, [*pairs(8), Note("alone", "A note without a twin.")])
    settings = own_settings(str(own), gold_data=str(gold), sft_verdict_pairs=1)
    data = run_data(settings)
    assert data.gold and len(data.learnt.notes) == len(data.train.notes) + 9
    assert data.learnt.source == "own.jsonl and gold.jsonl"
    assert data.record()["gold_pairs"] == 8
    assert data_files(settings)["gold_data"] == gold
    judged = settings.with_overrides(validation_data=str(gold))
    assert run_data(judged).record()["notes"] == {"judged": 9, "training": 39, "in_both": 9}
    assert "not held-out: 9 of the 9 judged notes are among the 39 of own.jsonl and gold.jsonl" in caplog.text


def test_gold_pairs_are_those_among_the_notes_where_no_other_source_is_named(tmp_path: Path) -> None:
    """The file of the notes itself is none: what is held out of it is not learnt from."""
    path = tmp_path / "own.jsonl"
    write_notes(path, pairs(40))
    for named in ({}, {"gold_data": str(path), "sft_verdict_pairs": 1}):
        data = run_data(own_settings(str(path), **named))
        assert data.gold is None and data.learnt is data.train and "gold_pairs" not in data.record()


# -- labels ----------------------------------------------------------------------------------------------

LABELLED = [f"{i},Note {i}.,{int(i % 3 == 0)}" for i in range(30)]


def test_a_column_that_looks_like_labels_stops_training(tmp_path: Path) -> None:
    path = csv(tmp_path / "own.csv", "id,text,label", LABELLED)
    with pytest.raises(DataError, match=r"'label' looks like labels \('0' x 20, '1' x 10\).*--label-column 'label'"):
        run_data(own_settings(path))


def test_labelled_notes_are_trained_on_where_correct_and_judge_the_run_where_wrong(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = csv(tmp_path / "own.csv", "id,text,label", LABELLED)
    with caplog.at_level("INFO"):
        data = run_data(own_settings(path, label_column="label"))
    assert (
        "30 notes: 20 correct, 10 with an error but no correction (column 'text', labels in 'label': 1 is an error)"
        in (caplog.text)
    )
    assert "notes with an error but no correction are not trained on" in caplog.text
    assert all(int(note.note_id) % 3 for note in data.train.notes if note.correct_note)
    assert data.validation and {note.correct_note is None for note in data.validation.notes} == {True, False}


def test_labels_can_be_passed_over(tmp_path: Path) -> None:
    path = csv(tmp_path / "own.csv", "id,text,label", LABELLED)
    notes = load(path, "train", own_settings(path, label_column="none")).notes
    assert len(notes) == 30 and not any(note.labelled for note in notes)


@pytest.mark.parametrize(
    ("column", "error", "correct"),
    [
        ("label", "1", "0"), ("label", "1.0", "0.0"), ("flag", "true", "false"), ("error", "yes", "no"),
        ("verdict", "INCORRECT", "CORRECT"), ("y", "error", "no error"), ("label", "wrong", "right"),
        ("is_correct", "0", "1"), ("correct", "no", "yes"), ("isCorrect", "false", "true"), ("no_error", "0", "1"),
        ("has error", "Y", "N"), ("label", "has_error", "error-free"),
    ],
)  # fmt: skip
def test_which_value_means_an_error(tmp_path: Path, column: str, error: str, correct: str) -> None:
    path = csv(tmp_path / "own.csv", f"text,{column}", [f"Wrong.,{error}", f"Right.,{correct}"])
    notes = load(path, "test", own_settings(path, label_column=column)).notes
    assert [(note.correct_note, note.incorrect_note) for note in notes] == [(None, "Wrong."), ("Right.", None)]


def test_a_column_called_correct_note_is_a_label_and_one_called_note_is_none(tmp_path: Path) -> None:
    said, plain_file = (csv(tmp_path / f"{name}.csv", name, ["Pain."]) for name in ("correct_note", "note"))
    assert read_notes(said).notes[0].labelled
    assert not read_notes(plain_file).notes[0].labelled


def test_notes_without_labels_are_written_and_read_back_without(tmp_path: Path) -> None:
    write_notes(tmp_path / "a.jsonl", plain(2))
    assert read_notes(tmp_path / "a.jsonl").notes == tuple(plain(2))


# -- forms that libraries keep ---------------------------------------------------------------------------


def test_the_first_sheet_of_a_workbook(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from openpyxl import Workbook

    book = Workbook()
    for row in (
        [],
        ["ID", "Text", "Age"],
        [7, "Pain,\nfever.", 50],
        [8.0, None, 1],
        [],
        ["ID", "Text", "Age"],
        ["x", "Ache.", ""],
    ):
        book.active.append(row)
    book.create_sheet("other")
    book.save(tmp_path / "Export.XLSX")
    loaded = read_notes(tmp_path / "Export.XLSX")
    assert [(note.note_id, note.correct_note) for note in loaded.notes] == [("7", "Pain,\nfever."), ("x", "Ache.")]
    assert [(row.line, row.why) for row in loaded.skipped] == [
        (4, "no text"),
        (5, "blank row"),
        (6, "the header again"),
    ]
    assert "only the first sheet, 'Sheet', is read; there are 1 more" in caplog.text


def test_parquet(tmp_path: Path) -> None:
    import pandas

    frame = pandas.DataFrame({"note_id": [1, None], "text": ["Pain.", None], "x": [1, 2]})
    frame.to_parquet(tmp_path / "a.parquet")
    loaded = read_notes(tmp_path / "a.parquet")
    assert [(note.note_id, note.correct_note) for note in loaded.notes] == [("1", "Pain.")]
    assert [str(row) for row in loaded.skipped] == [f"{tmp_path / 'a.parquet'}, row 2: no text"]


def test_saved_data_sets_and_their_splits(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["correct", "incorrect"])})
    one = Dataset.from_dict({"text": ["Pain.", "Ache."], "label": [0, 1]}, features=features)
    one.save_to_disk(tmp_path / "one")
    settings = own_settings("unused", label_column="label")
    assert [note.incorrect_note for note in load(str(tmp_path / "one"), "test", settings).notes] == [None, "Ache."]
    DatasetDict({"train": one, "test": one.select([1])}).save_to_disk(tmp_path / "two")
    assert len(load(f"{tmp_path / 'two'}?split=test", "test", settings).notes) == 1
    for asked, said in (("", "several splits"), ("?split=dev", "no split 'dev'")):
        with pytest.raises(DataError, match=f"{said}; it has train, test: give one as \\?split=NAME"):
            read_notes(f"{tmp_path / 'two'}{asked}")
    (tmp_path / "one/state.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="no saved data set that can be read"):
        read_notes(tmp_path / "one")


def test_a_hub_name_without_a_network_is_refused_in_one_line() -> None:
    with pytest.raises(
        DataError, match=r"hf:nobody/nothing\?split=train: cannot be had from the Hugging Face hub"
    ) as caught:
        read_notes("hf:nobody/nothing?split=train")
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="only split=NAME and config=NAME"):
        read_notes("hf:nobody/nothing?page=2")


def test_a_hub_name_with_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's own call, answered here as the hub would."""
    import datasets

    asked = []

    def answer(name: str, config: str | None, split: str | None) -> datasets.Dataset:
        asked.append((name, config, split))
        return datasets.Dataset.from_dict({"text": ["Pain."]})

    monkeypatch.setattr(datasets, "load_dataset", answer)
    assert read_notes("hf:owner/name?split=train&config=en").notes[0].correct_note == "Pain."
    assert asked == [("owner/name", "en", "train")]


def test_a_folder_of_texts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "ehr"
    (folder / "sub").mkdir(parents=True)
    for name, content in {
        "b 2.TXT": "Ache.\n\nMore.", "a.txt": "Pain.", "._a.txt": "\0", ".DS_Store": "\0", "list.csv": "", "c.txt": " ",
    }.items():  # fmt: skip
        (folder / name).write_text(content, encoding="utf-8")
    loaded = read_notes(folder)
    assert [(note.note_id, note.correct_note) for note in loaded.notes] == [("a", "Pain."), ("b 2", "Ache.\n\nMore.")]
    assert [row.why for row in loaded.skipped] == ["c.txt: the file is empty; it should hold notes"]
    assert "4 files and folders were passed over" in caplog.text
    (tmp_path / "tables").mkdir()
    csv(tmp_path / "tables/a.csv", "note", ["Pain."])
    with pytest.raises(DataError, match=r"tables: Is a directory without .txt files in it; it has a.csv"):
        read_notes(tmp_path / "tables")


def test_ids_made_of_a_files_name_have_no_white_space(tmp_path: Path) -> None:
    path = csv(tmp_path / "my own notes.csv", "note", ["Pain."])
    assert read_notes(path).notes[0].note_id == "my_own_notes-2"


def test_a_large_file_is_read_in_little_more_memory_than_its_notes(tmp_path: Path) -> None:
    import tracemalloc

    text = "He has fever and cough, “no” rash. " * 60
    path = tmp_path / "large.jsonl"
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"note": f"{i} {text}"}, ensure_ascii=False) + "\n" for i in range(2000))
    tracemalloc.start()
    notes = read_notes(path).notes
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.3 * sum(2 * len(note.correct_note or "") for note in notes)


def test_the_hub_librarys_retries_are_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    import logging

    with pytest.raises(DataError):
        read_notes("hf:nobody/nothing")
    assert not logging.getLogger("huggingface_hub").isEnabledFor(logging.WARNING)
    assert {record.name for record in caplog.records} <= {"medserl"}


def test_a_config_file_as_windows_editors_save_it(tmp_path: Path) -> None:
    from medserl.config import read_config

    (tmp_path / "run.toml").write_text('\ufeffprompt_data = "own.csv"\r\n', encoding="utf-8")
    assert read_config(tmp_path / "run.toml") == {"prompt_data": "own.csv"}
