"""A run joins the Ray cluster at hand, and never waits for one that is gone."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import fake_openrlhf as fake
import pytest

from medserl.errors import ConfigError


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str | None], str]]:
    """`ask(written_down)`: the address of a run's cluster, where Ray knows of the one written down."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with fake.installed(monkeypatch):
        from medserl.engines.openrlhf import address

        def asked(written_down: str | None) -> str:
            monkeypatch.setattr(address.services, "canonicalize_bootstrap_address", lambda _address: written_down)
            return address.cluster_address()

        yield asked


@pytest.fixture
def listening() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def gone() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def test_a_cluster_that_answers_is_joined(ask: Any, listening: str) -> None:
    assert ask(listening) == listening


def test_where_there_is_none_one_is_started(ask: Any) -> None:
    assert ask(None) == "local"


def test_one_that_is_gone_is_not_waited_for(ask: Any, gone: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "medserl"):
        assert ask(gone) == "local"
    assert f"({gone}) is gone" in caplog.text


def test_one_that_was_asked_for_must_answer(ask: Any, gone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", gone)
    with pytest.raises(ConfigError, match=f"RAY_ADDRESS is {gone}, but no Ray cluster answers there"):
        ask(gone)
