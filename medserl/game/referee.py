"""The referee: what becomes of what a role wrote, in our own rollout and wherever else the game is played."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol, assert_never

from medserl.game.episode import Attempt, Episode, RewardedTurn, Turn
from medserl.game.parsing import InjectorFormat, holds_words, parse_injection, stated_words
from medserl.game.rewards import AssessorReward, Rewards, assessor_reward, injector_reward, with_words
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


def settle(episode: Episode, turns: Sequence[Turn], rule: AssessorReward = "verdict") -> Episode:
    """The game with the Assessor's turns on its accepted note, at least one, and every reward."""
    verdicts = [turn.verdict for turn in turns]
    assessor = [reading_reward(turn, episode.mode, episode.modified or "", episode.original, rule) for turn in turns]
    given = [reward if verdict else None for reward, verdict in zip(assessor, verdicts, strict=True)]
    return replace(
        episode,
        assessor=turns[0],
        verdict=verdicts[0],
        rewards=Rewards(assessor[0], injector_reward(given)),
        more_turns=tuple(map(RewardedTurn, turns[1:], assessor[1:])),
    )


def reading_reward(turn: Turn, mode: Mode, text: str, twin: str, rule: AssessorReward) -> float:
    """What the Assessor's turn on `text` earns, which is true as games in `mode` are and parts from `twin`.

    With the rule `correction` a turn that gives a verdict is paid for the words that it says should stand there too.
    """
    reward = assessor_reward(mode, turn.verdict)
    if rule == "verdict" or turn.verdict is None:
        return reward
    if rule == "correction":
        return with_words(reward, restores(turn.completion.text, mode, text, twin))
    assert_never(rule)


def restores(completion: str, mode: Mode, text: str, twin: str) -> bool:
    """Whether an Assessor's `should_say` is right: of a text with an error it holds the words that the edit took out,
    or lacks those that it put in where it took none out; of a correct text it stands in it."""
    said = stated_words(completion)
    if said is None:
        return False
    if mode == "benign":
        return holds_words(" ".join(text.split()), said)
    edits = apply_vcf(twin, text).edits
    return all(holds_words(said, e.original) if e.original else not holds_words(said, e.modified) for e in edits)
