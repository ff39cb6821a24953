#!/usr/bin/env bash
# Builds the adapter that is shipped for the embedded default: four passes over the sample's training pairs, then one over
# four times as many others on the same facts. 2 h 30 min on one busy core that multiplies bfloat16.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/huge_pages.sh
medserl() { "${VENV:-.venv}/bin/medserl" "$@"; }
taught=(--model smollm2-135m --injector-format edit --prompts term --edit-audit reject --validation-data sample --measure 64)
medserl data further-train --output outputs
medserl sft "${taught[@]}" --adapter none --prompt-data sample --epochs 4 --output outputs/taught-first
medserl sft "${taught[@]}" --adapter outputs/taught-first --prompt-data outputs/medec_further_train_sample.jsonl --epochs 1 \
  --output medserl/models/warmup/smollm2-135m-edit-term
