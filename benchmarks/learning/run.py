"""Does playing teach? Runs named arms with named seeds, and keeps what each of them measured.

    python benchmarks/learning/run.py --experiment play --test-data larger --arms A A1 A2 --seeds 0 1 2
    python benchmarks/learning/table.py --experiment play --against A1 A2

    python benchmarks/learning/run.py --arms plan best --seeds 0 1 [--set max_rounds=300]
    python benchmarks/learning/table.py

    python benchmarks/learning/run.py --experiment medec --arms best --test-data MEDEC-MS-ValidationSet-....csv \
      --set prompt_data=medec_ms_train_pairs.jsonl validation_data=MEDEC-MS-ValidationSet-....csv
    python benchmarks/learning/table.py --experiment medec --data MEDEC-MS-ValidationSet-....csv

An arm (`arms.toml`) is a set of settings of `medserl train`. Each run is an ordinary run folder under
`outputs/learning`, judged on the test notes when it has ended. Started again, this goes on where it stopped: with the
round after the last checkpoint, or with the evaluation. What the table and the figure are made of is copied,
compressed, to `benchmarks/learning/results/EXPERIMENT/ARM_seedN/`. What arms start from is judged once: the shipped
adapter as the arm `warmup`, one that is taught here (`start` in arms.toml) under its own name. `control` names the
trainer of `controls.py` that takes MedSeRL's place. With `--test-data larger` an arm is judged on a fixed share of the
larger test and on the reworded one (`--pairs`). With `choosing` it is judged on others that no arm is judged on, to
choose a recipe by. On the sample's test notes the warm-up also plays once as Injector, and `frozen_notes.jsonl` holds
its accepted edits, which every arm judges too.
Invented patients, for developing software, not for clinical use.
"""

from __future__ import annotations

import argparse
import json
import lzma
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomlkit
from materials import NOTES, TAUGHT, TEST_PAIRS, choosing_file, notes_file, test_file

from medserl.config import validate
from medserl.data.readers import read_notes
from medserl.data.sample_names import is_sample
from medserl.data.sources import notes_path
from medserl.engines import create_engine
from medserl.evaluation.frozen import FrozenGame, play_frozen_games
from medserl.game.prompts import load_prompts
from medserl.game.roles import MODES
from medserl.rollout import VCFRolloutGenerator
from medserl.runs.records import read_rows
from medserl.trainer import EMPTY_ROUNDS_ALLOWED

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WARMUP, TRAINED = "warmup", "trained"
PLACES = ("output_dir", "resume")
"""Settings that say where on this machine a run lay."""
SOURCES = {"prompt_data", "validation_data", "adapter"}
"""Settings that may name files, of which the name is kept and not where they lie."""
LARGER, CHOOSING = "larger", "choosing"
OF_THE_RUNNER = ("control", "start")
"""What an arm may say besides settings."""
OF_A_GAME = ("round", "mode", "verdict", "still_true", "reward_assessor")
"""What is kept of a game: no text, for notes may be someone's."""
FROZEN, TEST_NOTES = "frozen_notes.jsonl", "test_notes.jsonl"

Settings = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", required=True, help="names in arms.toml")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings that win over the arm's")
    parser.add_argument("--test-data", default="sample", help="notes to judge on, or larger, or choosing")
    parser.add_argument("--pairs", nargs=3, type=int, default=TEST_PAIRS, help="of each split, with --test-data larger")
    parser.add_argument("--experiment", default="sample", help="name of the folder that its runs and figures go to")
    parser.add_argument("--outputs", type=Path, default=ROOT / "outputs" / "learning", help="where the run folders go")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="where their figures are kept")
    options = parser.parse_args()
    arms = read_arms(HERE / "arms.toml")
    changes = dict(each.split("=", 1) for each in options.set)
    unknown = [name for name in options.arms if name not in arms]
    if unknown:
        parser.error(f"no arm {unknown[0]!r}; there are {', '.join(arms)}")
    outputs, results = options.outputs / options.experiment, options.results / options.experiment
    start = plain(next(iter(arms.values())) | changes)
    if options.test_data in (LARGER, CHOOSING):
        folder = outputs / "data"
        test = test_file(options.pairs, folder) if options.test_data == LARGER else choosing_file(folder)
        data = {"predictions.jsonl": str(test)}
        same_notes(results / f"{TEST_NOTES}.xz", test.read_bytes())
        keep(results, {TEST_NOTES: test.read_bytes()})
    else:
        data = {"predictions.jsonl": options.test_data}
        if is_sample(options.test_data):  # of others' notes no word is kept, so later runs could not judge the same
            frozen = frozen_notes(start, options.test_data, outputs / FROZEN, results / f"{FROZEN}.xz")
            data["frozen.jsonl"] = str(frozen)
    judge_start(start, data, outputs / WARMUP, results / WARMUP)
    for seed in options.seeds:
        for arm in options.arms:
            name, settings = f"{arm}_seed{seed}", arms[arm] | changes | {"seed": seed}
            ready = with_materials(settings, outputs)
            if "start" in settings:
                judge_start(ready, data, outputs / settings["start"], results / settings["start"])
            run_arm(ready, data, outputs / name, results / name, settings.get("control"))


