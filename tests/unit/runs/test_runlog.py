"""A run's folder: one owner at a time, checkpoints whole or not at all, records that survive a kill."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.config import Settings
from medserl.errors import ConfigError, RunError
from medserl.runs.runlog import EPISODES, METRICS, TRAIN_LOG, RunFolder, read_rows


def settings_for(path: Path, **changes: object) -> Settings:
    return Settings(output_dir=str(path), tensorboard=False, **changes)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    folder = RunFolder.create(settings_for(tmp_path / "run"))
    yield folder
    folder.close()


def write_weights(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(b"weights")


def save(run: RunFolder, number: int, keep: int = 3) -> Path:
    return run.save_checkpoint({"round": number, "sampler": {"epoch": 1}}, write_weights, keep)


def one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    text = str(error.value)
    assert text
    assert "\n" not in text
    return text


# -- a new run, a resumed run ------------------------------------------------------------------------------


def test_settings_come_back_from_disk(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run"
    settings = settings_for(path, kl_coef=0.02, seed=7, prompts='a "quoted" \\ path', max_rounds=3)
    RunFolder.create(settings).close()
    run, reopened = RunFolder.reopen(path)
    run.close()
    assert reopened == settings
    assert (path / "config.toml").read_text(encoding="utf-8").startswith("# medserl ")


def test_a_folder_with_a_run_in_it_is_refused(run: RunFolder, tmp_path: Path) -> None:
    run.log_round({"round": 1})
    run.close()
    with pytest.raises(RunError, match="there is a run in this folder; go on with --resume") as caught:
        RunFolder.create(settings_for(run.path))
    one_line(caught)
    with pytest.raises(RunError, match=r"no config\.toml there") as caught:
        RunFolder.reopen(tmp_path / "nowhere")
    one_line(caught)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="cannot write there") as caught:
        RunFolder.create(settings_for(tmp_path / "file" / "run"))
    one_line(caught)


def test_what_lies_in_the_folder_already_stays(tmp_path: Path) -> None:
    mine = [".bashrc.old", ".notes.partial", "checkpoints/.mine.old"]
    for name in mine:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    tmp_path.chmod(0o755)
    run = RunFolder.create(settings_for(tmp_path))
    save(run, 1)
    run.forget_after(1)
    run.close()
    assert all((tmp_path / name).read_text() == "mine" for name in mine) and tmp_path.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("name", ["no\nline", 'a "quoted" # name', "≥"])
def test_a_change_to_any_name_is_written_down(run: RunFolder, name: str) -> None:
    run.record_changes({"prompt_data": ("sample", name)}, 3)
    run.close()
    again, settings = RunFolder.reopen(run.path)
    again.close()
    assert settings.prompt_data == name


def test_an_edited_config_is_checked(run: RunFolder) -> None:
    run.close()
    config = run.path / "config.toml"
    config.write_text(config.read_text(encoding="utf-8").replace("kl_coef", "kl_coeff"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config\.toml: unknown setting 'kl_coeff'; did you mean 'kl_coef'\?"):
        RunFolder.reopen(run.path)


def test_another_process_holds_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "run"
    code = (
        "import sys\nfrom pathlib import Path\nfrom medserl.config import Settings\n"
        "from medserl.runs.runlog import RunFolder\n"
        "run = RunFolder.create(Settings(output_dir=sys.argv[1], tensorboard=False))\n"
        "print('held', flush=True)\nsys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RunError, match="another run is using this folder") as caught:
            RunFolder.create(settings_for(path))
        one_line(caught)
        with pytest.raises(RunError, match="another run is using this folder"):
            RunFolder.reopen(path)
        other.stdin.close()
        assert other.wait() == 0
    run, _ = RunFolder.reopen(path)  # the lock went with its process
    run.close()


# -- records -----------------------------------------------------------------------------------------------


def test_a_round_is_one_line_in_each_file(run: RunFolder) -> None:
    run.log_round({"round": 1, "vcf_acceptance_rate": 0.123456789, "mean_reward": None, "note": "a b"})
    assert read_rows(run.path / METRICS) == [
        {"round": 1, "vcf_acceptance_rate": 0.123456789, "mean_reward": None, "note": "a b"}
    ]
    (line,) = (run.path / TRAIN_LOG).read_text(encoding="utf-8").splitlines()
    stamp, *pairs = line.split(" ")
    assert stamp[:2] == "20"
    assert pairs == ["round=1", "vcf_acceptance_rate=0.123457", "mean_reward=None", "note=a_b"]


def test_resuming_forgets_rounds_that_no_checkpoint_holds(run: RunFolder) -> None:
    for number in range(5):
        run.log_round({"round": number})
        run.log_episodes({"round": number, "note_id": f"{number}{game}"} for game in "ab")
    run.forget_after(2)
    assert [row["round"] for row in read_rows(run.path / METRICS)] == [0, 1, 2]
    assert [row["note_id"] for row in read_rows(run.path / EPISODES)] == ["0a", "0b", "1a", "1b", "2a", "2b"]
    run.log_round({"round": 3})
    assert [row["round"] for row in read_rows(run.path / METRICS)] == [0, 1, 2, 3]
    run.forget_after(-1)
    assert read_rows(run.path / METRICS) == read_rows(run.path / EPISODES) == []


@pytest.mark.parametrize("torn", ['{"round": 2, "vcf_acc', '{"round": 2}', '{"round": 2, "t": "±'])
def test_an_incomplete_last_line_is_left_out(run: RunFolder, torn: str, caplog: pytest.LogCaptureFixture) -> None:
    run.log_round({"round": 1})
    with (run.path / METRICS).open("a", encoding="utf-8") as file:
        file.write(torn)
    with caplog.at_level(logging.WARNING, "medserl"):
        assert read_rows(run.path / METRICS) == [{"round": 1}]
    assert "the last line is incomplete" in caplog.text
    run.forget_after(1)
    run.log_round({"round": 2})
    assert read_rows(run.path / METRICS) == [{"round": 1}, {"round": 2}]


def test_a_last_line_cut_inside_a_character_is_left_out(run: RunFolder) -> None:
    run.log_episodes([{"round": 1, "modified": "5 ≥ 3"}])
    with (run.path / EPISODES).open("ab") as file:
        file.write('{"round": 2, "modified": "≥'.encode()[:-1])
    assert read_rows(run.path / EPISODES) == [{"round": 1, "modified": "5 ≥ 3"}]


def test_rows_of_no_file_are_none(tmp_path: Path) -> None:
    assert read_rows(tmp_path / METRICS) == []


@given(text=st.text(max_size=30))
def test_any_text_of_a_game_comes_back(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """U+2028, U+0085 and their kin end a line for str.splitlines, but not in JSON Lines."""
    path = tmp_path_factory.getbasetemp() / EPISODES
    path.unlink(missing_ok=True)
    run = RunFolder(path.parent)
    records = [{"round": 1, "modified": text}, {"round": 1, "modified": f"a\u2028b\u0085c{text}"}]
    run.log_episodes(records)
    assert read_rows(path) == records


# -- checkpoints -------------------------------------------------------------------------------------------


def test_a_checkpoint_holds_weights_and_state(run: RunFolder) -> None:
    assert run.latest_checkpoint() is None
    folder = save(run, 5)
    assert folder == run.path / "checkpoints" / "round_5"
    assert (folder / "weights.bin").read_bytes() == b"weights"
    assert run.latest_checkpoint() == (folder, {"round": 5, "sampler": {"epoch": 1}})


def test_only_the_newest_are_kept(run: RunFolder) -> None:
    for number in (2, 9, 10, 11):  # by number, not by name
        save(run, number, keep=2)
    assert [folder.name for folder in run.checkpoints()] == ["round_10", "round_11"]
    assert run.latest_checkpoint()[1]["round"] == 11


def test_a_round_saved_again_replaces_its_checkpoint(run: RunFolder) -> None:
    save(run, 1)
    run.save_checkpoint({"round": 1}, lambda folder: (folder / "other.bin").write_bytes(b""), 3)
    (folder,) = run.checkpoints()
    assert sorted(file.name for file in folder.iterdir()) == ["manifest.json", "other.bin", "trainer_state.json"]


def test_an_error_that_says_what_happened_is_left_as_it_is(run: RunFolder) -> None:
    def fail(_folder: Path) -> None:
        raise RunError("a training rank died: SIGKILL")

    with pytest.raises(RunError, match=r"^a training rank died: SIGKILL$"):
        run.save_checkpoint({"round": 1}, fail, 3)
    assert run.latest_checkpoint() is None


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("write failed\nat byte 0")])
@pytest.mark.parametrize("number", [1, 2])  # the same round again, and the next one
def test_a_writer_that_fails_leaves_the_older_checkpoints(run: RunFolder, error: Exception, number: int) -> None:
    save(run, 1)
    before = snapshot(run.path / "checkpoints")

    def fail(folder: Path) -> None:
        write_weights(folder)
        raise error

    with pytest.raises(RunError, match=f"round_{number} could not be written") as caught:
        run.save_checkpoint({"round": number}, fail, 3)
    one_line(caught)
    assert snapshot(run.path / "checkpoints") == before
    assert run.latest_checkpoint()[1]["round"] == 1


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_what_a_killed_run_left_behind_is_no_checkpoint(run: RunFolder) -> None:
    save(run, 1)
    partial = run.path / "checkpoints" / ".round_2.partial"
    partial.mkdir()
    write_weights(partial)
    (run.path / "checkpoints" / "round_3").mkdir()  # no state in it
    assert [folder.name for folder in run.checkpoints()] == ["round_1"]
    save(run, 2)
    assert not partial.exists()
    assert run.latest_checkpoint()[1]["round"] == 2


WRITERS = {
    "plain": "lambda folder: (folder / 'weights.bin').write_bytes(bytes(200_000))",
    "torch": "lambda folder: __import__('torch').save(__import__('torch').zeros(50_000), folder / 'a.pt')",
    "safetensors": (
        "lambda folder: __import__('safetensors.torch').torch.save_file("
        "{'a': __import__('torch').zeros(50_000)}, folder / 'a.safetensors')"
    ),
}


@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_FSIZE on Windows")
@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_one_line_and_costs_no_older_checkpoint(tmp_path: Path, writer: str) -> None:
    """A limit on the size of files stands for a full disk: writing fails in the middle of the weights."""
    code = f"""
import json, resource, sys
from pathlib import Path
from medserl.config import Settings
from medserl.errors import RunError
from medserl.runs.runlog import RunFolder

run = RunFolder.create(Settings(output_dir=sys.argv[1], tensorboard=False))
run.save_checkpoint({{"round": 1}}, lambda folder: None, 3)
writer = {WRITERS[writer]}
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    run.save_checkpoint({{"round": 2}}, writer, 1)
except RunError as error:
    print(json.dumps(str(error)))
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    message = json.loads(done.stdout)
    assert "round_2 could not be written" in message
    assert "free some space" in message
    assert "\n" not in message
    assert sorted(snapshot(tmp_path / "checkpoints")) == ["round_1/manifest.json", "round_1/trainer_state.json"]


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_records_on_a_full_disk_are_one_line(run: RunFolder) -> None:
    (run.path / METRICS).symlink_to("/dev/full")
    with pytest.raises(RunError, match=r"metrics\.jsonl: cannot be written: No space left") as caught:
        run.log_round({"round": 1})
    one_line(caught)
