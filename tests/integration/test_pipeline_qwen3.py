"""The pipeline as README runs it for Qwen3-4B on MEDEC, with a tiny random Qwen3 in its place: every stage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medserl.cli import main

pytestmark = pytest.mark.usefixtures("one_thread")

DRUGS = (("aspirin", "insulin"), ("amoxicillin", "metformin"))
FINDINGS = ("fever", "cough", "chest pain", "nausea")


@pytest.fixture
def tiny_qwen3(tiny_llama: Path, tmp_path: Path) -> Path:
    import torch
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    folder = tmp_path / "qwen3"
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.save_pretrained(folder)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, max_position_embeddings=4096, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


def medec(folder: Path) -> Path:
    """Pairs in the files that `medserl data medec` makes."""
    rows = [
        {"note_id": f"{finding}-{drug}", "correct_note": text, "incorrect_note": text.replace(drug, wrong)}
        for finding in FINDINGS
        for drug, wrong in DRUGS
        if (text := f"The patient presents with {finding}. He is treated with {drug}.")
    ]
    for name, mine in (("train", rows), ("validation", rows[:2]), ("test", rows[2:4])):
        lines = "".join(json.dumps(row | {"note_id": f"{name}-{row['note_id']}"}) + "\n" for row in mine)
        (folder / f"medec_{name}.jsonl").write_text(lines, encoding="utf-8")
    return folder / "medec_train.jsonl"


def test_every_stage_runs_to_the_report(tiny_qwen3: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    main([
        "pipeline", f"--model={tiny_qwen3}", "--prompts", "full", "--prompt-data", str(medec(tmp_path)),
        "--max-epochs", "1", "--engine", "local", "--device", "cpu", "--run", str(run), "--rollout-batch-size", "4",
        "--eval-notes", "2", "--frozen-games", "0", "--no-tensorboard", "--max-new-tokens-assessor", "8",
        "--vcf-max-attempts", "1",
    ])  # fmt: skip
    said = capsys.readouterr().out
    stages = [line for line in said.splitlines() if line.startswith("== ")]
    assert [stage.split(":")[0].removeprefix("== ") for stage in stages] == [
        "warm-up", "online self-play", "evaluation", "report",
    ]  # fmt: skip
    assert stages[2].endswith(f"on {tmp_path / 'medec_test.jsonl'}")
    rounds = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["round"] for row in rounds] == [0, 1, 2]
    assert all("eval_accuracy" in rounds[i] for i in (0, -1)), "MEDEC's validation notes judge the run"
    assert (run / "report.html").is_file()
