"""A vLLM process that dies leaves its cause in a log; the run's last line names it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from medserl.engines.openrlhf import last_words
from medserl.engines.openrlhf.last_words import cause_named, last_error
from medserl.errors import RunError

WORKER = "(Worker pid=9) ERROR 11-26 16:43:52 [multiproc_executor.py:1055]"
CORE = "(EngineCore pid=8) ERROR 11-26 16:43:52 [core.py:1376]"
PRINTED = f"""\
INFO 11-26 16:43:50 [core.py:12] ready, RuntimeError: is no error here
{WORKER} Traceback (most recent call last):
{WORKER}   File "gpu_model_runner.py", line 3785, in _bookkeeping_sync
{WORKER} torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.
{CORE} EngineCore encountered a fatal error.
{CORE} RuntimeError: Worker failed with error 'x', please check the stack trace above for the root cause
ERROR 11-26 16:43:52 [async_llm.py:819] vllm.EngineDeadError: Engine dead. See stack trace (above) for the root cause.
"""


class EngineDeadError(Exception):
    """As vLLM's."""


@pytest.fixture(autouse=True)
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm.v1.engine.exceptions", SimpleNamespace(EngineDeadError=EngineDeadError))


def test_the_cause_is_the_error_that_refers_to_no_other() -> None:
    assert last_error(PRINTED) == "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
    assert last_error("INFO all is well\n") is None


@pytest.mark.parametrize("news", [EngineDeadError("dead"), RuntimeError("failed to start. See root cause above.")])
def test_news_of_a_death_becomes_its_cause(news: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "worker.out"
    log.write_text(PRINTED, encoding="utf-8")
    monkeypatch.setattr(last_words, "own_log", lambda: log)
    wanted = r"^vLLM's process died: OutOfMemoryError: CUDA .*worker\.out"
    with pytest.raises(RunError, match=wanted) as caught, cause_named():
        raise news
    assert "\n" not in str(caught.value)


def test_one_that_was_killed_has_no_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_words, "own_log", lambda: None)
    with pytest.raises(RunError, match="without a word"), cause_named():
        raise EngineDeadError


def test_other_errors_are_left_alone() -> None:
    with pytest.raises(RuntimeError, match=r"^prompt too long$"), cause_named():
        raise RuntimeError("prompt too long")
