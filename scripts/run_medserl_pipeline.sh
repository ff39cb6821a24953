#!/usr/bin/env bash
# The whole pipeline: environment, model, warm-up, online self-play, evaluation before and after, report.
#
#   bash scripts/run_medserl_pipeline.sh                      # the embedded default: 5 rounds of 32 on the sample notes
#   bash scripts/run_medserl_pipeline.sh --rebuild-warmup     # warm up again instead of using the shipped adapter
#   bash scripts/run_medserl_pipeline.sh --model Qwen/Qwen3-4B --prompt-data data/medec_train.jsonl --max-epochs 5
#
# Its own flags: --run DIR, --rebuild-warmup, --test-data FILE, --stage env|warmup|train|evaluate|report (that stage and the
# ones after it, of the run that --run names). All others go to `medserl train`. VENV names another environment than .venv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

run="outputs/medserl_pipeline_$(date +%Y%m%d_%H%M%S)"
stage=env
venv="${VENV:-.venv}"
rebuild=no
test_data=sample
settings=()
while [ $# -gt 0 ]; do
  case "$1" in
    --run) run="$2"; shift 2 ;;
    --stage) stage="$2"; shift 2 ;;
    --rebuild-warmup) rebuild=yes; shift ;;
    --test-data) test_data="$2"; shift 2 ;;
    *) settings+=("$1"); shift ;;
  esac
done
# Without an epoch or round count of the user's the demonstration stops after 5 rounds.
case " ${settings[*]-} " in
  *" --max-epochs "* | *" --max-rounds "*) ;;
  *) settings+=(--max-rounds 5) ;;
esac

# Settings that the other stages share with training: the ones that say which model, prompts and form are played.
shared=()
for ((i = 0; i < ${#settings[@]}; i++)); do
  case "${settings[i]}" in
    --model | --prompts | --injector-format | --device | --dtype | --seed | --lora-rank | --lora-targets | --prompt-data)
      shared+=("${settings[i]}" "${settings[i + 1]-}") ;;
  esac
done

order=(env warmup train evaluate report)
due() { # whether stage $1 is to run
  local begun=no
  for name in "${order[@]}"; do
    [ "$name" = "$stage" ] && begun=yes
    [ "$name" = "$1" ] && { [ "$begun" = yes ]; return; }
  done
}
case " ${order[*]} " in
  *" $stage "*) ;;
  *) echo "error: --stage $stage: give one of ${order[*]}" >&2; exit 2 ;;
esac
say() { printf '\n== %s\n' "$*"; }

if due env; then
  say "environment ($venv)"
  [ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
fi
medserl="$venv/bin/medserl"

adapter=()
if [ "$rebuild" = yes ] || [[ " ${settings[*]} " == *" --model "* && " ${settings[*]} " != *" --adapter "* ]]; then
  adapter=(--adapter "$run-warmup")
  if due warmup; then
    say "warm-up"
    "$medserl" sft ${shared[@]+"${shared[@]}"} --output "$run-warmup"
  fi
fi

if due train; then
  say "online self-play"
  "$medserl" train ${settings[@]+"${settings[@]}"} ${adapter[@]+"${adapter[@]}"} --output-dir "$run"
fi
if due evaluate; then
  say "evaluation: base, warm-up, trained"
  "$medserl" evaluate --run "$run" --data "$test_data" --compare base warmup trained
fi
if due report; then
  say "report"
  "$medserl" report "$run"
fi
