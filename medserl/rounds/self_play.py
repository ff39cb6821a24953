"""One round of self-play: its games, what they are worth to each role, and the update that follows from them.

    Injector edits, VCF filters -> Assessor judges -> zero-sum rewards -> REINFORCE++

Everything a round needs is played in that round with the current weights and thrown away after it. Around this stand,
each off unless a setting asks for it: gold pairs (`gold_pairs`), right answers to learn as they stand (`auxiliary`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch

from medserl.engines.base import Engine, UpdateStats, WeightedTurn
from medserl.engines.gap import require_same_policy
from medserl.errors import ConfigError, RunError
from medserl.game.episode import Episode, Sample, Turn
from medserl.game.note import Note
from medserl.game.setup import GameSetup
from medserl.reinforce_pp import ReinforcePlusPlus, variance_metrics
from medserl.rollout import VCFRolloutGenerator, derive_seed, unjudged
from medserl.rounds.auxiliary import examples_of_games, target_turns_of
from medserl.rounds.clock import PhaseClock
from medserl.rounds.gold_pairs import GoldPairs, GoldText, GoldTurn, gold_metrics, original_metrics
from medserl.rounds.metrics import game_metrics, update_metrics
from medserl.rounds.overlap import PlayAhead
from medserl.rounds.sampler import FreshBatchSampler, as_games


@dataclass(frozen=True)
class Played:
    """What a round is learnt from: games, and the Assessor on gold texts and on the originals of accepted errors."""

    episodes: list[Episode]
    gold: list[GoldTurn]
    originals: list[GoldTurn]

    @property
    def readings(self) -> list[GoldTurn]:
        """The Assessor's turns outside of the games."""
        return [*self.gold, *self.originals]


