#!/usr/bin/env bash
# Every check of the project: formatting, types, tests. Makes .venv and installs what it needs. Flags go to pytest.
# Up to four files of tests run at a time, each worker on its share of the cores; -n 0 runs them in one process.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
. scripts/huge_pages.sh
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile "$@"
