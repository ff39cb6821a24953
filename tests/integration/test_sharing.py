"""What others get: cards, names and exports, read by transformers and PEFT alone in a process without MedSeRL."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from medserl.cli import main
from medserl.config import Settings
from medserl.evaluation.thresholds import Threshold, read_threshold, weights_key, write_threshold
from medserl.game.prompts import load_prompts
from medserl.runs.runlog import read_settings
from tests.without_medserl import ask_without_medserl, hub_cache, said_by_medserl

pytestmark = pytest.mark.usefixtures("one_thread")

HUB_NAME = "acme/tiny-llama"
NARROW = ["--max-new-tokens-assessor", "12", "--max-new-tokens-injector", "8"]
COMMON = ["--device", "cpu", "--dtype", "float32", "--prompts", "term", *NARROW]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose path nobody else may see."""
    return tmp_path_factory.mktemp("private_machine")


@pytest.fixture(scope="module")
def base(tiny_llama: Path, place: Path) -> Path:
    """The tiny model with room for the prompts, as the hub's cache holds it."""
    roomy = place / "roomy"
    shutil.copytree(tiny_llama, roomy)
    for name, key in (("config.json", "max_position_embeddings"), ("tokenizer_config.json", "model_max_length")):
        config = json.loads((roomy / name).read_text(encoding="utf-8"))
        (roomy / name).write_text(json.dumps(config | {key: 8192}), encoding="utf-8")
    (roomy / "README.md").write_text("---\nlicense: mit\n---\nA model.\n", encoding="utf-8")
    return hub_cache(place / "hub", HUB_NAME, roomy)


@pytest.fixture(scope="module")
def notes(place: Path) -> Path:
    rows = [
        {
            "note_id": str(i),
            "correct_note": f"He has fever for {i} days. He takes aspirin.",
            "incorrect_note": f"He has fever for {i} days. He takes warfarin.",
        }
        for i in range(8)
    ]
    file = place / "ward" / "our notes.jsonl"
    file.parent.mkdir()
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def warm(base: Path, notes: Path, place: Path) -> Path:
    """An adapter that `medserl sft` wrote."""
    folder = place / "warm"
    main(["sft", "--model", str(base), *COMMON, "--prompt-data", str(notes), "--validation-data", str(notes),
          "--lora-rank", "4", "--steps", "4", "--batch-size", "4", "--sft-learning-rate", "0.05", "--measure", "2",
          "--output", str(folder)])  # fmt: skip
    return folder


def train(base: Path, notes: Path, run: Path, *more: str) -> Path:
    main(["train", "--model", str(base), *COMMON, "--prompt-data", str(notes), "--validation-data", str(notes),
          "--rollout-batch-size", "2", "--max-rounds", "1", "--eval-notes", "2", "--frozen-games", "0",
          "--sft-verdict-pairs", "2", "--learning-rate", "0.01", "--no-tensorboard", "--seed", "7",
          "--output-dir", str(run), *more])  # fmt: skip
    return run


@pytest.fixture(scope="module")
def run(base: Path, notes: Path, warm: Path, place: Path) -> Path:
    """One round from that adapter, and an evaluation of it."""
    folder = train(base, notes, place / "run", "--adapter", str(warm))
    main(["evaluate", "--run", str(folder), "--data", str(notes), "--compare", "trained"])
    return folder


@pytest.fixture(scope="module")
def exported(run: Path, place: Path) -> Path:
    main(["export", str(run), str(place / "out" / "adapter")])
    return place / "out" / "adapter"


@pytest.fixture(scope="module")
def merged(run: Path, place: Path) -> Path:
    main(["export", str(run / "checkpoints" / "round_1"), str(place / "out" / "merged"), "--merged"])
    return place / "out" / "merged"


def checkpoint_of(run: Path) -> Path:
    return run / "checkpoints" / "round_1"


# -- cards ---------------------------------------------------------------------------------------------------------

PARTS = ["Not a medical device", "Base model", "Licence of the base model", "Made by", "Seed", "Started from",
         "Prompts", "## Data", "## Training signals", "## Evaluation", "## Threshold", "## Intended use",
         "Not intended", "### transformers", "### vLLM", "### MedSeRL", "## Citation"]  # fmt: skip


