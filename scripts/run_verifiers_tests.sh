#!/usr/bin/env bash
# The game as an environment of verifiers, played over HTTP on this machine. Run after run_tests.sh: makes .venv-verifiers,
# which holds verifiers (0.2 GB, once) on top of what .venv has. Flags go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=.venv-verifiers
packages() { "$1/bin/python" -c 'import site; print(site.getsitepackages()[0])'; }
if ! "$venv/bin/python" -c 'import verifiers.v1' 2>/dev/null; then
  .venv/bin/python -m venv "$venv"
  packages .venv >"$(packages "$venv")/base.pth"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt 'verifiers>=0.4,<0.5'
fi
exec "$venv/bin/python" -m pytest -n 0 -m "not model" tests/integration/test_environment.py tests/unit/repository/test_docs_python.py "$@"
