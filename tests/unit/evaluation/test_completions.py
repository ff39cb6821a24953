"""The cache of completions: what it keeps apart, what it never asks twice, and what an interruption leaves of it."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medserl.config import Settings
from medserl.engines.base import Sampling
from medserl.engines.scripted import ScriptedEngine
from medserl.errors import ModelError, RunError
from medserl.evaluation.completions import COMPLETIONS, CachedEngine, CompletionCache, model_identity
from medserl.evaluation.predict import COMPLETIONS_AT_ONCE, predict
from medserl.evaluation.predictions import LabelledText, Prediction
from medserl.game.episode import Completion
from medserl.game.prompts import Messages, load_prompts
from medserl.models import pick_dtype
from medserl.rollout import VCFRolloutGenerator

GREEDY = Sampling(16, temperature=0.0)
TEXTS = [
    LabelledText(f"t{i}", f"Note {i} says 38.3 °C\u2028and more.", is_error=False)
    for i in range(2 * COMPLETIONS_AT_ONCE + 10)
]


class Counting(ScriptedEngine):
    """Counts the prompts it answers; may fail at its n-th call."""

    def __init__(self, fails_at: int | None = None) -> None:
        super().__init__(lambda messages, rng: f"Ünsure {rng.random()}\nfinal_answer: INCORRECT")
        self.calls: list[int] = []
        self.weighed = 0
        self.fails_at = fails_at

    def generate(self, prompts: Sequence[Messages], sampling: Sampling) -> list[Completion]:
        self.calls.append(len(prompts))
        if len(self.calls) == self.fails_at:
            raise KeyboardInterrupt
        return super().generate(prompts, sampling)

    def reply_probabilities(
        self, prompts: Sequence[Messages], replies: Sequence[tuple[str, ...]]
    ) -> list[tuple[float, ...]]:
        self.weighed += len(prompts)
        return [(0.25, 0.75)] * len(prompts)


def rollout(engine: ScriptedEngine, **settings: Any) -> VCFRolloutGenerator:
    return VCFRolloutGenerator(engine, load_prompts("term", "edit"), Settings(engine="scripted", **settings))


def judged(folder: Path, engine: ScriptedEngine, model: str = "m", seed: int = 0, **options: Any) -> list[Prediction]:
    with CompletionCache(folder, model) as cache:
        return predict(rollout(engine, seed=seed), TEXTS, cache=cache, **options)


# -- resuming ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [1, 3])
def test_an_interrupted_evaluation_goes_on_where_it_stopped(tmp_path: Path, samples: int) -> None:
    options = {"samples": samples, "probabilities": True}
    with pytest.raises(KeyboardInterrupt):
        judged(tmp_path, broken := Counting(fails_at=3), **options)
    resumed = Counting()
    found = judged(tmp_path, resumed, **options)
    size = COMPLETIONS_AT_ONCE // samples * samples
    assert (broken.calls[:2], len(broken.calls)) == ([size] * 2, 3)
    assert sum(resumed.calls) == len(TEXTS) * samples - 2 * size
    assert found == judged(tmp_path, idle := Counting(), **options)
    assert (idle.calls, idle.weighed) == ([], 0)
    if samples > 1:  # with seeds of their own the completions are those of an evaluation in one go
        assert found == predict(rollout(Counting()), TEXTS, **options)


JUDGE = """
import sys, time
from pathlib import Path
from medserl.config import Settings
from medserl.engines.scripted import ScriptedEngine
from medserl.evaluation.completions import CompletionCache
from medserl.evaluation.predict import predict
from medserl.evaluation.predictions import LabelledText
from medserl.game.prompts import load_prompts
from medserl.rollout import VCFRolloutGenerator

class Stuck(ScriptedEngine):
    calls = 0
    def generate(self, prompts, sampling):
        self.calls += 1
        if self.calls == 2:
            print("first batch is done", flush=True)
            time.sleep(600)
        return super().generate(prompts, sampling)

texts = [LabelledText(f"t{i}", f"Note {i}.", False) for i in range(200)]
rollout = VCFRolloutGenerator(Stuck(), load_prompts("term", "edit"), Settings(engine="scripted"))
with CompletionCache(Path(sys.argv[1]), "m") as cache:
    predict(rollout, texts, cache=cache)
