#!/usr/bin/env bash
# Online training. Every flag goes to `medserl train`; see `medserl train --help`.
#   bash scripts/train_medserl_reinforce_pp.sh --prompt-data data/medec_train_sample.jsonl --rollout-batch-size 32 --max-epochs 1
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$here"
python="${PYTHON:-python}"
[ -z "${PYTHON:-}" ] && [ -z "${VIRTUAL_ENV:-}" ] && [ -x .venv/bin/python ] && python=.venv/bin/python
exec "$python" -m medserl.cli train "$@"