def test_every_folder_has_a_whole_card(warm: Path, run: Path, exported: Path, merged: Path) -> None:
    for folder in (warm, checkpoint_of(run), exported, merged):
        card = ModelCard.load(folder / "README.md", ignore_metadata_errors=False)
        assert [part for part in PARTS if part not in card.text] == []
        assert "More Information Needed" not in card.text
        data = card.data.to_dict()
        assert data["library_name"] == ("transformers" if folder == merged else "peft")
        assert (data["base_model"], data["license"], data["pipeline_tag"]) == (HUB_NAME, "mit", "text-generation")
        assert "medserl" in data["tags"]
        assert "our notes.jsonl, a file of whoever trained this" in card.text
        assert load_prompts("term", "edit").system in card.text


def test_a_card_tells_how_the_model_was_made(warm: Path, run: Path) -> None:
    taught = (warm / "README.md").read_text(encoding="utf-8")
    assert re.search(r"warm-up, [24] steps of 4 pairs", taught)
    assert "supervised fine-tuning on the right answers of both roles to 8 pairs of notes" in taught
    assert "verdict_parse_rate" not in taught and "answers that hold a verdict" in taught
    played = (checkpoint_of(run) / "README.md").read_text(encoding="utf-8")
    assert "| Rounds | 1 |" in played and "| Seed | 7 |" in played
    assert "the adapter warm" in played
    assert "- an auxiliary SFT loss towards the right verdicts on 2 gold pairs a round" in played
    assert "None is recorded" in played, "it was not judged when it was written"


def test_an_export_has_the_figures_with_intervals(exported: Path) -> None:
    card = (exported / "README.md").read_text(encoding="utf-8")
    assert "16 labelled texts of our notes.jsonl" in card
    assert "are among the training notes" in card
    assert re.search(r"\| accuracy \| [\d.]+ \([\d.]+ to [\d.]+\) \| 50\.0 \|", card)


def test_no_file_names_a_place_of_this_machine(
    warm: Path, run: Path, exported: Path, merged: Path, place: Path
) -> None:
    hidden = [str(place), place.name, str(Path.home()) + os.sep]
    for folder in (warm, run / "checkpoints", exported, merged):
        for file in (path for path in folder.rglob("*") if path.is_file()):
            content = file.read_bytes()
            assert [each for each in hidden if each.encode() in content] == [], file


