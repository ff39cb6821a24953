"""The browser that tests share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.browsing import start_browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    chrome = start_browser(tmp_path_factory.mktemp("chromium"))
    yield chrome
    chrome.quit()