def plain(arm: Mapping[str, Any]) -> Settings:
    """An arm's settings of `medserl train` alone."""
    return {name: value for name, value in arm.items() if name not in OF_THE_RUNNER}


def with_materials(arm: Mapping[str, Any], outputs: Path) -> Settings:
    """The arm's settings with files in the place of the notes and the start that it names, made where need be."""
    settings = plain(arm)
    if settings["prompt_data"] in NOTES:
        settings["prompt_data"] = str(notes_file(settings["prompt_data"], outputs / "data"))
    if "start" in arm:
        settings["adapter"] = str(outputs / "starts" / arm["start"])
        teach(settings, arm["start"], outputs)
    return settings


def teach(settings: Settings, start: str, outputs: Path) -> None:
    """Teach the model of the settings both roles on the pairs of this name, once.

    `medserl sft` leaves an adapter when it is stopped, too, so the folder gets its name when all is done.
    """
    done = Path(settings["adapter"])
    if done.exists():
        return
    part = done.with_name(f"{done.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    pairs = notes_file(start, outputs / "data")
    named = ["--model", settings["model"], "--prompts", settings["prompts"], "--adapter", "none"]
    places = ["--prompt-data", pairs, "--validation-data", "none", "--output", part]
    if code := medserl("sft", *named, *places, *TAUGHT):
        sys.exit(code)
    part.rename(done)


def read_arms(path: Path) -> dict[str, Settings]:
    """The settings of every arm, those of `common` and of the arm that it starts from included."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    known: dict[str, Settings] = {}
    for name, own in (table.get("bases", {}) | table["arms"]).items():
        start = known[own["of"]] if "of" in own else table["common"]
        known[name] = {**start, **{key: value for key, value in own.items() if key not in ("about", "of")}}
    return {name: known[name] for name in table["arms"]}


def run_arm(settings: Settings, data: Mapping[str, str], run: Path, kept: Path, control: str | None = None) -> None:
    """Train, or go on with it; judge; keep the raw figures. Nothing is done twice.

    A run that ends itself because its Injector gets nothing past the VCF any more is judged as its last checkpoint is.
    """
    started, done = (run / "config.toml").exists(), (run / "eval" / f"{TRAINED}.predictions.jsonl").exists()
    if not started:
        run.mkdir(parents=True, exist_ok=True)
        config = run.with_suffix(".toml")
        config.write_text(tomlkit.dumps(typed(settings)), encoding="utf-8")
    if not started or (not done and rounds_done(run) < int(typed(settings)["max_rounds"])):
        places = ["--resume", run] if started else ["--config", config, "--output-dir", run]
        code = play_control(control, *places) if control else medserl("train", *places)
        if code and not starved(run):
            sys.exit(code)  # it has said why; a run that was interrupted goes on when this is started again
    files = judged(TRAINED, ["--run", run], data, run / "eval")
    files["metrics.jsonl"] = (run / "metrics.jsonl").read_bytes()
    keep(kept, files | {"config.toml": settings_of(run), "games.jsonl": games_of(run)})


def starved(run: Path) -> bool:
    """Whether the last rounds accepted no note and had no examples, so many of them that a run ends itself there."""
    last = metrics_of(run)[-(EMPTY_ROUNDS_ALLOWED + 1) :]
    taught = [row.get("accepted_games", 1) or row.get("sft_loss") is not None for row in last]
    return len(last) > EMPTY_ROUNDS_ALLOWED and not any(taught)


def same_notes(kept: Path, test: bytes) -> None:
    """Figures of one experiment are of the same test notes, or no arm can be compared with another."""
    if kept.exists() and lzma.decompress(kept.read_bytes()) != test:
        sys.exit(f"error: {kept}: these results are of other test notes; give another --experiment")


def judge_start(settings: Settings, data: Mapping[str, str], folder: Path, kept: Path) -> None:
    """Once, on whatever machine: what is kept already is not judged again."""
    if all((kept / f"{name}.xz").exists() for name in data):
        return
    names = ("model", "prompts", "engine", "adapter")
    model = [part for name in names if name in settings for part in (f"--{name}", settings[name])]
    keep(kept, judged(WARMUP, model, data, folder))


def judged(system: str, model: Sequence[object], data: Mapping[str, str], folder: Path) -> dict[str, bytes]:
    """What the system says of each set of notes, by the name of the file that keeps it."""
    found = {}
    for name, notes in data.items():
        place = folder / "frozen" if Path(notes).name == FROZEN else folder
        said = place / f"{system}.predictions.jsonl"
        if not said.exists():
            code = medserl("evaluate", *model, "--compare", system, "--data", notes, "--output", place)
            if code:
                sys.exit(code)
        found[name] = predictions_of(said, data["predictions.jsonl"])
    return found


def frozen_notes(settings: Settings, test_data: str, path: Path, kept: Path) -> Path:
    """The file of the warm-up Injector's accepted edits of the test notes, played once for all arms and seeds.

    Each note is played in both modes with the audit on, as that makes labels that can be trusted; a label is the mode.
    """
    if kept.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lzma.decompress(kept.read_bytes()))
    if not path.exists():
        given: Settings = {
            name: settings[name] for name in ("model", "prompts", "injector_format", "engine") if name in settings
        }
        warmup = validate(typed(given) | {"edit_audit": "reject"})
        prompts = load_prompts(warmup.prompts, warmup.injector_format)
        rollout = VCFRolloutGenerator(create_engine(warmup, trainable=False), prompts, warmup)
        notes = read_notes(notes_path(test_data, "test")).notes
        games = play_frozen_games(rollout, notes, len(MODES) * len(notes), seed=0)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(frozen_row(game)) + "\n" for game in games), encoding="utf-8")
        keep(kept.parent, {path.name: path.read_bytes()})
    return path


def frozen_row(game: FrozenGame) -> dict[str, Any]:
    """A game as a note that `medserl evaluate` reads: one text, correct or incorrect by its mode."""
    of_game = {"note_id": f"{game.note_id}-{game.mode}", "of_note": game.note_id, "still_true": game.still_true}
    error, benign = (game.modified if game.mode == mode else None for mode in MODES)
    return of_game | {"correct_note": benign, "incorrect_note": error}


def rounds_done(run: Path) -> int:
    rows = metrics_of(run)
    checkpoints = [int(path.name.split("_")[1]) for path in run.glob("checkpoints/round_*")]
    return min(rows[-1]["round"], max(checkpoints, default=0)) if rows else 0


def metrics_of(run: Path) -> list[dict[str, Any]]:
    return read_rows(run / "metrics.jsonl")


def typed(settings: Mapping[str, Any]) -> Settings:
    """Values given on the command line as TOML reads them, where it can."""
    return {key: _value(value) if isinstance(value, str) else value for key, value in settings.items()}


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def settings_of(run: Path) -> bytes:
    """Every setting of the run, its places left out."""
    settings = tomlkit.parse((run / "config.toml").read_text(encoding="utf-8"))
    for name in PLACES:
        settings.pop(name, None)
    for name in settings.keys() & SOURCES:
        settings[name] = Path(str(settings[name])).name
    return tomlkit.dumps(settings).encode()


def predictions_of(path: Path, test_data: str) -> bytes:
    """What was judged of each text; the words of the answer, which quote the note, for the sample alone."""
    if is_sample(test_data):
        return path.read_bytes()
    predictions = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return "".join(json.dumps(each | {"completion": ""}) + "\n" for each in predictions).encode()


def games_of(run: Path) -> bytes:
    """A line for each game: how it was meant, what is true of it, and what the Assessor said and earned.

    Where gold pairs alone were learnt there is none.
    """
    games = read_rows(run / "episodes.jsonl")
    lines = [
        {name: game[name] for name in OF_A_GAME}
        | {"accepted": game["modified"] is not None, "right_words": right_words(game)}
        for game in games
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def right_words(game: Mapping[str, Any]) -> bool | None:
    """Whether the Assessor wrote the very words that an accepted error took out; None for any other game."""
    taken_out = [edit["original"].casefold() for edit in game["edits"] if edit["original"]]
    if game["mode"] != "error" or game["assessor_completion"] is None or not taken_out:
        return None
    said = game["assessor_completion"].casefold()
    return all(words in said for words in taken_out)


def keep(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.xz").write_bytes(lzma.compress(content))
    print(f"kept: {folder}", flush=True)


def medserl(*arguments: object) -> int:
    """Runs a command; returns its exit code."""
    print("$ medserl", *arguments, flush=True)
    return run_python("-m", "medserl.cli", *arguments)


def play_control(name: str, *arguments: object) -> int:
    """Trains by a trainer of `controls.py`; returns the exit code."""
    print("$ controls.py", name, *arguments, flush=True)
    return run_python(HERE / "controls.py", name, *arguments)


def run_python(*arguments: object) -> int:
    command: Sequence[str] = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    main()
