"""MedSeRLTrainer: the online self-play loop, as docs/design.md tells it.

    sample fresh notes -> Injector edits, VCF filters -> Assessor judges -> zero-sum rewards -> REINFORCE++ -> again

A round is `self_play`'s; what a run starts from is `start`'s. Here is the run: its rounds, validations and checkpoints.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, Self

from medserl.config import Settings, explicit_settings
from medserl.data.given import NoteLike
from medserl.display.progress import RoundPrinter
from medserl.engines.base import Engine
from medserl.errors import MedSeRLError, OutputError, RunError
from medserl.evaluation.systems import system_of
from medserl.evaluation.thresholds import Threshold, weights_key, write_threshold
from medserl.evaluation.validation import Validation
from medserl.game.prompts import load_prompts
from medserl.rollout import VCFRolloutGenerator
from medserl.rounds.self_play import Played, SelfPlay
from medserl.runs.resume import check_extent, check_fixed, fixed_settings
from medserl.runs.runlog import UNWRITTEN, RunFolder
from medserl.runs.stopping import stopped_by_signals
from medserl.sharing.card import write_run_card
from medserl.start import RunPlan, engine_of, plan_run

__all__ = ["MedSeRLTrainer", "Played", "TrainedRun"]

log = logging.getLogger("medserl")

EMPTY_ROUNDS_ALLOWED = 2
"""One more round in a row without any accepted note stops the run."""


class TrainedRun(list[dict[str, Any]]):
    """What `train` gives: the figures of each round that it played, in order, and where the run is.

    A round's figures are those of `metrics.jsonl` (docs/runs.md). `path` is the run folder, which `Assessor.from_run`
    and `medserl evaluate --run` take; None where nothing was written.
    """

    def __init__(self, rounds: Iterable[dict[str, Any]], path: Path | None) -> None:
        super().__init__(rounds)
        self.path = path


class MedSeRLTrainer(SelfPlay):
    """Trains one policy in both roles. `train` is the run; `training_step` is one round.

        trainer = MedSeRLTrainer(prompt_data="notes.csv", output_dir="outputs/mine", max_rounds=20)
        run = trainer.train()

    Keyword arguments are settings by name, those of `medserl train --help`: `kl_coef` is `--kl-coef`. Without any the
    embedded default model is trained on the sample notes. Nothing is taken from the environment. The notes are read
    first, then the model; nothing is written before `train`.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        engine: Engine | str | None = None,
        notes: Iterable[NoteLike] | None = None,
        validation: Validation | Iterable[NoteLike] | str | None = "auto",
        run: RunFolder | Literal["auto"] | None = "auto",
        **changes: Any,
    ) -> None:
        """A run that starts or, with `resume`, goes on.

        Args:
            settings: What the keyword arguments change.
            engine: The setting of this name; or an engine, to take the place of the one it names.
            notes: Notes to train on, in the place of the file `prompt_data`: `Note`s, rows (dict) as in a JSON file, or
                texts, which are correct notes. The run folder keeps them.
            validation: Likewise, in the place of `validation_data`. "auto" does what that setting says; with None
                nothing validates.
            run: "auto" is the folder `output_dir`, made when training begins; with None nothing is written.
            changes: Settings by name; paths may be `Path`s.

        Raises:
            ConfigError: a setting is unknown, or cannot be used, or says what another argument says too.
            DataError: the notes cannot be used.
            ModelError: the model cannot be loaded.
            RunError: the run to go on with is damaged, in use, or none.
        """
        if isinstance(engine, str):
            engine, changes = None, {**changes, "engine": engine}
        ready, judged_by = (validation, None) if isinstance(validation, Validation) else (None, validation)
        with ExitStack() as held:
            plan = plan_run(explicit_settings(settings, changes), notes, judged_by, written=run == "auto")
            if plan.run:
                held.callback(plan.run.close)
            if engine is None:
                plan.settings, engine = engine_of(plan.settings)
                held.callback(engine.close)
            prompts = load_prompts(plan.settings.prompts, plan.settings.injector_format)
            rollout = VCFRolloutGenerator(engine, prompts, plan.settings)
            training_notes, gold, held_out = plan.fitting(rollout)
            super().__init__(rollout, training_notes, gold)
            self.validation = ready or held_out
            self.run = plan.run if run == "auto" else run
            self._plan = plan if run == "auto" else None
            self._empty_rounds = 0
            self._best: dict[str, float] | None = None
            self._threshold: Threshold | None = None  # of the round at hand, where that was validated
            self._stop = threading.Event()
            if plan.run:
                self._go_on(plan)
            self._held = held.pop_all()

    def _go_on(self, plan: RunPlan) -> None:
        """At the newest checkpoint of the run, with what changes written down."""
        assert plan.run
        self.load_checkpoint()
        check_extent(self.settings, self.round, self.total_rounds(), plan.changes)
        if plan.changes:
            plan.run.record_changes(plan.changes, self.round)
        if not self.finished:
            plan.run.start_tracking(self.settings, self.round + 1 if self.round else 0)

    def close(self) -> None:
        """Give back what this trainer holds: the run folder, and the model if it was loaded here."""
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- a run --------------------------------------------------------------------------------------------------

    def start(self) -> RunFolder | None:
        """The folder of the run, made if it is not there yet; None where nothing is to be written.

        Raises:
            RunError: there is a run in the folder already, or it cannot be written.
        """
        if self.run is None and self._plan:
            self.run = self._plan.start()
            self._held.callback(self.run.close)
        return self.run

    def train(self) -> TrainedRun:
        """Rounds until the epochs, the rounds or the user's patience end: Ctrl-C ends with the round at hand.

        The folder is free for others afterwards; the model stays, to be played with.

        Raises:
            RunError: there is a run in the folder already; or three rounds in a row accepted no note, or a number
                stopped being finite.
            OutputError: a round's records cannot be written; it is in a checkpoint, if that can be written.
        """
        run = self.start()
        try:
            return TrainedRun(self._rounds(), run.path if run else None)
        finally:
            if run and self._plan:
                run.close()

    def _rounds(self) -> list[dict[str, Any]]:
        history: list[dict[str, Any]] = []
        with stopped_by_signals(self._stop), RoundPrinter(self.total_rounds(), self.round) as printer:
            if self.validation:
                self.validation.meet_opponent(self.rollout, self.run, self.round)
            if self.round == 0 and self.validation:
                started = {"round": 0, "epoch": 0, **self.validation.evaluate(self.rollout)}
                self._is_best(started)
                self._record(started, printer)
            while not self.finished:
                epoch = self.sampler.epoch
                metrics = self.training_step(self.sampler.next_batch())
                metrics["epoch"] = epoch
                self._threshold = None
                last = self.finished
                if self.validation and (last or self._due(self.settings.eval_every)):
                    metrics |= self.validation.evaluate(self.rollout)
                    self._threshold = self.validation.threshold()
                best = self._is_best(metrics)
                try:
                    self._record(metrics, printer)
                except OutputError as error:
                    raise self._after_saving(error) from error
                history.append(metrics)
                self._guard_against_silence(metrics)
                stopped = self._stop.is_set()  # asked once: no signal may come between the checkpoint and the end
                if best or last or stopped or self._due(self.settings.save_every):
                    self.save_checkpoint()
                if stopped and not self.finished:
                    log.warning("stopped after round %d; --resume %s goes on", self.round, self.run and self.run.path)
                    break
            if self.finished and self._best and self._best["round"] == 0:
                log.warning("no validated round did better on the validation notes than what training started from")
        return history

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
        if metrics["accepted_games"] or not metrics["games"]:
            self._empty_rounds = 0
            return
        log.warning("round %d: the VCF accepted no note, so nothing was learnt from play", self.round)
        if metrics.get("sft_loss") is not None:
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
            "sampler": self.sampler.state_dict(),
            "algorithm": self.algorithm.state_dict(),
        }
        return self.run.save_checkpoint(state, self._write_policy, self.settings.keep_checkpoints)

    def _write_policy(self, folder: Path) -> None:
        self.engine.save(folder)
        write_run_card(folder, self.settings, self.round)
        written = system_of(folder, self.settings)
        if self._threshold and written is not self.settings:
            write_threshold(folder, weights_key(written), self._threshold)

    def load_checkpoint(self) -> None:
        """Go on from the newest whole checkpoint of the run folder; rounds that it does not hold are played again.

        Raises:
            RunError: no checkpoint is whole, or the newest that is does not fit the model and the notes.
        """
        run = self.run
        if run is None:
            raise RunError("this trainer writes nothing, so there is no checkpoint: give resume")
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
        self.sampler.load_state_dict(state["sampler"])
        self.algorithm.load_state_dict(state["algorithm"])
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
