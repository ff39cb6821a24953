#!/usr/bin/env bash
# Tests of frozen weights in 4 bits. They need bitsandbytes, which lies beside .venv for them: PEFT imports it wherever it
# is. Run scripts/run_tests.sh first. Flags go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps --upgrade --target build/4bit bitsandbytes
PYTHONPATH=build/4bit .venv/bin/python -m pytest tests/integration/test_four_bits_learnt.py "$@"
