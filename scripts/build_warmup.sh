#!/usr/bin/env bash
# Builds the warm-up adapter that is shipped for the embedded default, on the sample notes: 78 minutes on one core that
# multiplies bfloat16, besides what it takes to judge the validation pairs after each of the four passes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
"${VENV:-.venv}/bin/medserl" sft --model smollm2-135m --prompt-data sample --injector-format edit --prompts term \
  --epochs 4 --edit-audit reject --measure 64 --output medserl/warmup/smollm2-135m-edit-term
