"""What one game leaves behind: frozen carriers from the rollout to the trainer, the log and the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from medserl.game.parsing import parse_verdict
from medserl.game.prompts import Messages
from medserl.game.rewards import NO_GAME, Rewards
from medserl.game.roles import Mode, Role, Verdict, truth
from medserl.game.vcf import VCFResult

StillTrue = Literal["true", "false", "unknown"]
"""Whether a note's fact is still true after an edit, by the truth oracle."""


@dataclass(frozen=True)
class Completion:
    """What an engine sampled for one prompt.

    `token_ids` and `logprobs` have equal length; the end-of-turn token, where one was sampled, is the last of both.
    `logprobs` are natural logs of the sampled tokens' probabilities in the distribution they were sampled from: the
    policy at the sampling temperature (a greedy completion's are at temperature 1). There are none where the text was
    given and not sampled (`Engine.target_turns`), or where the engine cannot tell them.
    """

    text: str
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Literal["stop", "length"]

    @property
    def truncated(self) -> bool:
        """Whether it was cut at the token limit: an answer that did not end is none, whatever stands in it."""
        return self.finish == "length"


@dataclass(frozen=True)
class Turn:
    """One role's prompt and completion."""

    role: Role
    messages: Messages
    completion: Completion

    @property
    def verdict(self) -> Verdict | None:
        """What the Assessor's completion says; nothing where it was truncated."""
        return None if self.completion.truncated else parse_verdict(self.completion.text)


@dataclass(frozen=True)
class Attempt:
    """One try of the Injector. `modified` is None where the completion held no note, or was truncated, as `vcf` says.

    `edit_class` is the edit audit's; None where the edit was not audited.
    """

    turn: Turn
    modified: str | None
    vcf: VCFResult
    edit_class: str | None = None


@dataclass(frozen=True)
class Sample:
    """One role-turn with its own reward: what the policy is trained on."""

    turn: Turn
    reward: float
    note_id: str
    mode: Mode


@dataclass(frozen=True)
class RewardedTurn:
    """One more sample of the Assessor on a note that it has judged already."""

    turn: Turn
    reward: float


@dataclass(frozen=True)
class Episode:
    """One game with its full provenance.

    `assessor`, `verdict` and `rewards.assessor` are the Assessor's first sample, `more_turns` its others, where
    `assessor_samples` asks for them. `still_true` is the truth oracle's word on the accepted note; None without one,
    or for a note without a fact of its table.
    """

    note_id: str
    original: str
    mode: Mode
    error_type: str | None
    attempts: tuple[Attempt, ...]
    assessor: Turn | None = None
    verdict: Verdict | None = None
    rewards: Rewards = NO_GAME
    fact_id: str | None = None
    more_turns: tuple[RewardedTurn, ...] = ()
    still_true: StillTrue | None = None

    @property
    def accepted(self) -> Attempt | None:
        """The attempt that passed the VCF, if one did: always the last."""
        return self.attempts[-1] if self.attempts and self.attempts[-1].vcf.passed else None

    @property
    def modified(self) -> str | None:
        return self.accepted.modified if self.accepted else None

    @property
    def assessor_turns(self) -> list[Turn]:
        """The Assessor's turns on the accepted note, its first sample first."""
        return [self.assessor, *(each.turn for each in self.more_turns)] if self.assessor else []

    @property
    def edited_span(self) -> str | None:
        """What the accepted edit changed, casefolded, wherever it stood: `left => right`; None without one."""
        if self.accepted is None:
            return None
        return "; ".join(f"{edit.original} => {edit.modified}" for edit in self.accepted.vcf.edits).casefold()

    @property
    def fooled(self) -> bool:
        """Whether the Assessor gave a verdict, in its first sample, and a wrong one: the Injector has won."""
        return self.verdict is not None and self.verdict != truth(self.mode)

    def samples(self) -> list[Sample]:
        """The role-turns that carry a reward (docs/design.md, the payoff)."""
        samples = []
        if self.accepted and self.rewards.injector is not None:
            samples.append(Sample(self.accepted.turn, self.rewards.injector, self.note_id, self.mode))
        if self.assessor and self.rewards.assessor is not None:
            samples.append(Sample(self.assessor, self.rewards.assessor, self.note_id, self.mode))
        more = [Sample(each.turn, each.reward, self.note_id, self.mode) for each in self.more_turns]
        return samples + more

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
            "more_verdicts": [each.turn.verdict for each in self.more_turns],
        }
