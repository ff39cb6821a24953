#!/usr/bin/env bash
# The whole pipeline: environment, model, warm-up, online self-play, evaluation before and after, report.
#
#   bash scripts/run_medserl_pipeline.sh                      # the embedded default: 5 rounds of 32 on the sample notes
#   bash scripts/run_medserl_pipeline.sh --rebuild-warmup     # warm up again instead of using the shipped adapter
#   bash scripts/run_medserl_pipeline.sh --model Qwen/Qwen3-4B --prompts full --prompt-data data/medec_train.jsonl \
#     --max-epochs 5
#   bash scripts/run_medserl_pipeline.sh --stage evaluate --run RUN --test-data FILE     # this stage and those after it
#
# It makes the environment (.venv, or what VENV names), then runs `medserl pipeline` with the flags as they are; any
# setting of `medserl train` is one. --stage env|warmup|train|evaluate|report: all but env leave the environment alone.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
script="$here/scripts/$(basename "${BASH_SOURCE[0]}")"
cd "$here"
venv="${VENV:-.venv}"

stage=env
previous=
for argument in "$@"; do
  case "$argument" in
    -h | --help)
      if [ -x "$venv/bin/medserl" ]; then exec "$venv/bin/medserl" pipeline --help; fi
      sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$script"
      exit ;;
    --stage=*) stage="${argument#--stage=}" ;;
  esac
  [ "$previous" != --stage ] || stage="$argument"
  previous="$argument"
done
case "$stage" in
  env | warmup | train | evaluate | report) ;;
  *) echo "error: --stage $stage: give one of env warmup train evaluate report" >&2; exit 2 ;;
esac

if [ "$stage" = env ]; then
  printf '\n== environment (%s)\n' "$venv"
  [ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
elif [ ! -x "$venv/bin/medserl" ]; then
  echo "error: no environment in $venv: leave --stage out once to make it, or name one in VENV" >&2
  exit 2
fi
. scripts/huge_pages.sh
exec "$venv/bin/medserl" pipeline "$@"
