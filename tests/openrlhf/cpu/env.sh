# The environment in which --engine openrlhf runs without a GPU (for tests; see docs/scaling.md):
#   . tests/openrlhf/cpu/env.sh
# Python and the packages: scripts/run_openrlhf_tests.sh makes .venv-openrlhf.
_here="$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)"
export PYTHON="${PYTHON:-$_here/.venv-openrlhf/bin/python}"
export PYTHONPATH="$_here/tests/openrlhf/cpu${PYTHONPATH:+:$PYTHONPATH}"
export RAY_OVERRIDE_RESOURCES="${RAY_OVERRIDE_RESOURCES:-{\"GPU\": 4, \"CPU\": 5\}}"  # what Ray counts, not what there is
export RAY_USAGE_STATS_ENABLED=0 RAY_worker_niceness=0 RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0
export DS_ACCELERATOR=cpu LOCAL_SIZE=1
export TORCHDYNAMO_DISABLE=1                             # no C++ compiled for one entropy
export VLLM_CPU_OMP_THREADS_BIND=nobind VLLM_CPU_KVCACHE_SPACE=1 OMP_NUM_THREADS=1
export VLLM_ENABLE_V1_MULTIPROCESSING=0                 # no process beside EngineCore for the one worker
export VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
export MEDSERL_VLLM_EAGER=true MEDSERL_VLLM_GPU_MEMORY=0.05 MEDSERL_VLLM_CONTEXT=2048 MEDSERL_WEIGHT_SYNC=gloo
