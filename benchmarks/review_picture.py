"""A picture of the review page, as docs/review.png is: `medserl serve` in headless Chromium.

    python benchmarks/review_picture.py [--predictions FILE] [--output docs/review.png]

Without a file of `medserl predict` the notes are of the sample, invented patients, and the findings are made up too:
they are what a model that is always right would say.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image
from rapidfuzz.distance import Levenshtein
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

from medserl.data.sources import load
from medserl.game.note import Note
from medserl.prediction.assessor import Finding
from medserl.prediction.findings import JudgedNote, write_findings

WIDTH, HEIGHT, COLOURS = 1280, 1000, 64
WRONG, RIGHT = 7, 3
"""Notes with an error, and without."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictions", type=Path)
    parser.add_argument("--output", type=Path, default=Path("docs/review.png"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        predictions = options.predictions or made_up(Path(folder) / "notes.predictions.jsonl")
        files = ("--predictions", str(predictions), "--decisions", f"{folder}/decisions.jsonl")
        command = [sys.executable, "-m", "medserl.cli", "serve", "--engine", "scripted", "--port", "0", *files]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                take_picture(server.stdout.readline().split()[-1], options.output)
            finally:
                server.terminate()


def made_up(path: Path) -> Path:
    """A file of findings in the sample's notes, each right: a note is suspicious if, and only if, it has an error."""
    notes = load("sample", "test").notes
    pairs = [note for note in notes if note.is_pair][: WRONG + RIGHT]
    judged = [found(note, 0.97 - 0.06 * n) for n, note in enumerate(pairs[:WRONG])]
    judged += [correct(note, 0.31 - 0.09 * n) for n, note in enumerate(pairs[WRONG:])]
    write_findings(path, judged)
    return path


def found(note: Note, p_error: float) -> JudgedNote:
    before, after = (note.error_sentence or "").split(), (note.corrected_sentence or "").split()
    changed = [run for run in Levenshtein.opcodes(before, after) if run.tag != "equal"]
    says = " ".join(before[changed[0].src_start : changed[-1].src_end]).rstrip(".")
    should_say = " ".join(after[changed[0].dest_start : changed[-1].dest_end]).rstrip(".")
    finding = Finding(
        note.note_id, "INCORRECT", p_error, True, note.error_sentence_id, note.error_sentence, says, should_say,
        note.corrected_sentence,
    )  # fmt: skip
    return JudgedNote(note, finding, 0.5)


def correct(note: Note, p_error: float) -> JudgedNote:
    finding = Finding(note.note_id, "CORRECT", p_error, False)
    return JudgedNote(replace(note, incorrect_note=None, sentences=()), finding, 0.5)


def take_picture(url: str, output: Path) -> None:
    """The page after two decisions."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        metrics = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.get(url)
        for key, count in (("a", "1 of"), ("r", "2 of")):
            wait(browser, "#list [aria-current=true]", "")
            browser.switch_to.active_element.send_keys(key)
            wait(browser, "#count", count)
            wait(browser, "#status", "Now note")
        picture = Image.open(io.BytesIO(browser.get_screenshot_as_png()))
        picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=COLOURS).save(output, optimize=True)
    finally:
        browser.quit()


def wait(browser: Any, selector: str, words: str) -> None:
    WebDriverWait(browser, 60).until(lambda page: words in page.find_element("css selector", selector).text)


if __name__ == "__main__":
    main()
