#!/usr/bin/env bash
# Builds the warm-up adapter that is shipped for the embedded default: 72 steps of 8 examples from the sample notes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
"${VENV:-.venv}/bin/medserl" sft --model smollm2-135m --prompt-data sample --injector-format edit --prompts brief \
  --steps 72 --batch-size 8 --measure 32 --output medserl/warmup/smollm2-135m-edit-brief
