"""Tiny random models learn, resume and judge on frozen weights in 4 bits, where bitsandbytes is installed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from medserl.cli import main
from medserl.config import Settings
from medserl.engines import create_engine
from medserl.engines.gap import require_same_policy
from medserl.engines.local import LocalEngine
from medserl.errors import ModelError
from medserl.evaluation.thresholds import Threshold, read_threshold, weights_key, write_threshold
from medserl.game.prompts import load_prompts
from medserl.models.footprint import Shape
from medserl.models.four_bits import BYTES_A_WEIGHT, is_packed, number_of_weights
from medserl.models.lora_targets import trained_in_words
from medserl.runs.runlog import RunFolder, read_rows, read_settings
from tests.families import FAMILIES, write_model
from tests.local_engine import assert_identical, engine_of, flat, played, weighted

pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: pip install 'medserl[4bit]'")

pytestmark = pytest.mark.usefixtures("one_thread")

REPLIES = ("final_answer: CORRECT", "final_answer: INCORRECT")


def frozen(engine: LocalEngine) -> dict[str, torch.Tensor]:
    """A copy of every weight that is not LoRA's, with the scales of those that are packed."""
    found: dict[str, torch.Tensor] = {}
    for name, parameter in engine.model.named_parameters():
        if "lora_" in name:
            continue
        found[name] = parameter.detach().clone()
        if is_packed(parameter):
            state = parameter.quant_state
            found |= {f"{name} scales": state.absmax.clone(), f"{name} scales of these": state.state2.absmax.clone()}
    return found


# -- the engine ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_adapter_learns_and_the_packed_weights_stay(tiny_llama: Path, dtype: str, checkpointing: bool) -> None:
    engine = engine_of(tiny_llama, load_in_4bit=True, dtype=dtype, gradient_checkpointing=checkpointing)
    base = engine.model.get_base_model()
    packed = {name for name, parameter in base.named_parameters() if is_packed(parameter)}
    assert len(packed) == 14 and not any("embed" in name or "lm_head" in name for name in packed)
    assert str(engine.model.dtype) == f"torch.{dtype}"
    before, adapter = frozen(engine), [p.detach().clone() for p in engine.adapters.parameters()]  # type: ignore[union-attr]
    turns = played(engine)
    assert_identical(before, frozen(engine))
    stats = engine.update(weighted(turns), learning_rate=1e-2)
    require_same_policy(stats)
    assert 0 <= stats.logprob_gap_max < (2e-5 if dtype == "float32" else 0.2)
    assert stats.trained_parameters == sum(p.numel() for p in adapter)
    assert_identical(before, frozen(engine))
    moved = [not torch.equal(p, old) for p, old in zip(engine.adapters.parameters(), adapter, strict=True)]  # type: ignore[union-attr]
    assert sum(moved) >= len(moved) / 2, "B has moved, and A waits for it"


def test_an_update_is_that_of_the_unpacked_weights(tiny_llama: Path) -> None:
    """The gradient is the one of a plain model whose linear layers hold what the packed ones stand for."""
    from bitsandbytes.functional import dequantize_4bit

    packed, plain = engine_of(tiny_llama, load_in_4bit=True), engine_of(tiny_llama)
    for mine, theirs in zip(packed.model.parameters(), plain.model.parameters(), strict=True):
        theirs.data.copy_(dequantize_4bit(mine.data, mine.quant_state) if is_packed(mine) else mine.data)
    turns = played(packed)
    torch.testing.assert_close(flat(packed.logprobs(turns)), flat(plain.logprobs(turns)), atol=1e-5, rtol=1e-5)
    learnt = [engine.update(weighted(turns), learning_rate=1e-2) for engine in (packed, plain)]
    assert learnt[0].grad_norm == pytest.approx(learnt[1].grad_norm, rel=1e-4)
    torch.testing.assert_close(flat(packed.logprobs(turns)), flat(plain.logprobs(turns)), atol=1e-3, rtol=1e-3)


def test_words_and_memory_count_the_weights_that_packed_ones_stand_for(tiny_llama: Path) -> None:
    packed, plain = engine_of(tiny_llama, load_in_4bit=True), engine_of(tiny_llama)
    assert trained_in_words(packed.model) == trained_in_words(plain.model)
    base = packed.model.get_base_model()
    matrices = [p for p in base.parameters() if is_packed(p)]
    shape = Shape.of(base.config.__class__.from_pretrained(tiny_llama))
    assert sum(map(number_of_weights, matrices)) == shape.linear
    held = sum(
        tensor.numel() * tensor.element_size()
        for p in matrices
        for tensor in (p, p.quant_state.absmax, p.quant_state.state2.absmax)
    )
    assert held == pytest.approx(BYTES_A_WEIGHT * shape.linear, rel=0.01)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_trial_is_as_sharp_as_with_plain_weights(tmp_path: Path, dtype: str) -> None:
    """GPT-Neo sees its past through windows of its own: sharing rows is off by less than bfloat16 would show."""
    write_model("GPT-Neo", tmp_path)
    engine = engine_of(tmp_path, load_in_4bit=True, dtype=dtype)
    assert not engine._abilities.shares_rows and engine._abilities.free
    layers = [module for module in engine.model.modules() if "compute_dtype" in vars(module)]
    assert {str(layer.compute_dtype) for layer in layers} == {f"torch.{dtype}"}, "as it was before the trial"


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"Mamba 2", "RecurrentGemma"}))
def test_every_family_that_takes_a_lora_learns_on_packed_weights(tmp_path: Path, family: str) -> None:
    write_model(family, tmp_path)
    engine = engine_of(tmp_path, load_in_4bit=True)
    before = frozen(engine)
    stats = engine.update(weighted(played(engine)), learning_rate=1e-2)
    assert stats.logprob_gap_max < 2e-5
    assert_identical(before, frozen(engine))


