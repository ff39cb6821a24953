"""vLLM's side of the engine for one GPU, on a recorder of what vLLM is asked; tests/openrlhf runs vLLM itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from medserl.config import Settings
from medserl.engines import create_engine, vllm_player, vllm_process, vllm_training
from medserl.engines.base import Sampling, UpdateStats
from medserl.engines.vllm_player import VLLMPlayer
from medserl.engines.vllm_training import VLLMTrainingEngine
from medserl.engines.vllm_worker import WeightReader
from medserl.errors import ConfigError, RunError


class EngineDead(Exception):
    """`vllm.v1.engine.exceptions.EngineDeadError`."""


class Recorder:
    """`vllm.LLM`: what it was asked, in order; `breaks` says at what it fails and how."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.breaks: dict[str, Exception] = {}
        self.model_config = SimpleNamespace(max_model_len=64, dtype="torch.bfloat16")
        core = SimpleNamespace(shutdown=lambda: self._note("shutdown"))
        self.llm_engine = SimpleNamespace(
            engine_core=core,
            add_lora=lambda request: self._note("add", request.lora_name, sorted(os.listdir(request.path))),
            remove_lora=lambda number: self._note("remove", number),
        )

    def _note(self, what: str, *rest: Any) -> None:
        if what in self.breaks:
            raise self.breaks[what]
        self.asked.append((what, *rest))

    def collective_rpc(self, name: str, args: Any = ()) -> list[Any]:
        self._note(name, *(sorted(os.listdir(folder)) for folder in args))
        return [None]

    def reset_prefix_cache(self) -> None:
        self._note("reset_prefix_cache")

    def sleep(self, level: int) -> None:
        self._note("sleep", level)

    def wake_up(self) -> None:
        self._note("wake_up")


def write(folder: Path) -> None:
    folder.mkdir()
    (folder / "adapter_model.safetensors").touch()


@pytest.fixture
def llm(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    def request(name: str, number: int, path: str) -> Any:
        return SimpleNamespace(lora_name=name, lora_int_id=number, path=path)

    parts: dict[str, dict[str, Any]] = {
        "vllm": {},
        "vllm.v1": {},
        "vllm.v1.engine": {},
        "vllm.v1.engine.exceptions": {"EngineDeadError": EngineDead},
        "vllm.lora": {},
        "vllm.lora.request": {"LoRARequest": request},
    }
    for name, content in parts.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return Recorder()


@pytest.fixture
def player(llm: Recorder, monkeypatch: pytest.MonkeyPatch) -> VLLMPlayer:
    monkeypatch.setattr("medserl.engines.vllm.ChatRenderer", lambda *_: None)
    return VLLMPlayer(llm, None, frozenset(), Settings(), "raw_logprobs", lambda role: role)


# -- adapters ----------------------------------------------------------------------------------------------


def test_an_adapter_never_keeps_its_name_and_the_old_one_goes(llm: Recorder, player: VLLMPlayer) -> None:
    """vLLM's prefix cache knows adapters by name alone: under the same name it would go on from what the old one
    read."""
    for name in ("assessor", "injector", "assessor", "assessor"):
        player.take_adapter(name, write, size=10)
    added = [each[1] for each in llm.asked if each[0] == "add"]
    assert len(set(added)) == 4
    assert all(each[2] == ["adapter_model.safetensors"] for each in llm.asked if each[0] == "add")
    assert [each for each in llm.asked if each[0] == "remove"] == [("remove", 1), ("remove", 3)]
    assert player._lora_of(Sampling(4, role="assessor")).lora_name == added[-1]
    assert player._lora_of(Sampling(4, role="injector")).lora_name == added[1]


def test_nothing_of_the_weights_stays_on_disk(
    llm: Recorder, player: VLLMPlayer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_player, "IN_MEMORY", tmp_path)
    player.take_adapter("assessor", write, size=10)
    llm.breaks["add"] = RuntimeError("no")
    with pytest.raises(RunError):
        player.take_adapter("assessor", write, size=10)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_memory_has_no_room_for_go_through_a_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_player, "IN_MEMORY", tmp_path / "shm")
    (tmp_path / "shm").mkdir()
    with vllm_player.files_in_memory(10) as folder:
        assert folder.parent == tmp_path / "shm"
    with vllm_player.files_in_memory(2**60) as folder:
        assert folder.parent != tmp_path / "shm" and folder.is_dir()


