"""What tests in a real browser have in common: headless Chromium, and looks at a page.

Needs Chromium and its driver (Debian: `apt-get install chromium chromium-driver`). Without them the tests are skipped,
but fail where `CI=true`: there they have to run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP elsewhere.example 127.0.0.1",  # a name that an attacker points here
)


def require(found: object, what: str) -> None:
    if not found:
        reason = f"{what} is not installed, so no page can be looked at in a browser"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)


def start_browser(profile: Path) -> Any:
    """Chromium, driven by selenium; the caller quits it."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    require(chromium and driver, "Chromium (with chromedriver)")
    try:
        from selenium import webdriver
    except ImportError:
        require(None, "selenium")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


def texts(page: Any, selector: str) -> list[str]:
    """Text of the elements, shown or folded away."""
    return page.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)", selector
    )


def press(page: Any, selector: str) -> None:
    page.find_element("css selector", selector).click()


def brightness(colour: str) -> int:
    """Sum of red, green and blue of `rgb(r, g, b)`."""
    return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))


@contextmanager
def seen_as(page: Any, width: int, scheme: str) -> Iterator[None]:
    """The page in a window of so many pixels, of a phone below 700, where `light` or `dark` is preferred."""
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 700}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    try:
        yield
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {})


def overflow(page: Any) -> int:
    """By how many pixels the page is wider than its window."""
    root = "const page = document.documentElement;"
    return page.execute_script(f"{root} return page.scrollWidth - page.clientWidth")


def is_light(page: Any) -> bool:
    """Whether dark words stand on light paper."""
    ink, paper = page.execute_script(
        "const style = getComputedStyle(document.body); return [style.color, style.backgroundColor]"
    )
    return brightness(ink) < brightness(paper)