"""


def test_a_killed_process_leaves_every_finished_batch(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", JUDGE, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "first batch is done\n"
    with pytest.raises(RunError, match="another evaluation writes there"):
        CompletionCache(tmp_path, "m")
    process.kill()
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    texts = [LabelledText(f"t{i}", f"Note {i}.", is_error=False) for i in range(200)]
    engine = Counting()
    with CompletionCache(tmp_path, "m") as cache:
        assert len(cache) == COMPLETIONS_AT_ONCE
        predict(rollout(engine), texts, cache=cache)
    assert sum(engine.calls) == 200 - COMPLETIONS_AT_ONCE


def test_a_torn_last_line_is_dropped_with_one_line_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = judged(tmp_path, Counting())
    file = tmp_path / COMPLETIONS
    whole = file.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for cut in (last + 1, len(whole) - 1):
        file.write_bytes(whole[:cut])
        caplog.clear()
        with caplog.at_level(logging.WARNING, "medserl"):
            again = judged(tmp_path, engine := Counting())
        assert [record.message for record in caplog.records] == [f"{file}: the last line is incomplete and was dropped"]
        assert engine.calls == [1]
        assert [one.text_id for one in again if one not in found] in ([], [TEXTS[-1].text_id])
        assert len(file.read_bytes().splitlines()) == len(TEXTS)
        judged(tmp_path, idle := Counting())
        assert idle.calls == []


def test_a_damaged_line_is_named_and_frees_the_folder(tmp_path: Path) -> None:
    judged(tmp_path, Counting())
    file = tmp_path / COMPLETIONS
    lines = file.read_bytes().splitlines(keepends=True)
    for damage in (b"{not json\n", b"[]\n", b'{"model": "m"}\n', b"\n"):
        file.write_bytes(b"".join([*lines[:2], damage, *lines[2:]]))
        with pytest.raises(RunError, match=rf"{COMPLETIONS}, line 3: damaged; delete the file"):
            CompletionCache(tmp_path, "m")
    file.unlink()
    with CompletionCache(tmp_path, "m") as cache:
        assert len(cache) == 0


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(RunError, match=r"folder: cannot be written: "):
        CompletionCache(tmp_path / "file" / "folder", "m")


# -- what is kept apart, and what is kept ------------------------------------------------------------------


def test_models_never_mix(tmp_path: Path) -> None:
    found = {model: judged(tmp_path, Counting(), model) for model in ("m", "other")}
    judged(tmp_path, third := Counting(), "third")
    assert sum(third.calls) == len(TEXTS)
    for model, before in found.items():
        assert judged(tmp_path, idle := Counting(), model) == before
        assert idle.calls == []


@pytest.mark.parametrize(
    "change",
    [
        {"samples": 2},
        {"samples": 3, "seed": 1},
        {"samples": 4},  # what the first three said is known
    ],
)
def test_other_prompts_and_decoding_are_asked_anew(tmp_path: Path, change: dict[str, Any]) -> None:
    judged(tmp_path, Counting())
    judged(tmp_path, Counting(), samples=3)
    judged(tmp_path, engine := Counting(), **change)
    new = {2: 0, 4: 1}.get(change.get("samples", 0), change.get("samples", 1))
    assert sum(engine.calls) == new * len(TEXTS)


@pytest.mark.parametrize(
    "other",
    [
        replace(GREEDY, max_new_tokens=17),
        Sampling(16, seeds=(1,)),
        Sampling(16, temperature=0.5, seeds=(1,)),
        Sampling(16, top_p=0.5, seeds=(1,)),
        Sampling(16, seeds=(2,)),
    ],
)
def test_every_decoding_setting_counts(tmp_path: Path, other: Sampling) -> None:
    prompt = load_prompts("term", "edit").assessor("A note.")
    everything = [GREEDY, Sampling(16, seeds=(1,)), Sampling(16, seeds=(2,)), Sampling(16, 0.5, seeds=(1,))]
    with CompletionCache(tmp_path, "m") as cache:
        engine = CachedEngine(counting := Counting(), cache)
        for each in everything:
            if each != other:
                engine.generate([prompt], each)
        before = len(counting.calls)
        first = engine.generate([prompt], other)
        assert len(counting.calls) == before + 1
        assert engine.generate([prompt], other) == first
        assert len(counting.calls) == before + 1


def test_a_greedy_completion_does_not_depend_on_seed_or_nucleus(tmp_path: Path) -> None:
    prompt = load_prompts("term", "edit").assessor("A note.")
    with CompletionCache(tmp_path, "m") as cache:
        engine = CachedEngine(counting := Counting(), cache)
        first = engine.generate([prompt], GREEDY)
        assert engine.generate([prompt], replace(GREEDY, seed=5, top_p=0.9)) == first
        assert counting.calls == [1]


def test_samples_without_seeds_of_their_own_are_refused(tmp_path: Path) -> None:
    with CompletionCache(tmp_path, "m") as cache, pytest.raises(ValueError, match="a seed of its own"):
        CachedEngine(Counting(), cache).generate([load_prompts("term", "edit").assessor("A note.")], Sampling(16))


def test_a_prompt_that_stands_twice_is_asked_once_and_order_is_kept(tmp_path: Path) -> None:
    prompts = [load_prompts("term", "edit").assessor(note) for note in ("a", "b", "a", "c", "b")]
    with CompletionCache(tmp_path, "m") as cache:
        engine = CachedEngine(counting := Counting(), cache)
        done = engine.generate(prompts, GREEDY)
        assert counting.calls == [3]
        assert done[0] == done[2] != done[1] == done[4] != done[3]
        assert engine.generate([prompts[3], prompts[0]], GREEDY) == [done[3], done[0]]
        pairs = [("x", "y"), ("x", "y"), ("x", "y"), ("x", "z"), ("x", "z")]
        assert engine.reply_probabilities(prompts, pairs) == [(0.25, 0.75)] * 5
        assert counting.weighed == 4


def test_probabilities_are_added_to_completions_that_are_there(tmp_path: Path) -> None:
    plain = judged(tmp_path, Counting())
    found = judged(tmp_path, engine := Counting(), probabilities=True)
    assert (engine.calls, engine.weighed) == ([], len(TEXTS))
    assert [replace(one, p_incorrect=None) for one in found] == plain
    assert {one.p_incorrect for one in found} == {0.75}


def test_the_file_holds_completions_and_no_prompts(tmp_path: Path) -> None:
    judged(tmp_path, Counting(), probabilities=True)
    rows = [json.loads(line) for line in (tmp_path / COMPLETIONS).read_bytes().splitlines()]
    assert {row["model"] for row in rows} == {"m"}
    assert all(row.keys() == {"model", "key", "value"} for row in rows)
    assert not any("38.3" in json.dumps(row, ensure_ascii=False) for row in rows)


# -- which model -------------------------------------------------------------------------------------------


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "README.md"):
        (folder / name).write_text(name, encoding="utf-8")
    return folder


def identity(folder: Path, **changes: Any) -> str:
    options = {"model": str(folder), "adapter": "none", "device": "cpu", "engine": "local"}
    return model_identity(Settings(**{**options, **changes}))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"])
def test_every_file_that_decides_an_answer_is_in_the_identity(model_folder: Path, name: str) -> None:
    before = identity(model_folder)
    assert identity(model_folder) == before
    (model_folder / name).write_text("other", encoding="utf-8")
    assert identity(model_folder) != before


def test_files_that_decide_nothing_are_not(model_folder: Path, tmp_path: Path) -> None:
    before = identity(model_folder)
    (model_folder / "README.md").write_text("other", encoding="utf-8")
    assert identity(model_folder) == before
    moved = model_folder.rename(tmp_path / "elsewhere")
    assert identity(moved) == before


def test_dtype_thinking_engine_and_adapter_are_in_the_identity(model_folder: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA"}', encoding="utf-8")
    for name in ("adapter_model.safetensors", "optimizer.pt"):
        (adapter / name).write_text(name, encoding="utf-8")
    changes: list[dict[str, Any]] = [
        {},
        {"dtype": "float16"},
        {"thinking": True},
        {"engine": "vllm"},
        {"engine": "scripted"},
        {"adapter": str(adapter)},
    ]
    found = [identity(model_folder, **change) for change in changes]
    assert len(set(found)) == len(found)
    assert identity(model_folder, dtype=pick_dtype("auto", "cpu"), seed=7, rollout_batch_size=8) == found[0]
    (adapter / "optimizer.pt").write_text("other", encoding="utf-8")
    assert identity(model_folder, adapter=str(adapter)) == found[-1]
    (adapter / "adapter_model.safetensors").write_text("other", encoding="utf-8")
    assert identity(model_folder, adapter=str(adapter)) not in found


def test_a_hub_model_is_known_by_its_files_in_the_hubs_cache(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def cached(repo: str, file: str) -> str | None:
        return str(model_folder / file) if repo == "owner/name" else None

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    assert identity(Path("owner/name")) == identity(model_folder)
    with pytest.raises(ModelError, match="not on this machine"):
        identity(Path("owner/other"))
