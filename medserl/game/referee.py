"""The referee: what becomes of what a role wrote, in our own rollout and wherever else the game is played."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from medserl.game.episode import Attempt, Episode, Reading, Turn
from medserl.game.parsing import InjectorFormat, parse_injection
from medserl.game.rewards import InjectorReward, Rewards, assessor_reward, injector_reward
from medserl.game.roles import Mode
from medserl.game.vcf import Reason, VCFResult, apply_vcf


class Rules(Protocol):
    """What the referee goes by; a run's settings say it."""

    @property
    def vcf_min_jaccard(self) -> float: ...
    @property
    def vcf_max_jaccard(self) -> float: ...
    @property
    def vcf_max_word_edits(self) -> int: ...
    @property
    def edit_audit(self) -> str: ...


class AuditedEdit(Protocol):
    """What an audit says of one edit: its class, and why a mode does not allow it."""

    @property
    def edit_class(self) -> str: ...
    def objection(self, mode: Mode) -> Reason | None: ...


EditAudit = Callable[[str, str], AuditedEdit]
"""Looks at a note and its edited form; `knowledge.audit` is one. The game knows no medicine, so it is given in."""


def judge_attempt(
    turn: Turn, original: str, mode: Mode | None, form: InjectorFormat, rules: Rules, audit: EditAudit
) -> Attempt:
    """The Injector's turn on the note `original`: the note that it stands for, and whether that is accepted.

    `audit` is asked unless `rules.edit_audit` is `off`. It rejects by mode, so without one it rejects nothing.
    """
    cut = turn.completion.truncated
    modified = None if cut else parse_injection(turn.completion.text, original, form)
    if modified is None:
        return Attempt(turn, None, VCFResult(False, Reason.TRUNCATED if cut else Reason.FORMAT, 0.0, 0))
    vcf = apply_vcf(
        original,
        modified,
        min_jaccard=rules.vcf_min_jaccard,
        max_jaccard=rules.vcf_max_jaccard,
        max_word_edits=rules.vcf_max_word_edits,
    )
    if not vcf.passed or rules.edit_audit == "off":
        return Attempt(turn, modified, vcf)
    audited = audit(original, modified)
    objection = audited.objection(mode) if mode and rules.edit_audit == "reject" else None
    if objection:
        vcf = replace(vcf, passed=False, reason=objection)
    return Attempt(turn, modified, vcf, audited.edit_class)


def settle(episode: Episode, turns: Sequence[Turn], shape: InjectorReward = "zero_sum") -> Episode:
    """The game with the Assessor's turns on its accepted note, at least one, and every reward."""
    verdicts = [turn.verdict for turn in turns]
    assessor = [assessor_reward(episode.mode, verdict) for verdict in verdicts]
    return replace(
        episode,
        assessor=turns[0],
        verdict=verdicts[0],
        rewards=Rewards(assessor[0], injector_reward(episode.mode, verdicts, shape)),
        more_readings=tuple(map(Reading, turns[1:], verdicts[1:], assessor[1:])),
    )
