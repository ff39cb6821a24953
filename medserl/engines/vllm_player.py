"""vLLM with weights that change: adapters come and go by name, or all weights are replaced.

New weights go through files in memory (`/dev/shm`, where it has room). Three rules of vLLM 0.29 decide how:
an adapter never keeps its name, because the prefix cache knows adapters by their names alone; an adapter is served
beside the weights and never merged into them, because a bfloat16 sum loses most of a small step; and vLLM sleeps at
level 1, because level 2 loses the adapters' buffers.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from medserl.config import Settings
from medserl.engines.base import Sampling
from medserl.engines.vllm import VLLMEngine
from medserl.engines.vllm_process import VLLMProcess
from medserl.errors import MedSeRLError, RunError
from medserl.game.roles import Role
from medserl.models.loading import reason
from medserl.models.unused_memory import free_unused_memory

IN_MEMORY = Path("/dev/shm")
SLEEP_LEVEL = 1
"""Weights wait in the CPU's memory, the cache is given back."""

T = TypeVar("T")

Write = Callable[[Path], None]
"""Writes weights as a folder that does not exist yet."""


class VLLMPlayer(VLLMEngine):
    """Writes with the adapter that `lora_name` names for a role; None where there are none."""

    def __init__(
        self,
        llm: Any,
        tokenizer: Any,
        stop_ids: frozenset[int],
        settings: Settings,
        logprobs_mode: str,
        lora_name: Callable[[Role], str] | None,
        process: VLLMProcess | None = None,
    ) -> None:
        super().__init__(llm, tokenizer, stop_ids, settings, logprobs_mode=logprobs_mode, process=process)
        self._lora_name = lora_name
        self._loras: dict[str, Any] = {}
        self._serial = 0
        self._asleep = False
        self.dtype = str(llm.model_config.dtype).removeprefix("torch.")

    def _lora_of(self, sampling: Sampling) -> Any:
        return self._loras[self._lora_name(sampling.role)] if self._lora_name else None

    # -- weights ------------------------------------------------------------------------------------------------

    def take_adapter(self, name: str, write: Write, size: int) -> None:
        """Play with a new version of the adapter from now on; `size` is about how many bytes `write` writes.

        Raises:
            RunError: vLLM cannot take it.
        """
        from vllm.lora.request import LoRARequest

        self._serial += 1
        version = f"{name}_{self._serial}"

        def hand_over() -> LoRARequest:
            with files_in_memory(size) as folder:
                write(folder / version)
                request = LoRARequest(version, self._serial, str(folder / version))
                self.llm.llm_engine.add_lora(request)  # and kept: vLLM has room for all that are ever there at once
            return request

        request = self._ask("take the new adapter", hand_over)
        before = self._loras.pop(name, None)
        if before:
            self._ask("drop an adapter", lambda: self.llm.llm_engine.remove_lora(before.lora_int_id))
        self._loras[name] = request

    def take_weights(self, write: Write, size: int) -> None:
        """Play with new weights from now on. Raises RunError where vLLM cannot take them."""

        def hand_over() -> None:
            with files_in_memory(size) as folder:
                write(folder / "weights")
                self.llm.collective_rpc("read_weights", args=(str(folder / "weights"),))

        self._ask("take the new weights", hand_over)
        self._ask("forget what the old weights read", self.llm.reset_prefix_cache)

    def lost_weight(self) -> str | None:
        """A layer whose weight vLLM cannot replace, if there is one."""
        found: list[str | None] = self._ask("tell of its weights", lambda: self.llm.collective_rpc("lost_weight"))
        return found[0]

    # -- memory -------------------------------------------------------------------------------------------------

    def sleep(self) -> None:
        """Give the GPU's memory back until `wake`."""
        if not self._asleep:
            self._ask("give its memory back", lambda: self.llm.sleep(level=SLEEP_LEVEL))
            self._asleep = True

    def wake(self) -> None:
        """Take the memory again. Raises RunError where something else has taken it meanwhile."""
        if self._asleep:
            free_unused_memory()
            hint = "try a lower vllm_gpu_memory or training_token_budget"
            self._ask(f"take the GPU's memory again ({hint})", self.llm.wake_up)
            self._asleep = False

    def _ask(self, what: str, call: Callable[[], T]) -> T:
        """What `call` gives. Whatever vLLM raises, or a full disk, is a RunError of one line."""
        try:
            return self.process.ask(call)
        except MedSeRLError:
            raise
        except Exception as error:
            raise RunError(f"vLLM cannot {what}: {reason(error)}") from error


@contextmanager
def files_in_memory(size: int) -> Iterator[Path]:
    """A folder for so many bytes, in memory if there is room, that is gone afterwards."""
    roomy = IN_MEMORY.is_dir() and shutil.disk_usage(IN_MEMORY).free > 2 * size
    with tempfile.TemporaryDirectory(prefix="medserl_", dir=IN_MEMORY if roomy else None) as folder:
        yield Path(folder)
