"""What fits 16, 24, 40 and 80 GB, from shapes alone: no GPU, no weights, no network.

    python benchmarks/memory.py                     # the table, by the rule of medserl/models/footprint.py
    python benchmarks/memory.py --simulate 512      # and the rule against an update of so many tokens on fake tensors

The simulation runs forward and backward of the real architecture with tensors that have shapes and no numbers, and
counts what is alive at the peak.
"""

from __future__ import annotations

import argparse
from typing import Any

from medserl.models.footprint import GB, KNOWN, Shape, fit, known_config

MODELS = ("Qwen/Qwen3-1.7B", "Qwen/Qwen3-4B", "Qwen/Qwen3-8B")
DEVICES = (16, 24, 40, 80)
ENGINES = {
    "`local`": {"vllm": False},
    "`local`, 4 bits": {"vllm": False, "load_in_4bit": True},
    "`vllm`": {"vllm": True},
}
RANK = 16
WRITTEN = 0.1
"""Of the tokens of a pass, those that were written: logits are computed for these alone."""


def table() -> str:
    """Markdown: of each model and device, how it is trained there."""
    lines = [
        "| model | engine | " + " | ".join(f"{size} GB" for size in DEVICES) + " |",
        "|---" * (2 + len(DEVICES)) + "|",
    ]
    for name in MODELS:
        shape = Shape.of(known_config(name))
        for engine, options in ENGINES.items():
            cells = [_cell(shape, size, **options) for size in DEVICES]
            lines.append(f"| {name.removeprefix('Qwen/')} | {engine} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(shape: Shape, size: int, *, vllm: bool, load_in_4bit: bool = False) -> str:
    found = fit(shape, size * GB, RANK, vllm=vllm, load_in_4bit=load_in_4bit)
    if found is None:
        return "no"
    marks = ["checkpointing"] * found.gradient_checkpointing + ["sleep"] * found.vllm_sleep
    return ", ".join([f"{found.training_token_budget:,} tokens", *marks, f"{found.needed / GB:.0f} GB"])


def simulated(name: str, tokens: int, *, checkpointing: bool) -> int:
    """Peak bytes of one update of a LoRA on fake tensors, `WRITTEN` of the tokens with logits."""
    import torch
    from peft import LoraConfig, get_peft_model
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import AutoModelForCausalLM

    config = known_config(name)
    config._attn_implementation = "sdpa"
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        if checkpointing:
            base.enable_input_require_grads()
            base.gradient_checkpointing_enable()
        model: Any = get_peft_model(base, LoraConfig(r=RANK, target_modules="all-linear"))
    with FakeTensorMode():
        _give_fake_storage(model)
        model.train()
        ids = torch.zeros(1, tokens, dtype=torch.long)
        alive = _alive()
        weights = sum(weight.numel() * weight.element_size() for weight in model.parameters())
        with alive, torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(input_ids=ids, logits_to_keep=max(1, round(WRITTEN * tokens)), use_cache=False).logits
            (-logits.float().log_softmax(-1)[..., 0].sum()).backward()
    return int(weights + alive.peak)


def _alive() -> Any:
    """A mode of torch that counts the bytes of what is made inside it and still there: `peak` is the most."""
    import weakref

    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves
    from torch.utils.weak import WeakIdKeyDictionary

    class Alive(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.now = self.peak = 0
            self._seen: Any = WeakIdKeyDictionary()

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            before = {
                id(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)
            }
            made = function(*args, **(kwargs or {}))
            for leaf in tree_leaves(made):
                if isinstance(leaf, torch.Tensor):
                    storage = leaf.untyped_storage()
                    if id(storage) not in before and storage not in self._seen:
                        self._seen[storage] = True
                        self.now += storage.nbytes()
                        weakref.finalize(storage, self._gone, storage.nbytes())
            self.peak = max(self.peak, self.now)
            return made

        def _gone(self, size: int) -> None:
            self.now -= size

    return Alive()


def _give_fake_storage(model: Any) -> None:
    """Tensors of the meta device have no place to be counted; PEFT cannot be built on fake ones."""
    import torch

    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                fake = torch.empty(weight.shape, dtype=weight.dtype)
                module._parameters[name] = torch.nn.Parameter(fake, requires_grad=weight.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulate", type=int, metavar="TOKENS", help="an update of so many tokens on fake tensors")
    parser.add_argument("--model", default="Qwen/Qwen3-4B", choices=sorted(KNOWN))
    options = parser.parse_args()
    print(table())
    if options.simulate:
        shape = Shape.of(known_config(options.model))
        for checkpointing in (False, True):
            found = simulated(options.model, options.simulate, checkpointing=checkpointing)
            rule = shape.learner(RANK) + options.simulate * shape.activations(checkpointing=checkpointing)
            how = "with" if checkpointing else "without"
            print(f"{options.model}, {options.simulate} tokens, {how} checkpointing: "
                  f"simulated {found / GB:.2f} GB, by the rule {rule / GB:.2f} GB")  # fmt: skip


if __name__ == "__main__":
    main()
