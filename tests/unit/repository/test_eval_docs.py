"""docs/evaluation.md has a sentence for every figure that the code writes."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import get_args

import pytest

from medserl.config import Settings
from medserl.data.readers import read_notes
from medserl.data.sample_paths import sample_path
from medserl.evaluation.official import CORRECTION_METRICS, SENTENCE_ACCURACY
from medserl.evaluation.table import HEADERS
from medserl.evaluation.validation import Validation
from medserl.reports.convergence import NoticeKind
from medserl.trainer import MedSeRLTrainer
from tests.places import ROOT

DOCUMENT = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
FIRST_CELLS = re.findall(r"^\| (.+?) \| (.+) \|$", DOCUMENT, re.MULTILINE)
KEYS_OF_A_ROW = {"round", "epoch"}


def documented(figure: str) -> bool:
    """Whether a row of a table is about the figure: its name in backticks, with `*` for a part of it, or in words."""
    for first, sentence in FIRST_CELLS:
        names = [*re.findall(r"`([^`]+)`", first), *re.split(r", | \(", first)]
        if sentence.strip() and any(fnmatchcase(figure, name) for name in names):
            return True
    return False


@pytest.fixture(scope="module")
def row_keys(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The keys of metrics.jsonl that a whole run with a frozen opponent and the edit audit writes."""
    settings = Settings(
        output_dir=str(tmp_path_factory.mktemp("run") / "run"),
        engine="scripted", rollout_batch_size=16, max_rounds=2, eval_every=1, frozen_games=24, edit_audit="log",
        gold_fraction=0.5, sft_verdict_pairs=2, advantage_normalization="per_role",
    )  # fmt: skip
    notes, held_out = (read_notes(sample_path(split)).notes for split in ("train", "validation"))
    rows = MedSeRLTrainer(settings, None, notes, Validation(held_out, 12)).train()
    return {key for row in rows for key in row}


def test_every_figure_of_a_round_has_a_sentence(row_keys: set[str]) -> None:
    wanted = {"frozen_accuracy", "eval_recall", "audit_drug", "loss", "sft_loss"}
    assert wanted <= row_keys
    assert sorted(key for key in row_keys - KEYS_OF_A_ROW if not documented(key)) == []


def test_every_figure_of_an_evaluation_has_a_sentence() -> None:
    official = ["flag accuracy", SENTENCE_ACCURACY, *CORRECTION_METRICS]
    assert [name for name in [*HEADERS, *HEADERS.values(), *official] if not documented(name)] == []
    assert documented("METRIC composite")


def test_every_notice_has_a_sentence() -> None:
    notices = DOCUMENT.partition("| notice |")[2].strip().splitlines()
    assert len(notices) - 2 == len(get_args(NoticeKind))


def test_what_nobody_wrote_about_is_noticed() -> None:
    assert not documented("a_new_figure")
    assert not documented("loss_of_sense")
