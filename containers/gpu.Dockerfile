# The environment of `--engine openrlhf` on NVIDIA GPUs. NOT RUN: this project's machines have no GPU. The pins are
# those of pyproject.toml; the same versions, with vLLM's CPU build, are what scripts/run_openrlhf_tests.sh runs.
#   docker build -f containers/gpu.Dockerfile -t medserl .
#   docker run --gpus all --shm-size 16g -v "$PWD/outputs:/medserl/outputs" medserl \
#     bash scripts/train_medserl_reinforce_pp.sh --model Qwen/Qwen3-4B ...
# -devel has nvcc, which flash-attn and DeepSpeed compile with.
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04

RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      git g++ ninja-build python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

ENV VIRTUAL_ENV=/opt/medserl
RUN python3 -m venv "$VIRTUAL_ENV"
ENV PATH="$VIRTUAL_ENV/bin:$PATH" PIP_NO_CACHE_DIR=1

# torch first: flash-attn asks for it while it is built
RUN pip install torch==2.13.0 numpy==2.3.5 packaging ninja psutil "setuptools==77.0.3" wheel \
    && MAX_JOBS=4 pip install --no-build-isolation flash-attn==2.8.3

WORKDIR /medserl
COPY pyproject.toml README.md LICENSE ./
COPY medserl medserl
COPY medserl_game medserl_game
COPY src src
COPY scripts scripts
COPY configs configs
COPY data data
RUN pip install -e ".[openrlhf]"

CMD ["medserl", "train", "--help"]
