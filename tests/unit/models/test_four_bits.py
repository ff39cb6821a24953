"""Frozen weights in 4 bits: what is refused, and what the rule of memory says. Nothing here needs bitsandbytes."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from medserl.cli import main
from medserl.config import Settings, validate
from medserl.engines import create_engine, inference_engine_name, training_engine_name
from medserl.errors import ConfigError
from medserl.evaluation.completions import model_identity
from medserl.evaluation.thresholds import weights_key
from medserl.models import footprint, four_bits
from medserl.models.footprint import GB, Shape, estimate, fit, fitted, known_config
from medserl.models.four_bits import BYTES_A_WEIGHT

QWEN_4B, QWEN_8B = (Shape.of(known_config(f"Qwen/Qwen3-{size}")) for size in ("4B", "8B"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lora_rank": 0}, "load_in_4bit freezes the weights, so an adapter is trained: it needs lora_rank above 0"),
        ({"engine": "vllm"}, "load_in_4bit is for --engine local: vllm would play with other weights"),
        ({"engine": "openrlhf"}, "load_in_4bit is for --engine local: openrlhf would play with other weights"),
    ],
)
def test_settings_that_do_not_go_with_it_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate({"load_in_4bit": True, **changes})
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert validate(changes) and validate({"load_in_4bit": True})


def without_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(four_bits, "find_spec", lambda name: None)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    assert stopped.value.code == 2
    (line,) = [each for each in capsys.readouterr().err.splitlines() if not each.startswith(("info: ", "warning: "))]
    return line


@pytest.mark.parametrize("command", ["train", "sft", "evaluate", "predict", "play", "serve", "pipeline"])
def test_without_bitsandbytes_every_command_says_so_before_anything_is_read_or_written(
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    tiny_llama: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    without_bitsandbytes(monkeypatch)
    monkeypatch.setattr("medserl.models.read_tokenizer", lambda *_: pytest.fail("the model is read"))
    note = tmp_path / "note.txt"
    note.write_text("He has fever. He rests.", encoding="utf-8")
    more = {
        "train": ["--output-dir", str(tmp_path / "run")],
        "sft": ["--output", str(tmp_path / "warm")],
        "evaluate": ["--data", "sample", "--output", str(tmp_path / "eval")],
        "predict": [str(note), "--output", str(tmp_path / "said.jsonl")],
        "play": ["--note", str(note)],
        "serve": ["--port", "0"],
        "pipeline": ["--run", str(tmp_path / "run")],
    }
    model = ["--model", str(tiny_llama), "--adapter", "none", "--device", "cpu", "--load-in-4bit"]
    line = refused(capsys, command, *more[command], *model)
    assert line == "error: load_in_4bit needs bitsandbytes: pip install 'medserl[4bit]', or give --no-load-in-4bit"
    assert list(tmp_path.iterdir()) == [note]


def test_an_engine_is_not_made_without_bitsandbytes(monkeypatch: pytest.MonkeyPatch, tiny_llama: Path) -> None:
    without_bitsandbytes(monkeypatch)
    given = Settings(model=str(tiny_llama), adapter="none", device="cpu", load_in_4bit=True)
    with pytest.raises(ConfigError, match="medserl\\[4bit\\]"):
        create_engine(given)
    assert create_engine(given.with_overrides(engine="scripted")), "which reads no model"


def test_mps_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(four_bits, "find_spec", lambda name: True)
    monkeypatch.setattr(four_bits, "pick_device", lambda name: "mps")
    with pytest.raises(ConfigError, match="not for mps"):
        four_bits.require_four_bits(Settings(load_in_4bit=True))


def test_auto_takes_the_local_engine_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("medserl.engines.find_spec", lambda name: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    caplog.set_level(logging.INFO, logger="medserl")
    assert inference_engine_name(Settings()) == "vllm"
    given = Settings(load_in_4bit=True)
    assert inference_engine_name(given) == training_engine_name(given) == "local"
    assert "engine local: load_in_4bit" in caplog.text


def test_answers_and_thresholds_of_packed_weights_are_kept_apart(tiny_llama: Path) -> None:
    """P(error) follows from the weights, and packed ones are others."""
    plain = Settings(model=str(tiny_llama), adapter="none", device="cpu", engine="local")
    packed = plain.with_overrides(load_in_4bit=True)
    for identify in (weights_key, model_identity):
        assert identify(plain) != identify(packed)
        assert identify(packed) == identify(packed.with_overrides())


# -- memory ----------------------------------------------------------------------------------------------------


def test_bytes_of_a_weight_are_those_of_the_paper() -> None:
    """Double quantisation brings the scales from 0.5 to 0.127 bits a weight (section 3)."""
    assert abs(8 * BYTES_A_WEIGHT - 4.127) < 1e-3


def test_linear_layers_alone_are_packed() -> None:
    embedding = 151936 * 2560
    assert QWEN_4B.linear == pytest.approx(QWEN_4B.parameters - embedding, rel=1e-3)
    assert QWEN_8B.linear == pytest.approx(QWEN_8B.parameters - 2 * 151936 * 4096, rel=1e-3), "not the output matrix"


def test_packed_weights_fit_where_others_do_not() -> None:
    assert fit(QWEN_8B, 16 * GB, 16, vllm=False) is None
    found = fit(QWEN_8B, 16 * GB, 16, vllm=False, load_in_4bit=True)
    assert found is not None and found.needed < 0.9 * 16 * GB
    saved = QWEN_4B.learner(16) - QWEN_4B.learner(16, load_in_4bit=True)
    assert saved / GB == pytest.approx(5.3, abs=0.1)


def test_defaults_on_a_gpu_follow_from_packed_weights(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(footprint, "pick_device", lambda name: "cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (16 * GB, 16 * GB))
    plain = Settings(model="Qwen/Qwen3-8B", adapter="none")
    fitted(plain, "local")
    assert "16 GB are free: take a smaller model, or --load-in-4bit" in caplog.text
    caplog.clear()
    packed = fitted(plain.with_overrides(load_in_4bit=True), "local")
    assert (packed.training_token_budget, packed.gradient_checkpointing) == (4096, True)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (6 * GB, 6 * GB))
    fitted(plain, "local")
    assert "6 GB are free: take a smaller model\n" in caplog.text, "packed ones do not fit there either"


def test_a_dry_run_counts_packed_weights() -> None:
    lines = estimate(Settings(model="Qwen/Qwen3-4B", adapter="none", device="cpu", load_in_4bit=True), "local")
    assert lines[0].endswith("LoRA of rank 16 on weights in 4 bits, engine local, cpu")
    assert lines[1] == "weights and optimizer: 3.4 GB"
