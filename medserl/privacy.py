"""Notes are sensitive and nothing leaves the machine: every library's reports on its use are switched off.

Importing `medserl` does it, before a library that reports can be imported, and for the processes that are started from
here. It holds whatever was set before: W&B alone sends figures, where `wandb` asks for it.
"""

from __future__ import annotations

import os
import sys

SWITCHES = {
    "DO_NOT_TRACK": "1",  # honoured by many: huggingface_hub, vLLM, ...
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub, and what reports through it: TRL, transformers, datasets
    "DISABLE_TELEMETRY": "1",  # the same, by its older name
    "DISABLE_SAFETENSORS_CONVERSION": "1",  # transformers asks a service to convert weights
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "WANDB_ERROR_REPORTING": "false",
    "GRADIO_ANALYTICS_ENABLED": "False",
}


def switch_reports_off() -> None:
    """Set every switch, and turn off what has been imported already and read its switch then."""
    os.environ.update(SWITCHES)
    hub = sys.modules.get("huggingface_hub.constants")
    if hub:
        hub.HF_HUB_DISABLE_TELEMETRY = True  # type: ignore[attr-defined]