def test_a_checkpoint_with_a_card_is_whole_and_is_gone_on_with(
    base: Path, notes: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    main(["train", "--resume", str(copy), "--max-rounds", "2"])
    assert "| Rounds | 2 |" in (copy / "checkpoints" / "round_2" / "README.md").read_text(encoding="utf-8")
    (copy / "checkpoints" / "round_2" / "README.md").write_text("Changed.", encoding="utf-8")
    assert "README.md is not as it was written" in refusal(
        ["export", str(checkpoint_of(copy).with_name("round_2")), "x"], capsys
    )


def test_the_threshold_goes_with_the_weights_that_it_was_chosen_for(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    settings = read_settings(copy)
    key = weights_key(settings.with_overrides(adapter=str(checkpoint_of(copy))))
    chosen = Threshold(0.4, 0.8, 0.7, 16, "/home/somebody/our notes.jsonl", 1.5, -0.25, 0.3, 0.2)
    write_threshold(copy, key, chosen)
    main(["export", str(copy), str(tmp_path / "out")])
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "P(INCORRECT) is at least 0.4" in card and "recall of 80 %" in card and "specificity of 70 %" in card
    assert "sigmoid(1.5 x logit(p) -0.25)" in card
    there = weights_key(settings.with_overrides(adapter=str(tmp_path / "out")))
    assert read_threshold(tmp_path / "out", there) == replace(chosen, source="our notes.jsonl")
    write_threshold(copy, "of other weights", Threshold(0.3))
    main(["export", str(copy), str(tmp_path / "out")])
    beside = read_threshold(checkpoint_of(copy), key)
    assert beside is not None and beside.source == "the run's validation notes"
    assert read_threshold(tmp_path / "out", there) == beside
    assert (beside.slope, beside.intercept) == (1.0, 0.0), "a handful of texts calibrates nothing"
    assert "sigmoid(" not in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_what_nobody_recorded_is_not_made_up(
    warm: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An adapter of another version, without card.json, whose base is a folder."""
    bare = tmp_path / "bare"
    shutil.copytree(warm, bare)
    (bare / "card.json").unlink()
    config = json.loads((bare / "adapter_config.json").read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = "our-model"
    (bare / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    assert "add --model FOLDER" in refusal(["export", str(bare), str(tmp_path / "out")], capsys)
    shutil.copytree(base, tmp_path / "our-model")
    main(["export", str(bare), str(tmp_path / "out"), "--model", str(tmp_path / "our-model")])
    assert "no card.json there" in capsys.readouterr().err
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert "Made by | not recorded" in card.text and "which it was trained on is not recorded" in card.text
    assert card.data.to_dict()["base_model"] == "our-model" and "PEFT needs that folder" in card.text


# -- loaded without MedSeRL ----------------------------------------------------------------------------------------


def test_transformers_and_peft_alone_say_what_medserl_says(
    base: Path, warm: Path, run: Path, exported: Path, merged: Path
) -> None:
    folders = (warm, checkpoint_of(run), exported, merged)
    told = ask_without_medserl(base.parents[2], *[(folder, []) for folder in folders])
    settings = read_settings(run)
    expected = [said_by_medserl(settings.with_overrides(adapter=str(folder)), 12) for folder in folders[:3]]
    assert expected[0][1] != expected[1][1], "the run learnt nothing that could be lost"
    assert told[:3] == expected
    assert told[3][:2] == expected[1][:2]
    whole = settings.with_overrides(model=str(merged), adapter="none")
    assert said_by_medserl(whole, 12) == told[3]


def test_vllm_finds_what_it_wants(exported: Path, merged: Path) -> None:
    config = json.loads((exported / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["peft_type"] == "LORA" and config["r"] == 4 and config["lora_alpha"]
    assert isinstance(config["target_modules"], list) and "q_proj" in config["target_modules"]
    assert config["base_model_name_or_path"] == HUB_NAME
    assert config["bias"] == "none" and not config["use_dora"] and not config["modules_to_save"]
    for folder in (exported, merged):
        assert (folder / "tokenizer.json").is_file() and (folder / "chat_template.jinja").is_file()
        tokenizer = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert (merged / "model.safetensors").is_file() and (merged / "generation_config.json").is_file()


# -- refusals ------------------------------------------------------------------------------------------------------


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which the command ends."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def test_other_files_are_left_alone(
    exported: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    assert "holds other files" in refusal(["export", str(run), str(tmp_path)], capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    again = tmp_path / "again"
    shutil.copytree(exported, again)
    main(["export", str(run), str(again)])  # an earlier export alone is replaced
    (again / "mine.txt").write_text("mine", encoding="utf-8")
    assert "holds other files" in refusal(["export", str(run), str(again)], capsys)
    assert "what is to be exported lies there" in refusal(["export", str(exported), str(exported)], capsys)
    assert "neither a run" in refusal(["export", str(tmp_path), str(tmp_path / "x")], capsys)


def test_nothing_half_written_stays(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("medserl.sharing.export.write_card", full)
    assert "No space left" in refusal(["export", str(run), str(tmp_path / "out")], capsys)
    assert list(tmp_path.iterdir()) == []


def test_adapters_of_two_roles_want_a_role(
    base: Path, notes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(base, notes, tmp_path / "run", "--adapter", "none", "--adapters", "per_role", "--sft-edit-pairs", "2")
    assert "give --role assessor" in refusal(["export", str(run), str(tmp_path / "x")], capsys)
    for role, folder in (("assessor", checkpoint_of(run)), ("injector", checkpoint_of(run) / "injector")):
        main(["export", str(run), str(tmp_path / role), "--role", role])
        name = "adapter_model.safetensors"
        assert (tmp_path / role / name).read_bytes() == (folder / name).read_bytes()
        assert f"term, as {role.capitalize()}" in (tmp_path / role / "README.md").read_text(encoding="utf-8")
    main(["export", str(run), str(tmp_path / "whole"), "--role", "assessor", "--merged"])
    settings = read_settings(run)
    alone = said_by_medserl(settings.with_overrides(adapter=str(tmp_path / "assessor")), 12)
    assert said_by_medserl(settings.with_overrides(model=str(tmp_path / "whole"), adapter="none"), 12)[1] == alone[1]


def test_a_run_that_trained_all_weights_has_a_model_to_share(
    base: Path, notes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(base, notes, tmp_path / "run", "--adapter", "none", "--lora-rank", "0", "--kl-coef", "0")
    assert "add --merged" in refusal(["export", str(run), str(tmp_path / "x")], capsys)
    main(["export", str(run), str(tmp_path / "whole"), "--merged"])
    settings = read_settings(run)
    saved = said_by_medserl(settings.with_overrides(model=str(checkpoint_of(run)), adapter="none"), 12)
    assert said_by_medserl(settings.with_overrides(model=str(tmp_path / "whole"), adapter="none"), 12) == saved
    assert str(tmp_path) not in (checkpoint_of(run) / "trainer_state.json").read_text(encoding="utf-8")


# -- the hub -------------------------------------------------------------------------------------------------------


def test_an_upload_that_cannot_be_is_refused_before_anything_is_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", str(run), str(tmp_path / "out"), "--push-to-hub"]
    assert "give owner/name" in refusal([*command, "name"], capsys)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in refusal([*command, "acme/model"], capsys)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert "no Hugging Face token" in refusal([*command, "acme/model"], capsys)
    assert not (tmp_path / "out").exists()


def test_an_upload_is_private_and_what_fails_is_told(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[dict[str, Any]] = []

    class Hub:
        def create_repo(self, name: str, **options: Any) -> str:
            calls.append({"name": name, **options})
            return f"https://hub.example/{name}"

        def upload_folder(self, **options: Any) -> None:
            calls.append({**options, "files": sorted(path.name for path in Path(options["folder_path"]).iterdir())})
            if options["repo_id"].endswith("broken"):
                raise ConnectionError("the line is dead")

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "token")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    main(["export", str(run), str(tmp_path / "out"), "--push-to-hub", "acme/model"])
    assert calls[0] == {"name": "acme/model", "private": True, "exist_ok": True}
    assert {"README.md", "adapter_model.safetensors"} <= set(calls[1]["files"])
    command = ["export", str(run), str(tmp_path / "out"), "--push-to-hub", "acme/broken"]
    assert "was not uploaded to acme/broken: the line is dead" in refusal(command, capsys)
    assert (tmp_path / "out" / "README.md").is_file()


# -- the embedded default ------------------------------------------------------------------------------------------


@pytest.mark.model
def test_the_shipped_adapter_says_the_same_without_medserl(place: Path) -> None:
    """By the hub's name of its base, and merged: greedy answers in float32, token by token."""
    from medserl.models import shipped_warmup
    from medserl.models.embedded import EMBEDDED_HUB, embedded_model

    settings = Settings(dtype="float32", device="cpu")
    shipped = shipped_warmup(settings)
    assert shipped is not None
    kept = hub_cache(place / "real_hub", EMBEDDED_HUB, embedded_model())
    adapter, whole = place / "real" / "adapter", place / "real" / "whole"
    main(["export", str(shipped), str(adapter)])
    main(["export", str(shipped), str(whole), "--merged", "--dtype", "float32"])
    narrow = [(r'dtype="auto"', 'dtype="float32"')]
    by_peft, by_transformers = ask_without_medserl(kept.parents[2], (adapter, narrow), (whole, []))
    room = load_prompts(settings.prompts, settings.injector_format).completion_tokens("assessor")
    expected = said_by_medserl(settings, room)
    assert by_peft == by_transformers == expected
    for folder in (adapter, whole):
        assert str(Path.home()) not in (folder / "README.md").read_text(encoding="utf-8")
