"""MedSeRLTrainer: the online self-play loop, as DESIGN section 1 tells it.

    sample fresh notes -> Injector edits, VCF filters -> Assessor judges -> zero-sum rewards -> REINFORCE++ -> again

Everything a round needs is played in that round with the current weights and thrown away after it. Around this stand,
each off unless a setting asks for it: gold pairs (`gold`), right answers to learn as they stand (`lessons`), past
opponents (`past`), a charge for repeats (`repeats`).
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch

from medserl.config import Settings
from medserl.data.notes import Note
from medserl.data.sampler import FreshBatchSampler
from medserl.engines import create_engine
from medserl.engines.base import Engine, Snapshots, UpdateStats, WeightedTurn
from medserl.errors import MedSeRLError, OutputError, RunError
from medserl.game.episode import Episode, Sample, Turn
from medserl.game.prompts import load_prompts
from medserl.game.setup import GameSetup
from medserl.gap import require_same_policy
from medserl.gold import GoldPairs, GoldTurn, gold_metrics
from medserl.lessons import game_lessons, weighted
from medserl.past import PastPolicies, past_metrics
from medserl.phases import PhaseClock
from medserl.progress import RoundPrinter
from medserl.reinforce_pp import ReinforcePlusPlus, variance_metrics
from medserl.repeats import RepeatPenalty
from medserl.resume import check_fixed, fixed_settings
from medserl.rollout import VCFRolloutGenerator, derive_seed
from medserl.round_metrics import game_metrics, update_metrics
from medserl.runlog import UNWRITTEN, RunFolder
from medserl.stopping import stopped_by_signals

if TYPE_CHECKING:
    from medserl.evaluation.validation import Validation

log = logging.getLogger("medserl")

T = TypeVar("T")

EMPTY_ROUNDS_ALLOWED = 2
"""One more round in a row without any accepted note stops the run."""


@dataclass(frozen=True)
class Played:
    """What a round is learnt from."""

    episodes: list[Episode]
    gold: list[GoldTurn]


class MedSeRLTrainer:
    """Trains one policy in both roles. `training_step` is one round; `train` is the run.

    `MedSeRLTrainer()` trains the embedded default; keyword arguments are settings (`MedSeRLTrainer(kl_coef=0.02)`).
    """

    def __init__(
        self,
        settings: Settings | None = None,
        engine: Engine | None = None,
        notes: Sequence[Note] | None = None,
        validation: Validation | None = None,
        run: RunFolder | None = None,
        **changes: Any,
    ) -> None:
        self.settings = (settings or Settings()).with_overrides(**changes)
        self.settings.require_trainable()
        self.engine = engine or create_engine(self.settings)
        prompts = load_prompts(self.settings.prompts, self.settings.injector_format)
        self.rollout = VCFRolloutGenerator(self.engine, prompts, self.settings)
        self.algorithm = ReinforcePlusPlus(
            self.settings.kl_coef,
            self.settings.kl_estimator,
            self.settings.advantage_normalization,
            self.settings.kl_target,
        )
        self.gold = GoldPairs(notes or (), self.settings)
        self.past = PastPolicies(cast(Snapshots, self.engine), self.settings)
        self.repeats = RepeatPenalty(self.settings.repeat_penalty, self.settings.repeat_window)
        self.sampler = FreshBatchSampler(notes, self.settings.rollout_batch_size, self.settings.seed) if notes else None
        self.validation = validation
        self.run = run
        self.round = 0
        self._empty_rounds = 0
        self._best: dict[str, float] | None = None
        self._episodes: Sequence[Episode] = ()
        self._stop = threading.Event()

    # -- one round ----------------------------------------------------------------------------------------------

    def training_step(self, batch: Sequence[GameSetup]) -> dict[str, Any]:
        """Play one fresh batch and update the policy once; returns the round's metrics."""
        self.round += 1
        clock = PhaseClock()
        return self.learn(self.play(batch, self.round, clock), clock)

    def play(self, batch: Sequence[GameSetup], round_number: int, clock: PhaseClock) -> Played:
        """The round's games, and the Assessor on gold texts, with the weights that the engine now plays with."""
        seed = derive_seed(self.settings.seed, "round", round_number)
        games = self.past.seat(batch, round_number)
        with clock.phase("inject") as phase:
            attempts = self.rollout.inject(games, seed)
            phase.tokens = sum(len(a.turn.completion.token_ids) for tries in attempts for a in tries)

        with clock.phase("assess") as phase:
            episodes = self.rollout.assess(games, attempts, seed)
            gold = self.gold.practice(self.rollout, len(games), round_number)
            read = [turn for episode in episodes for turn in episode.assessor_turns]
            phase.tokens = _completion_tokens([*read, *(each.turn for each in gold)])
        return Played(episodes, gold)

    def learn(self, played: Played, clock: PhaseClock) -> dict[str, Any]:
        """Update the policy on the games of this round; returns the round's metrics."""
        episodes, repeat_rate = self.repeats.charge(played.episodes)
        samples = [*self.samples(episodes), *self._wanted(each.sample() for each in played.gold)]
        metrics: dict[str, Any] = {
            "round": self.round,
            **game_metrics(episodes),
            "samples": len(samples),
            "repeat_rate": repeat_rate,
        }

        metrics["truncated_assessor"] += sum(each.turn.completion.truncated for each in played.gold)

        with clock.phase("reference") as phase:
            turns = self.weigh(samples)
            phase.tokens = _tokens(turns) if self.settings.kl_coef else 0
        learnt = [*turns, *self.lessons(episodes)]

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

        self.past.after_round(self.round)
        metrics |= gold_metrics(played.gold) | past_metrics(episodes)

        metrics |= clock.metrics()
        metrics["peak_memory_gb"] = self.engine.peak_memory_bytes() / 2**30
        self._episodes = episodes
        return metrics

    def sync(self) -> None:
        self.engine.sync()

    def lessons(self, episodes: Sequence[Episode]) -> list[WeightedTurn]:
        """Right answers to learn as they stand, beside what was sampled: of gold pairs and of the round's games."""
        prompts = self.rollout.prompts
        gold = self.gold.lessons(prompts, self.round)
        return weighted(
            self.engine,
            [*gold, *game_lessons(episodes, self.settings.game_lessons, prompts)],
            self.settings.lesson_weight,
        )

    def samples(self, episodes: Sequence[Episode]) -> list[Sample]:
        """The role-turns to learn from: each with its own reward, of the roles that are trained."""
        rejection_reward = self.settings.vcf_rejection_reward
        return self._wanted(sample for episode in episodes for sample in episode.samples(rejection_reward))

    def _wanted(self, samples: Iterable[Sample]) -> list[Sample]:
        trained = self.settings.roles_trained
        return [sample for sample in samples if trained in ("both", sample.turn.role)]

    def weigh(self, samples: Sequence[Sample]) -> list[WeightedTurn]:
        """Rewards to per-token advantages. The sampled log-probabilities are pi_old: the weights have not moved."""
        if not samples:
            return []
        turns = [sample.turn for sample in samples]
        old = [turn.completion.logprobs for turn in turns]
        self._require_tokens(samples)
        ref = self.engine.logprobs(turns, reference=True) if self.settings.kl_coef else None
        advantages = self.algorithm.advantages(
            rewards=[sample.reward for sample in samples],
            logprobs=[torch.tensor(row) for row in old],
            ref_logprobs=[torch.tensor(row) for row in ref] if ref else None,
            roles=[turn.role for turn in turns],
            modes=[sample.mode for sample in samples],
        )
        self._require_finite(samples, old, ref, advantages)
        return [
            WeightedTurn(
                turn=sample.turn,
                old_logprobs=old[i],
                advantages=tuple(advantages[i].tolist()),
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

    def learning_rate(self) -> float:
        """That of the round at hand: `lr_warmup_rounds` lead up to the setting, `lr_schedule` down from it."""
        risen = min(1.0, self.round / (self.settings.lr_warmup_rounds + 1))
        fallen = (self.round - 1) / self.total_rounds() if self.settings.lr_schedule == "linear" else 0.0
        return self.settings.learning_rate * risen * max(0.0, 1 - fallen)

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

    # -- a run --------------------------------------------------------------------------------------------------

    def train(self) -> list[dict[str, Any]]:
        """Rounds until the epochs, the rounds or the user's patience end; returns the metrics of each round.

        Raises:
            RunError: three rounds in a row accepted no note, or a number stopped being finite.
            OutputError: a round's records cannot be written; it is in a checkpoint, if that can be written.
        """
        history = []
        with stopped_by_signals(self._stop), RoundPrinter(self.total_rounds(), self.round) as printer:
            sampler = self._require(self.sampler, "notes to train on")
            if self.validation:
                self.validation.meet_opponent(self.rollout, self.run, self.round)
            self.past.after_round(self.round)
            if self.round == 0 and self.validation:
                started = {"round": 0, "epoch": 0, **self.validation.evaluate(self.rollout)}
                self._is_best(started)
                self._record(started, printer)
            while not self.finished:
                epoch = sampler.epoch
                metrics = self.training_step(sampler.next_batch())
                metrics["epoch"] = epoch
                last = self.finished
                if self.validation and (last or self._due(self.settings.eval_every)):
                    metrics |= self.validation.evaluate(self.rollout)
                best = self._is_best(metrics)
                try:
                    self._record(metrics, printer)
                except OutputError as error:
                    raise self._after_saving(error) from error
                history.append(metrics)
                self._guard_against_silence(metrics)
                if best or last or self._stop.is_set() or self._due(self.settings.save_every):
                    self.save_checkpoint()
                if self.interrupted:
                    log.warning("stopped after round %d; --resume %s goes on", self.round, self.run and self.run.path)
                    break
            if self.finished and self._best and self._best["round"] == 0:
                log.warning("no validated round did better on the validation notes than what training started from")
        return history

    def total_rounds(self) -> int:
        """Rounds of the whole run: all epochs, or `max_rounds` where that is less."""
        rounds = self._require(self.sampler, "notes to train on").batches_per_epoch * self.settings.max_epochs
        return min(rounds, self.settings.max_rounds or rounds)

    @property
    def interrupted(self) -> bool:
        """Whether a signal has ended the run, or will after the round at hand, before its last round."""
        return self._stop.is_set() and not self.finished

    @property
    def finished(self) -> bool:
        """Whether all rounds are played."""
        return self.round >= self.total_rounds()

    def _due(self, every: int) -> bool:
        return every > 0 and self.round % every == 0

    def _record(self, metrics: dict[str, Any], printer: RoundPrinter) -> None:
        if self.run:
            self.run.log_round(metrics, (episode.record(self.round) for episode in self._episodes))
        printer.show(metrics)

    def _after_saving(self, error: OutputError) -> OutputError:
        """The error, and what became of the round that it ends: a checkpoint holds its records too."""
        path = self.run and self.run.path
        try:
            self.save_checkpoint()
        except OutputError as another:
            return OutputError(f"{error}; {another}")
        return OutputError(f"{error}; round {self.round} is saved: free some space, then go on with --resume {path}")

    def _is_best(self, metrics: dict[str, Any]) -> bool:
        """Whether this round was validated and did better than every one before; if so it is remembered."""
        figure = metrics.get("eval_pairwise_accuracy")
        value = metrics.get("eval_accuracy") if figure is None else figure  # notes without twins have no pairs
        if value is None or (self._best and value <= self._best["value"]):
            return False
        self._best = {"round": self.round, "value": value}
        return True

    def _guard_against_silence(self, metrics: dict[str, Any]) -> None:
        if metrics["accepted_games"]:
            self._empty_rounds = 0
            return
        log.warning("round %d: the VCF accepted no note, so nothing was learnt from play", self.round)
        if self.settings.gold_lessons or self.settings.edit_lessons:
            return  # the policy has learnt, and may yet learn to play
        self._empty_rounds += 1
        if self._empty_rounds > EMPTY_ROUNDS_ALLOWED:
            raise RunError(
                f"no note was accepted in {self._empty_rounds} rounds in a row (last: {self.round}); "
                "warm the model up first (medserl sft), or loosen the VCF"
            )

    # -- checkpoints --------------------------------------------------------------------------------------------

    def save_checkpoint(self) -> Path | None:
        """Write weights, optimizer and data order of the current round; None where there is no run folder."""
        if not self.run:
            return None
        state = {
            "round": self.round,
            "settings": fixed_settings(self.settings),
            "empty_rounds": self._empty_rounds,
            "best": self._best,
            "sampler": self.sampler.state_dict() if self.sampler else None,
            "algorithm": self.algorithm.state_dict(),
            "past": self.past.state_dict(),
            "repeats": self.repeats.state_dict(),
        }
        return self.run.save_checkpoint(state, self.engine.save, self.settings.keep_checkpoints)

    def load_checkpoint(self) -> None:
        """Go on from the newest whole checkpoint of the run folder; rounds that it does not hold are played again.

        Raises:
            RunError: no checkpoint is whole, or the newest that is does not fit the model and the notes.
        """
        run = self._require(self.run, "a run folder")
        found = run.latest_checkpoint()
        if found:
            run.require_same_frozen_games(found[1])
            try:
                self._restore(*found)
            except (KeyError, TypeError) as error:
                raise RunError(f"{found[0]}: another version of medserl wrote it ({error!r})") from error
        run.forget_after(self.round if found else -1, found[1].get(UNWRITTEN) if found else None)
        log.info("resuming %s after round %d", run.path, self.round)

    def _restore(self, folder: Path, state: Mapping[str, Any]) -> None:
        check_fixed(state.get("settings", {}), self.settings, folder)
        self._require(self.sampler, "notes to train on").load_state_dict(state["sampler"])
        self.algorithm.load_state_dict(state["algorithm"])
        self.past.load_state_dict(state["past"])
        self.repeats.load_state_dict(state["repeats"])
        self.round, self._empty_rounds = state["round"], state["empty_rounds"]
        self._best = state.get("best")
        try:
            self.engine.load(folder)
        except MedSeRLError:
            raise
        except Exception as error:  # torch, PEFT, transformers and safetensors raise whatever they like
            lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
            reason = " ".join(lines[:2])  # torch says in the second what does not fit
            raise RunError(f"checkpoint {folder} does not fit the model of this run: {reason}") from error

    @staticmethod
    def _require(given: T | None, what: str) -> T:
        if given is None:
            raise RunError(f"this trainer was made without {what}; give them to MedSeRLTrainer")
        return given


def _tokens(turns: Sequence[WeightedTurn]) -> int:
    return _completion_tokens([each.turn for each in turns]) + sum(len(t.turn.completion.prompt_ids) for t in turns)


def _completion_tokens(turns: Sequence[Turn]) -> int:
    return sum(len(turn.completion.token_ids) for turn in turns)
