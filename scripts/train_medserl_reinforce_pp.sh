#!/usr/bin/env bash
# Online training. Every flag goes to `medserl train`; see `medserl train --help`.
#   bash scripts/train_medserl_reinforce_pp.sh --prompt-data data/medec_train_sample.jsonl --rollout-batch-size 32 --max-epochs 1
# --engine auto (the default) takes OpenRLHF where it is installed and there are several GPUs, vLLM on one GPU where it is
# installed, else this process alone, and says which and why. OpenRLHF joins the Ray cluster that runs on this machine (`ray start --head --port=6379`) or that
# RAY_ADDRESS names, and starts one of its own where there is none. docs/scaling.md tells the rest.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$here"
python="${PYTHON:-python}"
if [ -z "${PYTHON:-}" ] && [ -z "${VIRTUAL_ENV:-}" ]; then
  [ -x .venv/bin/python ] && python=.venv/bin/python
  case " ${MEDSERL_ENGINE:-} $* " in
    *" openrlhf "* | *"--engine=openrlhf "*) [ -x .venv-openrlhf/bin/python ] && python=.venv-openrlhf/bin/python ;;
  esac
fi
exec "$python" -m medserl.cli train "$@"
