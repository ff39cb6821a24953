"""`medserl serve` as a process, and its page in a browser."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.browsing import texts


class Server:
    """`medserl serve` as a process of its own."""

    decisions: Path

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "medserl.cli", "serve", "--engine", "scripted", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout is not None
        self.lines: list[str] = []
        for line in self.process.stdout:
            self.lines.append(line.strip())
            if "Ctrl-C ends it" in line:
                break
        self.url = next(line.split()[-1] for line in self.lines if line.startswith("review: "))

    @property
    def port(self) -> str:
        return self.url.rstrip("/").rpartition(":")[2]

    def kill(self) -> None:
        """As `kill -9` does."""
        self.process.kill()
        self.process.wait()

    def rest(self) -> str:
        """What it still said, after it was asked to end."""
        self.process.terminate()
        said, _ = self.process.communicate(timeout=60)
        return said


@contextmanager
def serving(*arguments: str) -> Iterator[Server]:
    server = Server(*arguments)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.communicate()


def opened(browser: Any, server: Server) -> Any:
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get(server.url)
    until(browser, lambda: texts(browser, "#list [aria-current=true]") != [])
    return browser


def until(page: Any, met: Callable[[], object]) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(page, 60, poll_frequency=0.02).until(lambda _: met())


def said(page: Any, words: str) -> None:
    """Waits until the status, which a screen reader reads out, says so."""
    until(page, lambda: words in texts(page, "#status")[0])


def key(page: Any, keys: str) -> None:
    page.switch_to.active_element.send_keys(keys)


def title(page: Any) -> str:
    return texts(page, "#note-title")[0]


def rows(path: Path) -> dict[str, dict]:
    """The decisions by their notes, each of which has one row."""
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    by_note = {line["note_id"]: line for line in lines}
    assert len(by_note) == len(lines)
    return by_note


@contextmanager
def reviewing(browser: Any, predictions: Path) -> Iterator[tuple[Any, Server]]:
    """The page of a server of its own."""
    with serving("--predictions", str(predictions), "--port", "0") as server:
        yield opened(browser, server), server
