#!/usr/bin/env bash
# Builds the warm-up adapters that are shipped for the embedded default, one for each prompt set named (default: all),
# on the sample notes. `term` has more to learn, and gets a third more steps.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
declare -A steps=([brief]=72 [term]=96)
[ $# -gt 0 ] || set -- brief term
for prompts in "$@"; do
  "${VENV:-.venv}/bin/medserl" sft --model smollm2-135m --prompt-data sample --injector-format edit --prompts "$prompts" \
    --steps "${steps[$prompts]}" --batch-size 8 --measure 32 --output "medserl/warmup/smollm2-135m-edit-$prompts"
done