class SelfPlay:
    """One policy that plays both roles on fresh batches of notes. `training_step` is one round.

    Games are played with `rollout` and its engine, on `notes`, of which each can be played and fits. Gold pairs are
    those among `gold`, or else among the notes.
    """

    def __init__(self, rollout: VCFRolloutGenerator, notes: Sequence[Note], gold: Sequence[Note] | None = None) -> None:
        settings = rollout.settings
        self.settings, self.rollout, self.engine = settings, rollout, cast(Engine, rollout.engine)
        self.sampler = FreshBatchSampler(
            notes, settings.rollout_batch_size, settings.seed, benign=settings.plays_benign
        )
        self.algorithm = ReinforcePlusPlus(
            settings.kl_coef, settings.kl_estimator, settings.advantage_normalization, settings.kl_target
        )
        if settings.assessor_reward == "correction" and "C" not in rollout.prompts.subtasks:
            raise ConfigError(
                f"assessor_reward correction pays for a line should_say, which prompts {settings.prompts!r} do not ask "
                "for: give --prompts term, or --assessor-reward verdict"
            )
        if rollout.prompts.reasons and (settings.sft_verdict_pairs or settings.sft_games):
            raise ConfigError(
                f"sft_verdict_pairs and sft_games teach bare answers, and prompts {settings.prompts!r} ask the "
                "Assessor to reason, which it would unlearn: leave them out, or give --prompts term"
            )
        self.gold = GoldPairs(notes if gold is None else gold, settings)
        self.ahead = PlayAhead(self.play, self.sampler) if settings.async_rollout else None
        self.round = 0
        self._episodes: Sequence[Episode] = ()

    def training_step(self, batch: Sequence[GameSetup] | Sequence[Note]) -> dict[str, Any]:
        """Play one fresh batch and update the policy once; returns the round's metrics.

        Notes are seated in games as those of a fresh batch are, drawn by the seed and the round. With `async_rollout`
        the games are those that were played ahead, and the next ones are played meanwhile.

        Raises:
            DataError: none of the notes has a correct text.
            RunError: a number stopped being finite.
        """
        self.round += 1
        seed = derive_seed(self.settings.seed, "batch", self.round)
        games = as_games(batch, seed, benign=self.settings.plays_benign)
        if self.ahead:
            return self.update(*self.ahead.take(games, self.round, is_last=self.round >= self.total_rounds()))
        clock = PhaseClock()
        return self.update(self.play(games, self.round, clock), clock)

    def play(self, batch: Sequence[GameSetup], round_number: int, clock: PhaseClock) -> Played:
        """The round's games, and the Assessor on gold texts, with the weights that the engine now plays with.

        Without a policy loss no Assessor is asked; where no example is made of games either, none is played.
        """
        if not self.settings.is_played:
            return Played([], [], [])
        seed = derive_seed(self.settings.seed, "round", round_number)
        with clock.phase("inject") as phase:
            attempts = self.rollout.inject(batch, seed)
            phase.tokens = sum(len(a.turn.completion.token_ids) for tries in attempts for a in tries)

        if not self.settings.is_rewarded:
            return Played(unjudged(batch, attempts), [], [])
        with clock.phase("assess") as phase:
            episodes = self.rollout.assess(batch, attempts, seed)
            gold = self.gold.judge(self.rollout, len(batch), round_number)
            originals = self._read_originals(episodes, seed)
            read = [turn for episode in episodes for turn in episode.assessor_turns]
            phase.tokens = _completion_tokens([*read, *(each.turn for each in (*gold, *originals))])
        return Played(episodes, gold, originals)

    def _read_originals(self, episodes: Sequence[Episode], seed: int) -> list[GoldTurn]:
        """The Assessor on the original of every accepted error: beside its edit, a pair of the game's own making."""
        if not self.settings.judge_originals:
            return []
        texts = [
            GoldText(episode.note_id, episode.original, "benign", episode.modified)
            for episode in episodes
            if episode.mode == "error" and episode.modified is not None
            for _ in range(self.settings.assessor_samples)
        ]
        turns = self.rollout.read([each.text for each in texts], derive_seed(seed, "originals"))
        return [GoldTurn(text, turn, turn.verdict) for text, turn in zip(texts, turns, strict=True)]

    def update(self, played: Played, clock: PhaseClock) -> dict[str, Any]:
        """Update the policy on the games of this round; returns the round's metrics."""
        episodes, rule = played.episodes, self.settings.assessor_reward
        samples = [*self.samples(episodes), *self._wanted(each.sample(rule) for each in played.readings)]
        metrics: dict[str, Any] = {"round": self.round, **game_metrics(episodes), "samples": len(samples)}

        metrics["truncated_assessor"] += sum(each.turn.completion.truncated for each in played.readings)

        with clock.phase("reference") as phase:
            turns = self.with_advantages(samples)
            phase.tokens = _tokens(turns) if self.settings.needs_reference else 0
        learnt = [*turns, *self.sft_turns(episodes)]

        if learnt:
            with clock.phase("update") as phase:
                stats = self._update(learnt)
                phase.tokens = _tokens(learnt)

            with clock.phase("sync"):
                self.sync()

            metrics |= update_metrics(turns, stats, self.learning_rate()) | self.algorithm.metrics()
            metrics |= variance_metrics(
                rewards=[sample.reward for sample in samples],
                lengths=[len(sample.turn.completion.token_ids) for sample in samples],
                roles=[sample.turn.role for sample in samples],
                modes=[sample.mode for sample in samples],
            )

        metrics |= gold_metrics(played.gold) | original_metrics(played.originals)

        metrics |= clock.metrics()
        metrics["peak_memory_gb"] = self.engine.peak_memory_bytes() / 2**30
        self._episodes = episodes
        return metrics

    def sync(self) -> None:
        if self.ahead:
            self.ahead.wait()
        self.engine.sync()

    def sft_turns(self, episodes: Sequence[Episode]) -> list[WeightedTurn]:
        """Right answers to learn as they stand, beside what was sampled: of gold pairs and of the round's games."""
        prompts = self.rollout.prompts
        gold = self.gold.examples(prompts, self.round)
        return target_turns_of(
            self.engine,
            [*gold, *examples_of_games(episodes, self.settings.sft_games, prompts)],
            self.settings.sft_loss_weight,
        )

    def samples(self, episodes: Sequence[Episode]) -> list[Sample]:
        """The role-turns to learn from: each with its own reward, of the roles that are trained."""
        return self._wanted(sample for episode in episodes for sample in episode.samples())

    def _wanted(self, samples: Iterable[Sample]) -> list[Sample]:
        trained = self.settings.roles_trained
        return [sample for sample in samples if trained in ("both", sample.turn.role)]

    def with_advantages(self, samples: Sequence[Sample]) -> list[WeightedTurn]:
        """Rewards to per-token advantages. The sampled log-probabilities are pi_old: the weights have not moved."""
        if not samples:
            return []
        turns = [sample.turn for sample in samples]
        old = [turn.completion.logprobs for turn in turns]
        self._require_tokens(samples)
        ref = self.engine.logprobs(turns, reference=True) if self.settings.needs_reference else None
        advantages = self.algorithm.advantages(
            rewards=[sample.reward for sample in samples],
            logprobs=[torch.tensor(row) for row in old],
            ref_logprobs=[torch.tensor(row) for row in ref] if ref else None,
            roles=[turn.role for turn in turns],
            modes=[sample.mode for sample in samples],
            texts=[turn.messages[-1]["content"] for turn in turns],
        )
        self._require_finite(samples, old, ref, advantages)
        return [
            WeightedTurn(
                turn=sample.turn,
                old_logprobs=old[i],
                advantages=tuple((self.settings.policy_loss_weight * advantages[i]).tolist()),
                note_id=sample.note_id,
                ref_logprobs=ref[i] if ref else None,
                reward=sample.reward,
            )
            for i, sample in enumerate(samples)
        ]

    def _update(self, turns: Sequence[WeightedTurn]) -> UpdateStats:
        try:
            stats = self.engine.update(turns, learning_rate=self.learning_rate())
            require_same_policy(stats)
            return stats
        except RunError as error:
            raise RunError(f"round {self.round}: {error}") from error
        except torch.OutOfMemoryError as error:
            raise RunError(
                f"round {self.round}: the GPU's memory does not suffice for the update: go on with a lower "
                "training_token_budget, or with gradient_checkpointing"
            ) from error

    def learning_rate(self) -> float:
        """That of the round at hand: `lr_warmup_rounds` lead up to the setting, `lr_schedule` down from it."""
        risen = min(1.0, self.round / (self.settings.lr_warmup_rounds + 1))
        fallen = (self.round - 1) / self.total_rounds() if self.settings.lr_schedule == "linear" else 0.0
        return self.settings.learning_rate * risen * max(0.0, 1 - fallen)

    def total_rounds(self) -> int:
        """Rounds of the whole run: all epochs, or `max_rounds` where that is less."""
        rounds = self.sampler.batches_per_epoch * self.settings.max_epochs
        return min(rounds, self.settings.max_rounds or rounds)

    def _require_tokens(self, samples: Sequence[Sample]) -> None:
        """A reward goes to the tokens that earned it: every turn has some, each with its log-probability."""
        for sample in samples:
            tokens, logprobs = len(sample.turn.completion.token_ids), len(sample.turn.completion.logprobs)
            if not tokens or tokens != logprobs:
                raise RunError(
                    f"round {self.round}, note {sample.note_id} ({sample.turn.role}): the engine gave {tokens} tokens "
                    f"and {logprobs} log-probabilities, so there is nothing to learn from; use another --engine"
                )

    def _require_finite(self, samples: Sequence[Sample], *figures: Sequence[Any] | None) -> None:
        """Rewards, log-probabilities and advantages of every turn are numbers, or the run stops here."""
        for i, sample in enumerate(samples):
            rows = [torch.as_tensor(figure[i]) for figure in figures if figure is not None]
            if not math.isfinite(sample.reward) or not all(torch.isfinite(row).all() for row in rows):
                raise RunError(
                    f"round {self.round}, note {sample.note_id} ({sample.turn.role}): a reward or log-probability is "
                    'not finite; try a lower learning_rate, a higher kl_coef, or dtype = "float32"'
                )


def _tokens(turns: Sequence[WeightedTurn]) -> int:
    return _completion_tokens([each.turn for each in turns]) + sum(len(t.turn.completion.prompt_ids) for t in turns)


def _completion_tokens(turns: Sequence[Turn]) -> int:
    return sum(len(turn.completion.token_ids) for turn in turns)
