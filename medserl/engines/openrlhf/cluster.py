"""Ray: attach to a cluster or start one, place the actors, end them."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

import ray
from openrlhf.trainer.ray import vllm_engine
from openrlhf.trainer.ray.launcher import RayActorGroup, ReferenceModelActor
from ray.exceptions import RayError
from ray.util import placement_group

from medserl.config import Settings
from medserl.engines.openrlhf.actors import PolicyActor, RolloutActor, taking_adapters
from medserl.engines.openrlhf.address import cluster_address
from medserl.engines.openrlhf.constraints import check_cluster, gpus_needed, playing_gpus, training_ranks
from medserl.engines.openrlhf.lora import vllm_options
from medserl.engines.openrlhf.watch import Watch
from medserl.errors import ConfigError, RunError
from medserl.models import has_adapter

log = logging.getLogger("medserl")

GPU_SHARE = 0.2
"""Part of a GPU that Ray counts for each of the models on it; what they really take is their own affair."""
PLACEMENT_SECONDS = 60
STOP_SECONDS = 10


class Cluster:
    """The actors of one run: `policy` and, without an adapter, `reference` to train; `engines` to play."""

    def __init__(self, settings: Settings, watch: Watch) -> None:
        """Attach to the Ray cluster at hand, or start one on this machine.

        Raises:
            ConfigError: the cluster is too small for the settings, or does not answer.
        """
        self.watch = watch
        self._settings = settings
        self.policy: RayActorGroup | None = None
        self.reference: RayActorGroup | None = None
        self.engines: list[Any] = []
        address = cluster_address()
        context = ray.init(address, log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
        resources = ray.cluster_resources()
        nodes = len([node for node in ray.nodes() if node["Alive"]])
        log.info("Ray at %s: %d GPUs, %d machines", context.address_info["gcs_address"], resources.get("GPU", 0), nodes)
        try:
            check_cluster(settings, int(resources.get("GPU", 0)), nodes)
        except ConfigError:
            self.stop()
            raise
        log.info("this run takes %d of the GPUs", gpus_needed(settings))

    def start(self, strategy: Any, model: str, *, with_reference: bool) -> None:
        """Start every actor and load the model into each.

        Raises:
            RunError: an actor died or its model could not be loaded.
        """
        arguments, settings = strategy.args, self._settings
        training = self._place(training_ranks(settings))
        playing = training if settings.placement == "colocated" else self._place(playing_gpus(settings))
        self.engines = self._start_engines(arguments, model, playing)
        starting = [engine.get_num_unfinished_requests.remote() for engine in self.engines]
        if settings.placement == "colocated":  # vLLM plans with the memory that is free when it starts
            self.watch.results(starting, "starting vLLM")
        self.policy = self._group(ray.remote(num_gpus=1)(PolicyActor), training)
        started = self.policy.async_init_model_from_pretrained(strategy, model, 1, self.engines)
        if with_reference:
            self.reference = self._group(ReferenceModelActor, training)
            started += self.reference.async_init_model_from_pretrained(strategy, model)
        self.watch.results(starting, "starting vLLM")
        self.watch.sentinels = [engine.until_dead.remote() for engine in self.engines]
        groups = [group for group in (self.policy, self.reference) if group]
        self.watch.actors = [actor for group in groups for actor in group._actor_handlers]
        self.watch.results(started, "loading the model for training")

    def _place(self, gpus: int) -> Any:
        placement = placement_group([{"GPU": 1, "CPU": 1} for _ in range(gpus)], strategy="PACK")
        if not placement.wait(PLACEMENT_SECONDS):
            raise RunError(
                f"{gpus} GPUs, each with a CPU, did not come free within {PLACEMENT_SECONDS} s: another job has them, "
                "or Ray counts fewer CPUs than GPUs (ray status)"
            )
        return placement

    def _start_engines(self, arguments: Any, model: str, placement: Any) -> list[Any]:
        # OpenRLHF's way to start engines is used as it is, with our actor class in place of its own; the placement is
        # ours even where it is shared with nobody, since OpenRLHF would wait for GPUs forever
        lora = has_adapter(self._settings, trainable=True)
        player = taking_adapters(vllm_options(self._settings)) if lora else RolloutActor
        vllm_engine.RolloutRayActor = ray.remote(player)
        options = arguments.vllm
        return self.watch.guard(
            lambda: vllm_engine.create_vllm_engines(
                num_engines=options.num_engines,
                tensor_parallel_size=options.tensor_parallel_size,
                pretrain=model,
                seed=arguments.train.seed,
                full_determinism=False,
                enable_prefix_caching=options.enable_prefix_caching,
                enforce_eager=options.enforce_eager,
                max_model_len=arguments.data.max_len,
                shared_pg=placement,
                gpu_memory_utilization=options.gpu_memory_utilization,
                vllm_enable_sleep=options.enable_sleep,
                logprobs_mode=options.logprobs_mode,
            ),
            "starting vLLM",
        )

    def _group(self, actor_class: Any, placement: Any) -> RayActorGroup:
        return self.watch.guard(
            lambda: RayActorGroup(
                self._settings.train_nodes,
                self._settings.train_gpus_per_node,
                actor_class,
                pg=placement,
                num_gpus_per_actor=GPU_SHARE,
            ),
            "starting the training actors",
        )

    def stop(self) -> None:
        """End all actors; Ray itself too, where this process started it. May be called again."""
        if not ray.is_initialized():
            return
        if self.engines:
            with suppress(RayError):
                stopped = [engine.stop.remote() for engine in self.engines]
                ray.wait(stopped, num_returns=len(stopped), timeout=STOP_SECONDS)
        ray.shutdown()
