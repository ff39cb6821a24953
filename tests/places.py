"""Where the repository lies.

Not for what runs in OpenRLHF's environment (`tests/conftest.py`, `tests/openrlhf`): OpenRLHF installs a package `tests`
of its own, which is found there instead of this folder.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
