"""What one game leaves behind: frozen carriers from the rollout to the trainer, the log and the report."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

from medserl.data.facts import Fact, load_facts
from medserl.data.truth import Verdict as Truth
from medserl.data.truth import check_edit
from medserl.game.audit import EditClass
from medserl.game.prompts import Messages
from medserl.game.rewards import NO_GAME, Rewards
from medserl.game.roles import Mode, Role, Verdict
from medserl.game.vcf import VCFResult


@dataclass(frozen=True)
class Completion:
    """What an engine sampled for one prompt.

    `token_ids` and `logprobs` have equal length; the end-of-turn token, where one was sampled, is the last of both.
    `logprobs` are natural logs of the sampled tokens' probabilities under the policy at temperature 1.
    """

    text: str
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Literal["stop", "length"]


@dataclass(frozen=True)
class Turn:
    """One role's prompt and completion."""

    role: Role
    messages: Messages
    completion: Completion


@dataclass(frozen=True)
class Attempt:
    """One try of the Injector. `modified` is None where the completion held no note; `vcf` then says `format`.

    `edit_class` is the edit audit's; None where the edit was not audited.
    """

    turn: Turn
    modified: str | None
    vcf: VCFResult
    edit_class: EditClass | None = None


@dataclass(frozen=True)
class Sample:
    """One role-turn with its own reward: what the policy is trained on."""

    turn: Turn
    reward: float
    note_id: str


@dataclass(frozen=True)
class Episode:
    """One game with its full provenance."""

    note_id: str
    original: str
    mode: Mode
    error_type: str | None
    attempts: tuple[Attempt, ...]
    assessor: Turn | None = None
    verdict: Verdict | None = None
    rewards: Rewards = NO_GAME
    fact_id: str | None = None

    @property
    def accepted(self) -> Attempt | None:
        """The attempt that passed the VCF, if one did: always the last."""
        return self.attempts[-1] if self.attempts and self.attempts[-1].vcf.passed else None

    @property
    def modified(self) -> str | None:
        return self.accepted.modified if self.accepted else None

    @cached_property
    def still_true(self) -> Truth | None:
        """The truth oracle on the accepted note; None without one, or for a note without a fact of our table.

        Worked out once, on the first look.
        """
        fact = _facts().get(self.fact_id) if self.fact_id else None
        if fact is None or self.modified is None:
            return None
        return check_edit(self.original, self.modified, fact).verdict

    def samples(self, rejection_reward: float = 0.0) -> list[Sample]:
        """The role-turns that carry a reward (DESIGN, section 5).

        `rejection_reward` other than 0 turns every rejected attempt into an Injector sample as well.
        """
        samples = []
        for attempt in self.attempts:
            if not attempt.vcf.passed and rejection_reward:
                samples.append(Sample(attempt.turn, rejection_reward, self.note_id))
        if self.accepted and self.rewards.injector is not None:
            samples.append(Sample(self.accepted.turn, self.rewards.injector, self.note_id))
        if self.assessor and self.rewards.assessor is not None:
            samples.append(Sample(self.assessor, self.rewards.assessor, self.note_id))
        return samples

    def record(self, round_number: int) -> dict[str, Any]:
        """The game as one JSON object of `episodes.jsonl`: texts, not tokens."""
        return {
            "round": round_number,
            "note_id": self.note_id,
            "fact_id": self.fact_id,
            "mode": self.mode,
            "error_type": self.error_type,
            "original": self.original,
            "modified": self.modified,
            "attempts": [
                {
                    "completion": attempt.turn.completion.text,
                    "modified": attempt.modified,
                    "reason": attempt.vcf.reason,
                    "jaccard": round(attempt.vcf.jaccard, 6),
                    "word_edits": attempt.vcf.word_edits,
                    "edit_class": attempt.edit_class,
                }
                for attempt in self.attempts
            ],
            "edits": [
                {"original": edit.original, "modified": edit.modified}
                for edit in (self.accepted.vcf.edits if self.accepted else ())
            ],
            "still_true": self.still_true,
            "assessor_completion": self.assessor.completion.text if self.assessor else None,
            "verdict": self.verdict,
            "reward_assessor": self.rewards.assessor,
            "reward_injector": self.rewards.injector,
        }


@lru_cache(maxsize=1)
def _facts() -> dict[str, Fact]:
    return {fact.fact_id: fact for fact in load_facts().facts}