@pytest.mark.parametrize("failing", ["add", "sleep", "wake_up", "read_weights"])
@pytest.mark.parametrize(
    ("error", "line"),
    [
        (EngineDead("a long\ntrace"), "vLLM's process died, see its own lines above"),
        (RuntimeError("CUDA out of memory\nand a trace"), r"^vLLM cannot .*: CUDA out of memory$"),
    ],
)
def test_whatever_vllm_raises_is_one_line(
    llm: Recorder, player: VLLMPlayer, failing: str, error: Exception, line: str
) -> None:
    def ask_all() -> None:
        player.take_adapter("assessor", write, size=10)
        player.sleep()
        player.wake()
        player.take_weights(write, size=10)

    llm.breaks[failing] = error
    with pytest.raises(RunError, match=line) as stopped:
        ask_all()
    assert "\n" not in str(stopped.value)


@pytest.mark.parametrize("taken", ["adapter", "weights"])
def test_a_full_disk_is_one_line_and_leaves_the_adapter_before(llm: Recorder, player: VLLMPlayer, taken: str) -> None:
    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    player.take_adapter("assessor", write, size=10)
    before = player._lora_of(Sampling(4, role="assessor"))
    with pytest.raises(RunError, match=r"^vLLM cannot take the new .*: .*No space left on device$"):
        player.take_adapter("assessor", full, size=10) if taken == "adapter" else player.take_weights(full, size=10)
    assert player._lora_of(Sampling(4, role="assessor")) is before


def test_new_weights_forget_what_the_old_ones_read(llm: Recorder, player: VLLMPlayer) -> None:
    player.take_weights(write, size=10)
    assert llm.asked == [("read_weights", ["adapter_model.safetensors"]), ("reset_prefix_cache",)]


# -- taking turns ------------------------------------------------------------------------------------------


class Learner:
    """The local engine, as far as the order of things goes."""

    def __init__(self, llm: Recorder) -> None:
        self.llm = llm
        self.adapters = SimpleNamespace(
            trained=["default"],
            size=lambda name: 10,
            write=lambda name, folder: write(folder),
        )

    def __getattr__(self, name: str) -> Any:
        def note(*_: Any, **__: Any) -> Any:
            self.llm._note(name)
            stats = UpdateStats(
                loss=0, grad_norm=1, clip_fraction=0, entropy=0, logprob_gap=0, optimizer_steps=1, tokens=1,
                logprob_gap_mean=0.25, gap_explained=0.01,
            )  # fmt: skip
            return stats if name == "update" else []

        return note


