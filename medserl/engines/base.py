"""The one door between the game and a language model: what an engine must be able to do.

The trainer and the rollout know this Protocol and nothing of torch, Ray or vLLM behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from medserl.game.episode import Completion, Turn
from medserl.game.prompts import Messages
from medserl.game.roles import Role


@dataclass(frozen=True)
class Sampling:
    """How completions are sampled. `temperature` 0 is greedy; equal seeds give equal completions.

    `seeds`, one for each prompt, take the place of `seed` where what is sampled for a prompt must not depend on the
    others in the call. `limits`, likewise one for each prompt, take the place of `max_new_tokens`, so that one that has
    much to write raises no other's. `role` says whose weights write: it matters to an engine that keeps an adapter for
    each role.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    seeds: tuple[int, ...] = ()
    limits: tuple[int, ...] = ()
    role: Role = "assessor"

    def rooms(self, count: int) -> tuple[int, ...]:
        """The most tokens that the completion of each of `count` prompts may have."""
        return self.limits or (self.max_new_tokens,) * count

    def of(self, places: Sequence[int]) -> Sampling:
        """The same for the prompts at some places of the call alone."""
        seeds, limits = (tuple(each[i] for i in places) if each else () for each in (self.seeds, self.limits))
        return replace(self, seeds=seeds, limits=limits)


@dataclass(frozen=True)
class WeightedTurn:
    """A turn ready for the policy update, of `reward`. Each tuple holds one number per completion token.

    `old_logprobs` is None for a right answer of the auxiliary SFT loss, which nobody sampled: it is learnt at ratio 1,
    whatever the policy now is.
    """

    turn: Turn
    old_logprobs: tuple[float, ...] | None
    advantages: tuple[float, ...]
    note_id: str
    ref_logprobs: tuple[float, ...] | None = None
    reward: float = 0.0


def split_by_note(turns: Sequence[WeightedTurn], parts: int) -> list[list[WeightedTurn]]:
    """The mini-batches of an update: at most `parts`, about equally large, none empty.

    All turns of a note stay together: both roles, both twins. A mini-batch of one role alone would pull one way.
    """
    notes: dict[str, list[WeightedTurn]] = {}
    for turn in turns:
        notes.setdefault(turn.note_id, []).append(turn)
    batches: list[list[WeightedTurn]] = [[] for _ in range(min(parts, len(notes)))]
    for mine in notes.values():
        min(batches, key=len).extend(mine)
    return batches


@dataclass(frozen=True)
class UpdateStats:
    """What one policy update did; means are over completion tokens, log-probabilities at the sampling temperature."""

    loss: float
    grad_norm: float
    clip_fraction: float
    entropy: float
    logprob_gap: float
    """Mean |sampled - recomputed| logprob before the first optimizer step: 0 but for rounding."""
    optimizer_steps: int
    tokens: int
    logprob_gap_rms: float = 0.0
    """Root mean square of the same, and the largest."""
    logprob_gap_max: float = 0.0
    logprob_gap_mean: float = 0.0
    """Mean of sampled - recomputed, with its sign."""
    gap_explained: float | None = None
    """What rounding explains of the root mean square (`gap.explained_gap`); None where other weights may play."""
    trained_parameters: int | None = None
    """How many weights the update could change."""
    sft_loss: float | None = None
    """The auxiliary SFT loss: mean negative log-likelihood of its target tokens, each before its own optimizer step.
    None where there are none."""
    vllm_kl: float | None = None
    """`logprob_gap_mean` where vLLM samples: it grows when vLLM's weights fall behind."""


class InferenceEngine(Protocol):
    """A model that writes and scores replies, and learns nothing: what playing and judging need."""

    def generate(self, prompts: Sequence[Messages], sampling: Sampling) -> list[Completion]:
        """One completion for each prompt, in order, with the rollout weights.

        Raises:
            ModelError: a prompt leaves no room for its completion in the model's context.
        """

    @property
    def context(self) -> int | None:
        """The most tokens that a prompt and its completion may have together; None where nothing is known to limit
        them."""

    def prompt_lengths(self, prompts: Sequence[Messages]) -> list[int]:
        """How many tokens each prompt has, the header of the answer included. Nothing of them is kept in memory."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens the model needs to write each text, without the end of its turn."""

    @property
    def scores_replies(self) -> bool:
        """Whether it can tell how probable replies are."""

    def reply_probabilities(
        self, prompts: Sequence[Messages], replies: Sequence[tuple[str, ...]]
    ) -> list[tuple[float, ...]]:
        """How probable each of a prompt's alternative replies is among them: numbers that sum to 1.

        A reply counts as the beginning of what the model may say, at temperature 1: whatever may follow it is left
        open, so none may be the beginning of another. `probabilities_by_logprobs` does it by an engine's `logprobs`.

        Raises:
            ModelError: a prompt leaves no room for its replies in the model's context.
        """

    def close(self) -> None:
        """Give back what the engine holds outside this process."""


class Engine(InferenceEngine, Protocol):
    """A policy with a frozen reference: sampled from, scored, updated, saved."""

    def logprobs(self, turns: Sequence[Turn], *, reference: bool = False) -> list[tuple[float, ...]]:
        """Log-probability of every completion token of each turn, under the policy or the reference.

        Both at the temperature that games are sampled at, so that ratios and KL are of the distributions that play.
        """

    def target_turns(self, role: Role, prompts: Sequence[Messages], replies: Sequence[str]) -> list[Turn]:
        """The replies as turns of `role`: tokens to the end of the turn, without log-probabilities."""

    def update(self, turns: Sequence[WeightedTurn], *, learning_rate: float) -> UpdateStats:
        """One pass of policy-gradient steps over the turns.

        Raises:
            RunError: the loss or the gradient is not finite; the optimizer step at hand was not made.
        """

    def sync(self) -> None:
        """Make the updated weights the rollout weights."""

    def save(self, folder: Path) -> None:
        """Write the policy (an ordinary Hugging Face or PEFT folder) and the optimizer state into `folder`."""

    def load(self, folder: Path) -> None:
        """Restore what `save` wrote."""

    def peak_memory_bytes(self) -> int:
        """Highest memory use so far: of the device where there is one, else of this process."""
