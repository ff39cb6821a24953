"""The shipped warm-up with a LoRA on every linear layer in place of attention alone, for the question of capacity.

    python benchmarks/learning/widen.py outputs/learning/wide        # then arms that end in `_wide`

What is added begins at zero, so this adapter answers as the shipped one does: an arm that starts from it differs from
its like in how much it can learn, and in nothing else.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

from medserl.config import Settings
from medserl.models import POLICY, adapter_source, load_model, lora_targets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the adapter goes")
    widen(Settings(adapter="auto", device="cpu", dtype="float32"), parser.parse_args().folder)


def widen(settings: Settings, folder: Path) -> None:
    """Write the adapter that `settings` name, all-linear, to `folder`."""
    narrow: PeftModel = load_model(settings, trainable=False).model
    config = copy.deepcopy(narrow.peft_config[POLICY])
    config.target_modules = lora_targets("all-linear")
    weights = get_peft_model_state_dict(narrow, adapter_name=POLICY, save_embedding_layers=False)
    base = load_model(settings.with_overrides(adapter="none", lora_rank=0), trainable=False).model
    torch.manual_seed(settings.seed)  # LoRA's A matrices start at random, its B matrices at zero
    wide = get_peft_model(base, config, adapter_name=POLICY)
    missing = set_peft_model_state_dict(wide, weights, adapter_name=POLICY)
    if missing.unexpected_keys:
        raise SystemExit(f"{adapter_source(settings)}: has weights that no linear layer takes")
    wide.save_pretrained(folder, save_embedding_layers=False)


if __name__ == "__main__":
    main()