@pytest.mark.parametrize("sleeps", [True, False])
def test_learning_has_the_gpu_to_itself_where_vllm_sleeps(
    llm: Recorder, player: VLLMPlayer, sleeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Level 1: at level 2 vLLM loses the buffers of adapters."""
    monkeypatch.setattr(VLLMPlayer, "generate", lambda self, *_: llm._note("generate") or [])
    engine = VLLMTrainingEngine.__new__(VLLMTrainingEngine)
    engine.player, engine.learner, engine._sleeps = player, Learner(llm), sleeps  # type: ignore[assignment]
    engine._adapters = engine.learner.adapters
    engine.generate([], Sampling(4))
    engine.logprobs([], reference=True)
    turn: Any = SimpleNamespace(old_logprobs=(0.1,))
    stats = engine.update([turn], learning_rate=1.0)
    engine.sync()
    engine.generate([], Sampling(4))
    engine.reply_probabilities([], [])
    happened = [each[0] for each in llm.asked]
    awake = ["generate", "logprobs", "update", "add", "generate", "reply_probabilities"]
    asleep = ["generate", "sleep", "logprobs", "update", "wake_up", "add", "generate", "sleep"]
    asleep += ["reply_probabilities"]
    assert happened == (asleep if sleeps else awake)
    assert all(each == ("sleep", 1) for each in llm.asked if each[0] == "sleep")
    assert stats.vllm_kl == 0.25
    assert stats.gap_explained == 0.4, "bfloat16 in another program"
    example: Any = SimpleNamespace(old_logprobs=None)
    assert engine.update([example], learning_rate=1.0).vllm_kl is None


# -- a process that dies -----------------------------------------------------------------------------------


class Dying:
    """A process that is dead from the second look on."""

    pid = None

    def __init__(self) -> None:
        self.looks = 0

    def is_alive(self) -> bool:
        self.looks += 1
        if self.looks > 2:
            raise ValueError("process object is closed")
        return self.looks < 2


def test_an_answer_that_never_comes_is_not_waited_for(llm: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM's own client would wait for ever."""
    monkeypatch.setattr(vllm_process, "LOOKED_AFTER", 0.01)
    monkeypatch.setattr(vllm_process, "LAST_WORDS", 0.01)
    never = threading.Event()
    with pytest.raises(RunError, match="vLLM's process died"):
        vllm_process.VLLMProcess([Dying()]).ask(never.wait)
    never.set()


def test_answers_and_errors_of_a_process_that_lives_are_its_own(llm: Recorder) -> None:
    process = vllm_process.VLLMProcess([Living()])
    assert process.ask(lambda: 7) == 7
    empty: dict[str, int] = {}
    with pytest.raises(KeyError, match="mine"):
        process.ask(lambda: empty["mine"])


class Living:
    pid = None

    def is_alive(self) -> bool:
        return True


WITH_A_CHILD = """
import multiprocessing, os, signal, time
from medserl.engines.vllm_process import start_process

def make():
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    child.start()
    blocked = next(line for line in open(f"/proc/{child.pid}/status") if line.startswith("SigBlk"))
    print(child.pid, blocked.split()[1], flush=True)

if __name__ == "__main__":
    _, process = start_process(make)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_vllms_processes_end_with_ours_though_it_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(WITH_A_CHILD, encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    pid, blocked = done.stdout.split()
    assert int(blocked, 16) >> (signal.SIGINT - 1) & 1, "Ctrl-C would reach it"
    child = Path(f"/proc/{pid}/stat")
    deadline = time.monotonic() + 60
    while child.exists() and child.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline, "the child lives"


# -- what is refused ---------------------------------------------------------------------------------------


def test_what_one_gpu_cannot_do_is_refused_before_vllm_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_training, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="vLLM is not installed; pip install"):
        create_engine(Settings(engine="vllm", adapter="none"))
    monkeypatch.setattr(vllm_training, "find_spec", lambda name: name)
    with pytest.raises(ConfigError, match="async_rollout plays and learns at the same time"):
        create_engine(Settings(engine="vllm", adapter="none", async_rollout=True))


class Layer:
    def __init__(self, numbers: int) -> None:
        self.weight = SimpleNamespace(numel=lambda: numbers)


def test_weights_that_vllm_has_thrown_away_cannot_be_replaced(llm: Recorder, player: VLLMPlayer) -> None:
    reader = WeightReader()
    layers = {"norm": SimpleNamespace(), "up": Layer(4), "down": Layer(0)}
    reader.model_runner = SimpleNamespace(model=SimpleNamespace(named_modules=layers.items))
    assert reader.lost_weight() == "down"
    engine = VLLMTrainingEngine.__new__(VLLMTrainingEngine)
    engine.player, engine._adapters = player, None
    engine._require_replaceable()
    llm.collective_rpc = lambda name: [reader.lost_weight()]  # type: ignore[method-assign, assignment]
    with pytest.raises(ConfigError, match="has repacked those of down"):
        engine._require_replaceable()


def test_vllms_processes_do_not_get_the_terminals_ctrl_c() -> None:
    """The mask of blocked signals is what a started process inherits."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with vllm_process._left_alone_by_ctrl_c():
        assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
