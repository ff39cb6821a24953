"""Stand-ins for ray and OpenRLHF, so that what is ours of the engine is tested without them."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from types import SimpleNamespace
from typing import Any

import pytest
import torch

OURS = "medserl.engines.openrlhf"


DEAD = 4
"""Ray's number for an actor that has died."""


class Reference:
    """A Ray object reference: a call that is made when its result is asked for."""

    def __init__(self, call: Callable[[], Any], ready: bool = True) -> None:
        self.call, self.ready = call, ready


class RayError(Exception):
    """As `ray.exceptions.RayError`."""


class RayTaskError(RayError):
    def __init__(self, cause: BaseException, text: str) -> None:
        super().__init__(text)
        self.cause = cause


def get(references: Any) -> Any:
    return [get(each) for each in references] if isinstance(references, list) else references.call()


def wait(references: Sequence[Reference], num_returns: int = 1, timeout: float | None = None) -> tuple[list, list]:
    ready = [each for each in references if each.ready][:num_returns]
    return ready, [each for each in references if each not in ready]


@dataclass
class Experience:
    """The tensors of OpenRLHF's `Experience` that are used here."""

    sequences: Any = None
    attention_mask: Any = None
    action_mask: Any = None
    action_log_probs: Any = None
    base_action_log_probs: Any = None
    rollout_log_probs: Any = None
    advantages: Any = None
    rewards: Any = None
    info: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def concat_experiences(parts: list[Experience], pad_token_id: int) -> Experience:
        whole = Experience()
        for name in (f.name for f in fields(Experience) if f.name != "info"):
            rows = [getattr(part, name) for part in parts]
            if rows[0] is None:
                continue
            longest = max(row.shape[-1] for row in rows)
            value = pad_token_id if name == "sequences" else 0
            padded = [torch.nn.functional.pad(row, (0, longest - row.shape[-1]), value=value) for row in rows]
            setattr(whole, name, torch.cat(rows if name == "rewards" else padded))
        return whole


class BasePPOTrainer:
    """OpenRLHF's trainer: keeps the groups, and lets the actors fit."""

    def __init__(self, strategy: Any, actor: Any, critic: Any, reward: Any, reference: Any, engines: Any, tok: Any):
        self.strategy, self.args = strategy, strategy.args
        self.actor_model_group, self.reference_model_group = actor, reference
        self.vllm_engines, self.tokenizer = engines, tok

    def ppo_train(self, global_steps: int) -> dict[str, float]:
        return get(self.actor_model_group.async_run_method("fit"))[-1]

    def broadcast_to_vllm(self) -> None:
        get(self.actor_model_group.async_run_method("broadcast_to_vllm"))


@contextmanager
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Inside, `import ray` and `import openrlhf...` find these stand-ins; our own modules are imported afresh."""
    contents = {
        "ray": {"get": get, "wait": wait},
        "ray.exceptions": {"RayError": RayError, "RayTaskError": RayTaskError},
        "ray._private": {"services": SimpleNamespace(canonicalize_bootstrap_address=lambda _address: None)},
        "ray.core": {},
        "ray.core.generated": {},
        "ray.core.generated.gcs_pb2": {"ActorTableData": SimpleNamespace(DEAD=DEAD)},
        "openrlhf": {},
        "openrlhf.trainer": {},
        "openrlhf.trainer.ppo_trainer": {"BasePPOTrainer": BasePPOTrainer},
        "openrlhf.trainer.ppo_utils": {},
        "openrlhf.trainer.ppo_utils.experience": {"Experience": Experience},
        "openrlhf.trainer.ray": {},
        "openrlhf.trainer.ray.launcher": {"RayActorGroup": object},
        f"{OURS}.cluster": {"Cluster": object},
    }
    before = {name for name in sys.modules if name.startswith(f"{OURS}.")}
    for name in before:
        monkeypatch.delitem(sys.modules, name)
    for name, attributes in contents.items():
        module = types.ModuleType(name)
        module.__path__ = []  # type: ignore[attr-defined]  # a package
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
    yield
    for name in [name for name in sys.modules if name.startswith(f"{OURS}.")]:
        monkeypatch.delitem(sys.modules, name, raising=False)
