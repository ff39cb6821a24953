"""BERTScore's matching by hand, its loader on a tiny model, and what is said when a checkpoint is not there."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from medserl.errors import ModelError
from medserl.evaluation.checkpoint_metrics import load_bertscore, load_bleurt, load_scorers, match_f1


def test_matching_by_hand() -> None:
    cls, sep = [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]
    prediction = torch.tensor([cls, [0.0, 1.0, 0.0], [0.6, 0.8, 0.0], sep])
    reference = torch.tensor([cls, [0.0, 1.0, 0.0], sep])
    precision = (1.0 + 0.8) / 2
    recall = 1.0
    assert match_f1(prediction, reference) == pytest.approx(2 * precision * recall / (precision + recall), abs=1e-6)
    onto_cls = torch.tensor([cls, [0.8, 0.6, 0.0], sep])  # nearer to [CLS] (0.8) than to the word (0.6)
    assert match_f1(onto_cls, reference) == pytest.approx(2 * 0.8 * 0.6 / (0.8 + 0.6), abs=1e-6)


def test_a_sentence_without_words_matches_nothing() -> None:
    ends = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert match_f1(ends, torch.ones(3, 2)) == match_f1(torch.ones(3, 2), ends) == 0.0


@pytest.fixture(scope="module")
def tiny_deberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import DebertaConfig, DebertaModel

    folder = tmp_path_factory.mktemp("deberta")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(
        ["the patient has pneumonia"],
        trainers.BpeTrainer(
            vocab_size=300,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"],
            show_progress=False,
        ),
    )
    tokenizer.model.save(str(folder))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "DebertaTokenizer"}))
    config = DebertaConfig(
        vocab_size=300,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=16,
        initializer_range=0.5,  # layers that differ
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        DebertaModel(config).save_pretrained(folder)
    return folder


def test_bertscore_of_a_model_in_a_folder(tiny_deberta: Path) -> None:
    score = load_bertscore(tiny_deberta, layer=2, baseline=0.5)
    same, other, empty = score(
        ["the patient has flu ", "the patient has flu", " "], ["the patient has flu", "x", "the patient"]
    )
    assert same == pytest.approx(1.0, abs=1e-5)
    assert other < same
    assert empty == pytest.approx(-1.0)  # (0 - 0.5) / 0.5
    alone = score(["the patient has flu"], ["x"])  # padding of a batch changes nothing
    assert alone == pytest.approx([other], abs=1e-5)
    unscaled = load_bertscore(tiny_deberta, layer=2, baseline=0.0)(["the patient has flu"], ["x"])
    assert (unscaled[0] - 0.5) / 0.5 == pytest.approx(other, abs=1e-5)
    shallow = load_bertscore(tiny_deberta, layer=1, baseline=0.5)(["the patient has flu"], ["x"])
    assert shallow != pytest.approx([other], abs=1e-3)


def test_wrong_folders_get_one_line(tiny_deberta: Path, tiny_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no model"):
        load_bertscore(tmp_path)
    with pytest.raises(ModelError, match="is a deberta of 3 layers"):
        load_bertscore(tiny_deberta)
    with pytest.raises(ModelError, match="is a llama of 2 layers"):
        load_bertscore(tiny_llama, layer=1)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_bertscore(tmp_path)
    with pytest.raises(ModelError, match="holds no BLEURT checkpoint"):
        load_bleurt(tmp_path)


def test_bleurt_through_its_own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bleurt_config.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "bleurt", None)
    monkeypatch.setitem(sys.modules, "bleurt.score", None)
    with pytest.raises(ModelError, match="package bleurt is not installed"):
        load_bleurt(tmp_path)

    class BleurtScorer:
        def __init__(self, checkpoint: str) -> None:
            assert checkpoint == str(tmp_path)

        def score(self, *, references: list[str], candidates: list[str], batch_size: int) -> list[float]:
            return [float(len(c) - len(r)) for c, r in zip(candidates, references, strict=True)]

    monkeypatch.setitem(sys.modules, "bleurt.score", SimpleNamespace(BleurtScorer=BleurtScorer))
    assert load_scorers(bleurt=tmp_path).available["BLEURT"](["aaa"], ["a"]) == [2.0]


def test_what_is_not_given_is_left_out() -> None:
    found = load_scorers()
    assert found.available == {}
    assert found.left_out == {
        "BERTScore": "no local checkpoint of microsoft/deberta-xlarge-mnli was given",
        "BLEURT": "no local checkpoint of BLEURT-20 was given",
    }