# -- what is refused -------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tiny_llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_llama, tmp_path / "model"))


def test_a_weight_that_is_no_number_is_named_though_it_is_packed(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    weights[name][3, 5] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"its weight {name} holds values that are no finite numbers"):
        engine_of(folder, load_in_4bit=True)


def test_weights_that_lack_or_have_another_shape_are_named(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    save_file({**weights, name: weights[name][:-1].clone()}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"its weight {name} has shape"):
        engine_of(folder, load_in_4bit=True)
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lack 1 of its weights"):
        engine_of(folder, load_in_4bit=True)


def test_a_model_that_is_quantised_already_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelError, match=r"quantised already \(bitsandbytes\); leave load_in_4bit out"):
        engine_of(folder, load_in_4bit=True)


# -- a run -----------------------------------------------------------------------------------------------------

PAIRS = [
    ("fever and was given amoxicillin", "fever and was given digoxin"),
    ("gout in the left knee", "gout in the left eye"),
    ("asthma since childhood", "asthma since yesterday"),
    ("a viral flu", "a bacterial flu"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One round of a run on packed weights, by the command line."""
    place = tmp_path_factory.mktemp("four_bits")
    write_model("Llama", place / "model", 4096)
    rows = [
        {
            "note_id": str(i),
            "correct_note": f"He has {right}. He rests.",
            "incorrect_note": f"He has {wrong}. He rests.",
        }
        for i, (right, wrong) in enumerate(PAIRS)
    ]
    (place / "notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    main(
        [
            "train", "--model", str(place / "model"), "--adapter", "none", "--device", "cpu", "--dtype", "float32",
            "--load-in-4bit", "--lora-rank", "4", "--prompt-data", str(place / "notes.jsonl"),
            "--validation-data", "none", "--rollout-batch-size", "4", "--max-rounds", "1", "--max-epochs", "2",
            "--frozen-games", "0", "--gold-fraction", "0.5", "--sft-verdict-pairs", "2", "--sft-edit-pairs", "2",
            "--no-tensorboard", "--learning-rate", "0.01", "--max-new-tokens-assessor", "8",
            "--max-new-tokens-injector", "8", "--output-dir", str(place / "run"),
        ]
    )  # fmt: skip
    return place / "run"


def newest(run: Path) -> Path:
    found = RunFolder(run).latest_checkpoint()
    assert found is not None
    return found[0]


def p_errors(engine: Any) -> list[tuple[float, ...]]:
    prompts = load_prompts("term", "edit")
    asked = [prompts.assessor(f"He has {words}. He rests.") for pair in PAIRS for words in pair]
    return engine.reply_probabilities(asked, [REPLIES] * len(asked))  # type: ignore[no-any-return]


def judging(settings: Settings, **changes: Any) -> Any:
    return create_engine(settings.with_overrides(**changes), trainable=False)


def test_a_run_learns_resumes_and_is_judged_by_its_own_weights(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    assert read_settings(copy).load_in_4bit
    (row,) = [row for row in read_rows(copy / "metrics.jsonl") if row["round"] == 1]
    assert 0 < row["logprob_gap_max"] < 2e-5 and row["trained_parameters"] > 0
    assert not list(newest(copy).rglob("model*.safetensors")), "the adapter alone is saved"
    assert "Trained on these weights in 4 bits" in (newest(copy) / "README.md").read_text(encoding="utf-8")
    first = load_file(newest(copy) / "adapter_model.safetensors")
    main(["train", "--resume", str(copy), "--max-rounds", "2"])
    second = load_file(newest(copy) / "adapter_model.safetensors")
    assert any(not torch.equal(first[name], second[name]) for name in first)
    trained = create_engine(read_settings(copy))
    trained.load(newest(copy))
    settings = read_settings(copy).with_overrides(adapter=str(newest(copy)))
    assert p_errors(judging(settings)) == p_errors(trained)
    assert p_errors(judging(settings, load_in_4bit=False)) != p_errors(trained)
    main(["evaluate", "--run", str(copy), "--data", str(run.parent / "notes.jsonl"), "--limit", "4"])
    assert (copy / "eval").is_dir()


def test_a_run_cannot_go_on_with_other_weights(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--resume", str(run), "--no-load-in-4bit", "--max-rounds", "2"])
    assert stopped.value.code == 2
    assert "cannot change load_in_4bit from True to False" in capsys.readouterr().err


def test_a_threshold_of_packed_weights_is_not_used_for_others(run: Path, tmp_path: Path) -> None:
    settings = read_settings(run).with_overrides(adapter=str(newest(run)))
    write_threshold(tmp_path, weights_key(settings), Threshold(0.4, 0.8, 0.7, 16, "notes"))
    assert read_threshold(tmp_path, weights_key(settings)) == Threshold(0.4, 0.8, 0.7, 16, "notes")
    assert read_threshold(tmp_path, weights_key(settings.with_overrides(load_in_4bit=False))) is None


def test_a_merged_export_has_the_original_weights(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["export", str(run), str(tmp_path / "merged"), "--merged"])
    assert "merged into the original ones" in capsys.readouterr().err
    merged, base = (load_file(folder / "model.safetensors") for folder in (tmp_path / "merged", run.parent / "model"))
    assert merged.keys() == base.keys()
    for name, weight in base.items():
        if "self_attn" not in name:
            assert torch.equal(merged[name], weight), name
    config = json.loads((tmp_path / "merged" / "config.json").read_text(encoding="utf-8"))
    assert "quantization_config" not in config
