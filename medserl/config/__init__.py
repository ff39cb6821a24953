"""Every setting of a run, once: each field is a key of `--config file.toml` and a flag of the command line.

`kl_coef` in a file is `--kl-coef` on the command line and `MEDSERL_KL_COEF` in the environment; flags win over the
environment, that over the file, the file over the defaults.
"""

from __future__ import annotations

import difflib
import os
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from medserl.config.removed import gone, renamed, without_removed
from medserl.errors import ConfigError
from medserl.game.rewards import AssessorReward
from medserl.game.toml_files import read_toml
from medserl.game.vcf import MAX_JACCARD, MAX_WORD_EDITS, MIN_JACCARD

RolesTrained = Literal["both", "assessor", "injector"]
KLEstimator = Literal["k1", "k3"]
Normalization = Literal["global", "per_role", "per_mode", "per_text"]


class _Section(BaseModel):
    """Settings that belong together; the first line of a section's text is its title in `--help`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, str_min_length=1)


class ModelSettings(_Section):
    """Model"""

    model: str = Field("smollm2-135m", description="Hub name, folder, or the embedded default.")
    adapter: str = Field("auto", description="LoRA adapter to start from: a folder, none, or auto (shipped warm-up).")
    lora_rank: int = Field(16, ge=0, description="Rank of a fresh adapter; 0 trains all weights.")
    lora_alpha: int = Field(32, ge=1, description="LoRA scale: the adapter's output times alpha / rank.")
    lora_targets: str = Field(
        "auto",
        description="attention, all-linear, upper-linear (not the lowest quarter), or module names with commas: a "
        "given adapter is widened to them. auto: its own, or attention.",
    )
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|mps|cuda(:\d{1,3})?)$", description="auto, cpu, cuda, cuda:N or mps."
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field("auto", description="Type of the weights.")
    load_in_4bit: bool = Field(False, description="Frozen weights in 4 bits under the LoRA (QLoRA): less memory.")
    trust_remote_code: bool = Field(False, description="Run code that comes with a hub model.")
    gradient_checkpointing: bool = Field(False, description="Less memory, about a third more time.")
    thinking: bool = Field(False, description="Switch on the hidden thinking of models that have it (Qwen3).")
    engine: Literal["auto", "local", "openrlhf", "vllm", "scripted"] = Field("auto", description="What runs the model.")


class DataSettings(_Section):
    """Data"""

    prompt_data: str = Field("sample", description="Notes to train on: a file, or sample (the embedded notes).")
    validation_data: str = Field(
        "auto",
        description="Notes for evaluation during training: a file, sample or none. auto: a split of one's own notes.",
    )
    note_column: str | None = Field(None, description="Column of the correct notes, where its name is not guessed.")
    incorrect_column: str | None = Field(None, description="Column of the incorrect twins, likewise.")
    id_column: str | None = Field(None, description="Column of the notes' ids, likewise.")
    label_column: str | None = Field(
        None, description="Column that says which notes have an error; none passes over one that looks like it."
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Everything random follows from it.")


class GameSettings(_Section):
    """Game"""

    prompts: str = Field("term", description="Prompt set: term, full, or a TOML file.")
    injector_format: Literal["edit", "note"] = Field("edit", description="What the Injector writes.")
    vcf_min_jaccard: float = Field(MIN_JACCARD, ge=0, le=1, description="Least word overlap of an accepted edit.")
    vcf_max_jaccard: float = Field(MAX_JACCARD, ge=0, le=1, description="Greatest word overlap.")
    vcf_max_word_edits: int = Field(MAX_WORD_EDITS, ge=1, description="Most words changed.")
    vcf_max_attempts: int = Field(3, ge=1, description="Tries of the Injector at one note.")
    edit_audit: Literal["off", "log", "reject"] = Field(
        "log", description="Class of each edit by rules: not looked at, logged, or wrong for the mode and rejected."
    )


class TeachingSettings(_Section):
    """What keeps the game honest and teaching (docs/experiments.md)"""

    judge_originals: bool = Field(
        False, description="The Assessor judges the original of each accepted error too: then no constant verdict pays."
    )
    gold_data: str = Field("auto", description="Where gold pairs are: a file, sample, or auto (the training notes).")
    gold_fraction: float = Field(
        0.0, ge=0, lt=1, description="Share of the Assessor's turns on gold pairs, both twins."
    )
    sft_verdict_pairs: int = Field(0, ge=0, description="Gold pairs a round whose right verdicts the Assessor learns.")
    sft_edit_pairs: int = Field(0, ge=0, description="Gold pairs a round whose edits the Injector learns.")
    sft_games: int = Field(
        0, ge=0, description="Accepted errors a round, at most, whose right verdicts the Assessor learns."
    )
    sft_loss_weight: float = Field(1.0, gt=0, description="Advantage of every token of such an answer.")
    assessor_samples: int = Field(1, ge=1, description="Assessor turns on each accepted note.")
    assessor_reward: AssessorReward = Field(
        "verdict",
        description="verdict; or correction: that the words are right that should stand there counts as much.",
    )
    adapters: Literal["shared", "per_role"] = Field("shared", description="One LoRA adapter, or one for each role.")


class RolloutSettings(_Section):
    """Rollout"""

    rollout_batch_size: int = Field(32, ge=2, description="Games a round.")
    max_epochs: int = Field(1, ge=1, description="Passes over the notes.")
    max_rounds: int | None = Field(None, ge=1, description="Stop after so many rounds, if that is sooner.")
    temperature: float = Field(
        1.0, gt=0, description="Sampling temperature of both roles; training updates that policy."
    )
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus sampling of both roles; training needs 1.")
    max_new_tokens_injector: int = Field(0, ge=0, description="0: follows from each note.")
    max_new_tokens_assessor: int = Field(0, ge=0, description="0: enough for the prompt set.")
    generation_token_budget: int = Field(16384, ge=256, description="Tokens of one generation batch.")


class AlgorithmSettings(_Section):
    """REINFORCE++"""

    learning_rate: float = Field(5e-5, gt=0, description="About 1e-6 when all weights are trained.")
    lr_warmup_rounds: int = Field(0, ge=0, description="Rounds that lead up to learning_rate in equal steps.")
    lr_schedule: Literal["constant", "linear"] = Field("constant", description="linear falls to 0 with the last round.")
    kl_coef: float = Field(0.01, ge=0, description="Weight of the KL to the reference; 0 is off.")
    kl_estimator: KLEstimator = Field("k1", description="k1 in the reward; k3 as a loss.")
    clip_range: float = Field(0.2, gt=0, lt=1, description="PPO's clip.")
    kl_target: float = Field(0.0, ge=0, description="Nats a token that kl_coef is steered to; 0 keeps it constant.")
    advantage_normalization: Normalization = Field(
        "per_mode",
        description="Whose mean and std: global, per_role, per_mode (each mode's mean, both modes weighed alike), "
        "or per_text (likewise, and the mean of the turns on one text).",
    )
    policy_loss_weight: float = Field(
        1.0,
        ge=0,
        description="Weight of the policy loss beside the auxiliary SFT loss; 0: that one alone, no Assessor plays.",
    )
    roles_trained: RolesTrained = Field(
        "both", description="Whose turns update the policy; with adapters per_role the other role stays as it was."
    )
    mini_batches: int = Field(1, ge=1, description="Optimizer steps a round.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradient clipping.")
    training_token_budget: int = Field(1024, ge=256, description="Tokens of one pass; raise it on a GPU.")


class OpenRLHFSettings(_Section):
    """OpenRLHF (engine openrlhf, docs/scaling.md)"""

    placement: Literal["separate", "colocated"] = Field("separate", description="vLLM on GPUs of its own, or shared.")
    train_nodes: int = Field(1, ge=1, description="Machines that train.")
    train_gpus_per_node: int = Field(1, ge=1, description="GPUs that train on each of them.")
    zero_stage: int = Field(2, ge=0, le=3, description="What DeepSpeed shards: 2 gradients and optimizer, 3 all.")
    adam_offload: bool = Field(False, description="Keep the optimizer in the memory of the CPU.")
    attention: Literal["sdpa", "eager", "flash_attention_2"] = Field("sdpa", description="Attention of training.")
    packing: bool = Field(False, description="Train without padding; needs attention = flash_attention_2.")
    vllm_engines: int = Field(1, ge=1, description="Copies of the model that play.")
    vllm_tensor_parallel: int = Field(1, ge=1, description="GPUs of each copy.")
    vllm_gpu_memory: float = Field(0.8, gt=0, lt=1, description="Share of its GPU's memory that vLLM takes.")
    vllm_context: int = Field(4096, ge=64, description="Most tokens of a prompt and its answer.")
    vllm_eager: bool = Field(False, description="No CUDA graphs: starts faster, plays slower.")
    vllm_sleep: bool = Field(False, description="Playing and training take turns in GPU memory (colocated).")
    weight_sync: Literal["nccl", "gloo"] = Field(
        "nccl", description="How whole weights travel to vLLM; an adapter goes by Ray."
    )
    async_rollout: bool = Field(False, description="Play the next round while this one is learnt.")


class RunSettings(_Section):
    """Run"""

    output_dir: str | None = Field(None, description="Run folder; default outputs/medserl_<model>_<time>.")
    resume: str | None = Field(None, description="Run folder to go on with.")
    eval_every: int = Field(0, ge=0, description="Rounds between validations; 0: before and after only.")
    eval_notes: int = Field(64, ge=1, description="Most validation notes (twins counted once) to use.")
    frozen_games: int = Field(
        32, ge=0, description="Games that the starting policy plays as fixed opponent, judged at validation; 0: none."
    )
    save_every: int = Field(5, ge=1, description="Rounds between checkpoints.")
    keep_checkpoints: int = Field(3, ge=1, description="Newest checkpoints kept.")
    tensorboard: bool = Field(True, description="Write TensorBoard events.")
    wandb: bool = Field(False, description="Log to Weights & Biases (sends metrics off this machine).")


SECTIONS: tuple[type[BaseModel], ...] = (
    ModelSettings,
    DataSettings,
    GameSettings,
    TeachingSettings,
    RolloutSettings,
    AlgorithmSettings,
    OpenRLHFSettings,
    RunSettings,
)


class Settings(  # of the bases pydantic takes the last one's fields first
    RunSettings,
    OpenRLHFSettings,
    AlgorithmSettings,
    RolloutSettings,
    TeachingSettings,
    GameSettings,
    DataSettings,
    ModelSettings,
):
    """Settings of training; evaluation, play and warm-up read the ones that concern them."""

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.vcf_min_jaccard > self.vcf_max_jaccard:
            raise ValueError("vcf_min_jaccard is above vcf_max_jaccard: nothing could pass")
        if self.advantage_normalization == "per_text" and self.assessor_samples < 2:
            raise ValueError("advantage_normalization 'per_text' needs assessor_samples of 2 or more on each text")
        for name, role in (
            ("sft_verdict_pairs", "assessor"),
            ("sft_games", "assessor"),
            ("sft_edit_pairs", "injector"),
        ):
            if getattr(self, name) and self.roles_trained not in ("both", role):
                raise ValueError(
                    f"{name} teaches the {role}, but roles_trained is {self.roles_trained!r}: nothing else is to change"
                )
        if not self.policy_loss_weight:
            self._require_sft_alone()
        if self.kl_target and (not self.kl_coef or self.kl_estimator != "k1"):
            raise ValueError("kl_target steers the KL in the reward: it needs kl_coef above 0 and kl_estimator 'k1'")
        if self.adapters == "per_role" and not self.lora_rank:
            raise ValueError("adapters 'per_role' needs LoRA: lora_rank above 0")
        if self.adapters == "per_role" and self.engine == "openrlhf":
            raise ValueError("adapters 'per_role' is not for openrlhf: give --engine local or vllm")
        if self.load_in_4bit and not self.lora_rank:
            raise ValueError("load_in_4bit freezes the weights, so an adapter is trained: it needs lora_rank above 0")
        if self.load_in_4bit and self.engine in ("openrlhf", "vllm"):
            raise ValueError(
                f"load_in_4bit is for --engine local: {self.engine} would play with other weights than those that learn"
            )
        return self

    def _require_sft_alone(self) -> None:
        """Raises ValueError where nothing would be learnt without the policy loss, or rewards are asked for."""
        if not (self.sft_verdict_pairs or self.sft_edit_pairs or self.sft_games):
            raise ValueError(
                "policy_loss_weight 0 leaves the auxiliary SFT loss alone to learn from: give sft_verdict_pairs, "
                "sft_edit_pairs or sft_games"
            )
        for name in ("gold_fraction", "judge_originals", "kl_target"):
            if getattr(self, name):
                raise ValueError(f"{name} is about rewards, which policy_loss_weight 0 leaves out: give one of the two")

    @property
    def takes_gold_pairs(self) -> bool:
        """Whether any is learnt from beside the games."""
        return bool(self.gold_fraction or self.sft_verdict_pairs or self.sft_edit_pairs)

    @property
    def is_rewarded(self) -> bool:
        """Whether games are learnt from by their rewards, so that an Assessor has to judge them."""
        return self.policy_loss_weight > 0

    @property
    def is_played(self) -> bool:
        """Whether anything is learnt from games: else none is played."""
        return self.is_rewarded or self.sft_games > 0

    @property
    def plays_benign(self) -> bool:
        """Whether any game is benign: examples are made of errors alone, so without rewards no other is played."""
        return self.is_rewarded

    @property
    def needs_reference(self) -> bool:
        """Whether a frozen reference is ever asked for its log-probabilities."""
        return self.kl_coef > 0 and self.is_rewarded

    def require_trainable(self) -> None:
        """Raises ConfigError where games played with these settings could not be learnt from as they ask for."""
        if self.gold_data != "auto" and not self.takes_gold_pairs:
            raise ConfigError(
                f"gold_data {self.gold_data!r} names pairs, and no setting takes any: give sft_verdict_pairs, "
                "sft_edit_pairs or gold_fraction"
            )
        if not self.lora_rank and self.dtype in ("bfloat16", "float16") and self.engine != "openrlhf":
            raise ConfigError(
                f"lora_rank 0 with dtype {self.dtype}: steps of the size of learning_rate {self.learning_rate:g} are "
                "lost in weights of 16 bits (at 1e-6 one entry in 260 changes in three steps); leave dtype out, which "
                "trains float32 weights, or train an adapter: lora_rank above 0"
            )
        if self.top_p < 1:
            raise ConfigError(
                f"top_p is {self.top_p:g}, but training needs 1: the update takes every token's probability from the "
                "whole distribution, and below 1 games are sampled from a part of it; give --temperature instead, and "
                "--top-p to `medserl evaluate` and `play` alone"
            )

    def with_overrides(self, **changes: Any) -> Settings:
        """A checked copy with some settings changed."""
        return validate({**self.model_dump(), **changes})


# -- where settings come from -------------------------------------------------------------------------------

PREFIX = "MEDSERL_"
NOT_SETTINGS = ("MEDSERL_CACHE",)
"""Variables of ours that are no settings; those of the tests begin with `MEDSERL_TEST_`."""


def validate(values: Mapping[str, Any], source: str = "settings") -> Settings:
    """Settings from plain values; `source` says where they are from.

    Raises:
        ConfigError: an unknown key (the nearest known one is named) or a value out of range.
    """
    check_names(values, source)
    try:
        return Settings.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(f"{source}: {describe(error)}") from None


def explicit_settings(settings: Settings | None, changes: Mapping[str, Any]) -> Settings:
    """The settings, with those changed that are given by name; paths may be `Path`s.

    Of the result's fields those are set that somebody has set, so that it can be told what a resumed run is to change.

    Raises:
        ConfigError: there is no setting of a name, or a value cannot be used.
    """
    before = settings.model_dump(include=settings.model_fields_set) if settings else {}
    plain = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in changes.items()}
    return validate({**before, **plain})


def check_variables() -> None:
    """Raises ConfigError for a variable of the environment that begins as ours do and names no setting."""
    names = [PREFIX + name.upper() for name in Settings.model_fields]
    for key in os.environ:
        if key.startswith(PREFIX) and key not in (*names, *NOT_SETTINGS) and not key.startswith("MEDSERL_TEST_"):
            why = gone(key.removeprefix(PREFIX).lower()) or f"unknown setting {key!r}{_nearest(key, names)}"
            raise ConfigError(f"environment: {why}")


def check_names(values: Mapping[str, Any], source: str) -> None:
    for key in values:
        if key not in Settings.model_fields:
            why = gone(key) or f"unknown setting {_short(key)}{_nearest(key, Settings.model_fields)}"
            raise ConfigError(f"{source}: {why}")


def _nearest(key: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(key, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else "; see `medserl train --help`"


def describe(error: ValidationError) -> str:
    """The first problem of a validation error in one line."""
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    field = Settings.model_fields.get(name)
    if first["type"] == "string_pattern_mismatch" and field:  # the pattern itself is for machines
        message = f"give {(field.description or '').removesuffix('.')}"
    return f"{name}: {message} (got {_short(first['input'])})" if name else message


def _short(value: Any) -> str:
    try:
        return reprlib.repr(value)
    except ValueError:  # a number of more digits than Python writes
        return "a number of thousands of digits"


def read_config(path: str | Path, *, written: bool = False) -> dict[str, Any]:
    """The settings of a TOML file, names checked; of a file that a run has `written`, by the names of today.

    Raises:
        ConfigError: the file is missing, is no TOML, or holds an unknown key.
    """
    try:
        table = without_removed(read_toml(Path(path), f"config file {path}"))
    except FileNotFoundError:
        raise ConfigError(f"config file {path}: no such file") from None
    table = renamed(table) if written else table
    check_names(table, str(path))
    return table
