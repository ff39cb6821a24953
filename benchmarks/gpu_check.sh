#!/usr/bin/env bash
# The parts of `--engine vllm` that only a GPU can show, in under 12 minutes, as one page of figures on standard output:
#
#   pip install -e '.[vllm]' && bash benchmarks/gpu_check.sh [FOLDER]     # FOLDER of its runs; default outputs/gpu_check
#
# The embedded 135M model on the sample notes: 20 rounds with vLLM, awake and asleep, and 5 with the local engine alone;
# the page has seconds a round by phase, tokens a second, beside them those of vLLM by itself, the drift between the two
# engines, and memory.
# It was written without a GPU at hand and has never been run on one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out="${1:-outputs/gpu_check}"
python="${PYTHON:-python}"
rounds="${ROUNDS:-20}"
batch="${BATCH:-64}"
read -r -a flags <<<"${FLAGS:-}"
[ ! -e "$out" ] || { echo "error: $out is there already; name another folder" >&2; exit 2; }
mkdir -p "$out"

play() { # name, rounds, flags
  local name="$1" count="$2" started=$SECONDS
  shift 2
  if timeout "${LIMIT:-140}" "$python" -m medserl.cli train --rollout-batch-size "$batch" --max-rounds "$count" \
    --max-epochs 9 --validation-data none --frozen-games 0 --no-tensorboard --output-dir "$out/$name" \
    ${flags[@]+"${flags[@]}"} "$@" >"$out/$name.txt" 2>&1; then
    echo "$name: $((SECONDS - started)) s from start to end" | tee -a "$out/page.txt"
  else
    echo "$name: FAILED: $(grep -a '^error' "$out/$name.txt" | tail -1 || true)" | tee -a "$out/page.txt"
  fi
}

{ command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader ||
  echo "no NVIDIA GPU here"; } | tee "$out/page.txt"
git rev-parse --short HEAD 2>/dev/null | sed 's/^/commit /' | tee -a "$out/page.txt"
"$python" -m medserl.cli train --dry-run --engine vllm ${flags[@]+"${flags[@]}"} | tee -a "$out/page.txt"
timeout "${LIMIT:-140}" "$python" benchmarks/bare_vllm.py --notes "$batch" 2>"$out/bare.txt" | tee -a "$out/page.txt" ||
  echo "bare vLLM: FAILED, see $out/bare.txt" | tee -a "$out/page.txt"
play awake "$rounds" --engine vllm
play asleep 5 --engine vllm --vllm-sleep
play all_weights 5 --engine vllm --lora-rank 0 --adapter none --sft-verdict-pairs 4 --learning-rate 1e-6
play local 5 --engine local
"$python" benchmarks/gpu_page.py "$out" | tee -a "$out/page.txt"
