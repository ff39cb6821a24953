"""The proof that the sample corpus is sound, made again from the files as they are."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.places import ROOT


def sections(text: str) -> dict[str, str]:
    """Text by heading."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_limits_hold_and_the_document_says_what_the_script_finds(tmp_path: Path) -> None:
    output = tmp_path / "corpus.md"
    command = [sys.executable, "benchmarks/corpus_report.py", "--output", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made, committed = (sections(path.read_text(encoding="utf-8")) for path in (output, ROOT / "docs" / "corpus.md"))
    del made["Shape of the pairs"], committed["Shape of the pairs"]  # compares with MEDEC, which may not be there
    assert made == committed
