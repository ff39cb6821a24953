"""Lets OpenRLHF 0.11.2 run without a GPU, for tests: Python imports this file at its start where it is on PYTHONPATH.

It has to be here because the programs to change are children of children: Ray starts the actors, and those start
vLLM's own processes. Nothing happens before the modules named at the end are imported.

What is changed, and why:
- `torch.cuda`: OpenRLHF asks for the current device and synchronises, whatever the device is;
- its device mesh is made for "cuda";
- flash-attn is imported at the top of a module whose functions are used with packing alone;
- DeepSpeed compiles its own Adam and a faster all-reduce for CPUs, three minutes of C++: torch's do the same;
- new weights travel by NCCL: here by gloo;
- vLLM's CPU build repacks linear weights and throws the originals away, after which none can be replaced;
- where it has read a part of a prompt, it takes a step back in the request's generator, which a CPU's cannot do: so it
  reads prompts whole.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import sys
import types
from collections.abc import Callable
from typing import Any


class _CPU(str):
    """The device "cpu"; OpenRLHF writes f"cuda:{device}" once, and torch accepts "cuda:0" without looking."""

    def __format__(self, _spec: str) -> str:
        return "0"


def _without_cuda(_module: Any) -> None:
    import torch

    torch.cuda.current_device = lambda: _CPU("cpu")
    for name in ("set_device", "synchronize", "current_stream"):
        setattr(torch.cuda, name, lambda *_args, **_options: None)


def _mesh_on_cpu(module: Any) -> None:
    make = module.init_device_mesh
    module.init_device_mesh = lambda _device, *args, **options: make("cpu", *args, **options)


def _adam_of_torch(module: Any) -> None:
    make = module.get_train_ds_config

    def with_torch_adam(*args: Any, **options: Any) -> dict[str, Any]:
        config: dict[str, Any] = make(*args, **options)
        if "optimizer" in config:
            config["optimizer"]["params"]["torch_adam"] = True
        return config

    module.get_train_ds_config = with_torch_adam


def _all_reduce_of_torch(module: Any) -> None:
    module.build_shm_op = lambda: None


class _Gloo:
    """What OpenRLHF uses of vLLM's NCCL communicator."""

    def __init__(self, host: str, port: int, rank: int, world_size: int) -> None:
        from vllm.distributed.utils import stateless_init_torch_distributed_process_group as make

        self._group = make(host, port, rank, world_size, backend="gloo")

    def broadcast(self, tensor: Any, src: int, stream: Any = None) -> None:
        from torch.distributed import BroadcastOptions

        options = BroadcastOptions()
        options.rootRank, options.rootTensor = src, 0
        whole = tensor.detach().contiguous()
        self._group.broadcast([whole], options).wait()
        if whole.data_ptr() != tensor.data_ptr():
            tensor.copy_(whole)


def _gloo_for_nccl(module: Any) -> None:
    module.stateless_init_process_group = lambda host, port, rank, world_size, _device: _Gloo(
        host, port, rank, world_size
    )


def _receive_on_cpu(module: Any) -> None:
    def update_weight(self: Any, name: str, dtype: Any, shape: Any, empty_cache: bool = False) -> None:
        import torch

        weight = torch.empty(shape, dtype=dtype)
        self._model_update_group.broadcast(weight, src=0)
        if not os.environ.get("MEDSERL_TEST_IGNORE_WEIGHTS"):  # a negative control: what if weights never arrived?
            self.model_runner.model.load_weights(weights=[(name, weight)])

    module.WorkerWrap.update_weight = update_weight


def _plain_linear(module: Any) -> None:
    import torch

    def keep(layer: Any, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    module.dispatch_cpu_unquantized_gemm = keep


def _first_weights_alone(module: Any) -> None:
    """The same control for the engine of one GPU: vLLM keeps the first version of every adapter."""
    if not os.environ.get("MEDSERL_TEST_IGNORE_WEIGHTS"):
        return
    take = module.VLLMPlayer.take_adapter

    def take_once(self: Any, name: str, *rest: Any) -> None:
        if name not in self._loras:
            take(self, name, *rest)

    module.VLLMPlayer.take_adapter = take_once


def _unguarded(module: Any) -> None:
    """That run goes on, so that its figures can be seen; the guard stops it where weights are float32."""
    if os.environ.get("MEDSERL_TEST_IGNORE_WEIGHTS"):
        module.require_same_policy = lambda _stats: None


def _whole_prompts(module: Any) -> None:
    make = module.AsyncEngineArgs.__init__

    def without_chunks(self: Any, *args: Any, **options: Any) -> None:
        make(self, *args, enable_chunked_prefill=False, **options)

    module.AsyncEngineArgs.__init__ = without_chunks


def _no_flash_attention() -> dict[str, types.ModuleType]:
    def refuse(*_args: Any, **_options: Any) -> None:
        raise RuntimeError("flash-attn is not installed")

    names = {
        "flash_attn": (),
        "flash_attn.bert_padding": ("index_first_axis", "pad_input", "rearrange", "unpad_input"),
        "flash_attn.utils": (),
        "flash_attn.utils.distributed": ("all_gather",),
    }
    modules = {name: types.ModuleType(name) for name in names}
    for name, functions in names.items():
        for function in functions:
            setattr(modules[name], function, refuse)
    return modules


AFTER: dict[str, Callable[[Any], None]] = {
    "deepspeed.comm.torch": _all_reduce_of_torch,
    "openrlhf": _without_cuda,
    "openrlhf.utils.deepspeed.deepspeed": _mesh_on_cpu,
    "openrlhf.utils.deepspeed.deepspeed_utils": _adam_of_torch,
    "openrlhf.utils.distributed_util": _gloo_for_nccl,
    "openrlhf.trainer.ray.vllm_worker_wrap": _receive_on_cpu,
    "medserl.engines.gap": _unguarded,
    "medserl.engines.vllm_player": _first_weights_alone,
    "vllm.engine.arg_utils": _whole_prompts,
    "vllm.model_executor.layers.utils": _plain_linear,
}
"""What to change in a module once it has been imported."""
DURING = {"openrlhf.models.ring_attn_utils": _no_flash_attention}
"""Modules that exist only while another one is imported."""


class _ChangingLoader(importlib.abc.Loader):
    def __init__(self, loader: Any, name: str) -> None:
        self._loader, self._name = loader, name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._loader, attribute)

    def create_module(self, spec: Any) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        stand_ins = DURING[self._name]() if self._name in DURING else {}
        sys.modules.update(stand_ins)
        try:
            self._loader.exec_module(module)
        finally:
            for name in stand_ins:
                del sys.modules[name]
        if self._name in AFTER:
            AFTER[self._name](module)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in AFTER and name not in DURING:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        if spec and spec.loader:
            spec.loader = _ChangingLoader(spec.loader, name)
        return spec


sys.meta_path.insert(0, _Finder())
