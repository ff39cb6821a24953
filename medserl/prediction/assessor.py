"""A trained Assessor at work: it judges notes that nobody has labelled, and plays single games.

    with Assessor.from_run("outputs/medserl_...") as assessor:
        print(assessor.threshold.describe())
        for finding in assessor.judge(["The patient has type 1 diabetes controlled with metformin."]):
            print(finding.flagged, finding.p_error, finding.sentence_text, finding.should_say)

The model is loaded when it is first asked something.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from medserl.config import Settings, explicit_settings
from medserl.data.given import NoteLike, given_notes, notes_to_judge
from medserl.errors import ConfigError, DataError
from medserl.evaluation.reading import Reading, ShownText, batched, read_texts, worst_of
from medserl.evaluation.thresholds import UNCHOSEN, Threshold, read_threshold, weights_key, write_threshold
from medserl.game.note import ERROR_TYPES, Note
from medserl.game.parsing import note_sentences
from medserl.game.prompts import load_prompts
from medserl.game.roles import MODES, Mode, Verdict
from medserl.game.setup import GameSetup
from medserl.models.four_bits import require_four_bits
from medserl.rollout import VCFRolloutGenerator, derive_seed
from medserl.runs.runlog import read_settings

if TYPE_CHECKING:
    from medserl.data.sources import RunData
    from medserl.evaluation.completions import CompletionCache
    from medserl.game.episode import Episode

log = logging.getLogger("medserl")

NOTES_AT_ONCE = 64
"""Notes judged together; with answers that are kept, what an interruption loses at most."""


@dataclass(frozen=True)
class Finding:
    """What the Assessor found in one note.

    `p_error` is the probability of INCORRECT, between 0 and 1, after the model's own words, calibrated where the kept
    threshold says how (`Threshold`); `verdict` what these said, None where they said nothing that can be read.
    `flagged` is whether `p_error` reaches the threshold. Of a note that is flagged or called INCORRECT the rest is
    what the model pointed at, as far as it did: the number of a `sentence`, counted from 0, and its text, the words in
    question as they stand (`says`), others that are suggested (`should_say`), and the sentence with the one replaced by
    the other (`correction`).

    A note that was read in several `windows` of sentences is judged by the one with the highest `p_error`. Where
    `reason` says why it could not be judged, `verdict`, `p_error` and `flagged` are None.
    """

    note_id: str
    verdict: Verdict | None
    p_error: float | None
    flagged: bool | None
    sentence: int | None = None
    sentence_text: str | None = None
    says: str | None = None
    should_say: str | None = None
    correction: str | None = None
    reason: str | None = None
    windows: int = 1


class Assessor:
    """Judges notes with one model, in batches, and flags those whose P(INCORRECT) reaches the threshold."""

    def __init__(
        self,
        settings: Settings | None = None,
        threshold: float | None = None,
        *,
        run: str | Path | None = None,
        answers: str | Path | None = None,
        **changes: Any,
    ) -> None:
        """`settings` say which model, adapter, prompts and engine; the default is the shipped warm-up. Keyword
        arguments change them by name: `Assessor(model="my/model", adapter="my/adapter")`.

        `run` is the run whose validation notes a threshold is chosen on, where none is given. `answers` is a folder in
        which every answer is kept, so that the same question is not asked again.

        Raises:
            ConfigError: the threshold is no probability, or a setting is unknown or cannot be used.
        """
        if threshold is not None and not 0 <= threshold <= 1:
            raise ConfigError(f"threshold {threshold:g}: give a probability, between 0 and 1")
        self.settings = explicit_settings(settings, changes)
        require_four_bits(self.settings)
        self.run = Path(run) if run else None
        self._given = threshold
        self._answers = Path(answers) if answers else None
        self._cache: CompletionCache | None = None
        self._remembered = False

    @classmethod
    def from_run(
        cls,
        run: str | Path,
        threshold: float | None = None,
        *,
        settings: Settings | None = None,
        checkpoint: Literal["trained", "best"] = "trained",
        answers: str | Path | None = None,
        **changes: Any,
    ) -> Assessor:
        """The Assessor of a run: its newest checkpoint, or the one that did best on its validation notes.

        `settings`, as far as they were set, and `changes`, settings by name, hold in place of the run's own.

        Raises:
            RunError: no run there, or none with a checkpoint.
            ConfigError: the threshold is no probability, or a setting is unknown or cannot be used.
        """
        from medserl.evaluation.systems import resolve_systems

        resolved = resolve_systems(explicit_settings(settings, changes), [checkpoint], Path(run))[checkpoint]
        return cls(resolved, threshold, run=run, answers=answers)

    @cached_property
    def threshold(self) -> Threshold:
        """The given one; else the one kept beside the weights of the run or the adapter; else one that is chosen now
        on the run's validation notes, and kept; else 0.5, which was chosen on nothing. Its calibration is the kept
        one's, where there is one, also beside a given value.
        """
        from medserl.models import adapter_source

        key = weights_key(self.settings)
        folders = filter(None, (self.run, adapter_source(self.settings)))
        stored = next((found for folder in folders if (found := read_threshold(folder, key))), None)
        if self._given is not None:
            kept = stored or UNCHOSEN
            return Threshold(self._given, source="as given", slope=kept.slope, intercept=kept.intercept)
        if stored:
            return stored
        chosen = self._chosen_threshold() if self.run else None
        if self.run and chosen:
            write_threshold(self.run, key, chosen)
        return chosen or UNCHOSEN

    def _chosen_threshold(self) -> Threshold | None:
        """The best one on the run's validation notes, both twins of a pair; None, and why in the log, without such."""
        from medserl.evaluation.choosing import threshold_on
        from medserl.evaluation.predictions import labelled_texts

        try:
            data = self.run_data
        except DataError as error:
            raise DataError(f"{error}; the run's threshold is chosen on its notes: give one with --threshold") from None
        if data is None or data.validation is None:
            log.warning("no threshold can be chosen: %s has no validation notes", self.run)
            return None
        return threshold_on(self.rollout, labelled_texts(data.validation.notes), data.validation_name)

    @cached_property
    def run_data(self) -> RunData | None:
        """What the run learnt from and what judged it; None without a run.

        Raises:
            DataError: its files cannot be read any more.
        """
        from medserl.data.sources import run_data

        return run_data(read_settings(self.run), lenient=True) if self.run else None

    # -- judging --------------------------------------------------------------------------------------------------

    def judge(self, notes: Iterable[NoteLike]) -> list[Finding]:
        """One finding for each note, in order. Of a pair the text with the error is judged, as in MEDEC.

        `notes` is a list of `Note`s, of rows (dict) as a JSON file has them, or of texts; labels are not looked at. A
        text is called by its place: `note-1` is the first. A note longer than the model's context is read in windows
        of whole sentences, as many as fit, that overlap by one.

        Raises:
            DataError: it is no list, is empty, or an item is no note.
            ModelError: the model cannot be loaded.
        """
        return [finding for batch in self.batches(notes_to_judge(notes)) for finding in batch]

    def batches(self, notes: Iterable[Note | str]) -> Iterator[list[Finding]]:
        """The same, `NOTES_AT_ONCE` notes at a time, each batch when it is asked for."""
        threshold = self.threshold
        texts = (shown_text(note, place) for place, note in enumerate(notes, start=1))
        for batch in batched(texts, NOTES_AT_ONCE):
            yield [_finding(text, read, threshold) for text, read in zip(batch, self._read(batch), strict=True)]

    @property
    def remembered(self) -> bool:
        """Whether the last batch came whole from the answers that were kept."""
        return self._remembered

    def _read(self, texts: Sequence[ShownText]) -> list[list[Reading] | str]:
        rollout = self.rollout
        before = self._cache.computed if self._cache else -1
        read = read_texts(rollout, texts)
        self._remembered = self._cache is not None and self._cache.computed == before
        return read

    # -- playing --------------------------------------------------------------------------------------------------

    def play(self, note: NoteLike, mode: Mode = "error", error_type: str | None = None) -> Episode:
        """One game on a note that is taken for correct: the Injector's edit, the VCF's decision, the Assessor's words.

        In error mode without an `error_type` one is drawn by the settings' seed.

        Raises:
            ConfigError: no such mode.
            DataError: the note has no text to play on.
            ModelError: the model cannot be loaded, or the note does not fit into its context.
        """
        if mode not in MODES:
            raise ConfigError(f"mode {mode}: give error or benign")
        if not isinstance(note, Note):
            note = Note("note", note) if isinstance(note, str) else given_notes([note], "note").notes[0]
        if not note.correct_note or not note.correct_note.strip():
            raise DataError(f"note {note.note_id}: no correct text that could be played on")
        if mode == "error":
            error_type = error_type or random.Random(self.settings.seed).choice(ERROR_TYPES)
        game = GameSetup(note, mode, error_type if mode == "error" else None)
        return self._players.play([game], derive_seed(self.settings.seed, "play"))[0]

    # -- the model ------------------------------------------------------------------------------------------------

    @cached_property
    def _players(self) -> VCFRolloutGenerator:
        """The model itself, as both roles."""
        from medserl.engines import create_inference_engine

        prompts = load_prompts(self.settings.prompts, self.settings.injector_format)
        return VCFRolloutGenerator(create_inference_engine(self.settings), prompts, self.settings)

    def load(self) -> None:
        """Load the model now, and open the answers that were kept.

        Raises:
            ModelError: the model cannot be loaded.
            RunError: the folder of answers is damaged, or another process has it open.
        """
        _ = self.rollout

    @cached_property
    def rollout(self) -> VCFRolloutGenerator:
        """What reads notes: the model, or, where answers are kept, these first."""
        from medserl.evaluation.completions import CachedEngine, CompletionCache, model_identity

        players = self._players
        if self._answers is None:
            return players
        self._cache = CompletionCache(self._answers, model_identity(self.settings))
        return VCFRolloutGenerator(CachedEngine(players.engine, self._cache), players.prompts, self.settings)

    def close(self) -> None:
        """Give back the model, and the folder of answers to others."""
        if self._cache:
            self._cache.__exit__(None, None, None)
            self._cache = None
        players = self.__dict__.pop("_players", None)
        self.__dict__.pop("rollout", None)
        if players:
            players.engine.close()

    def __enter__(self) -> Assessor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def shown_text(note: Note | str, place: int = 1) -> ShownText:
    """What the Assessor is shown of a note: the text with the error of a pair, in the source's sentences or ours."""
    if isinstance(note, str):
        return ShownText(f"note-{place}", note_sentences(note))
    return ShownText(note.note_id, note.sentences or note_sentences(judged_text(note)))


def judged_text(note: Note) -> str:
    """The text of a note that is judged: of a pair the one with the error."""
    return (note.incorrect_note if note.incorrect_note is not None else note.correct_note) or ""


def _finding(text: ShownText, read: Sequence[Reading] | str, threshold: Threshold) -> Finding:
    """What the readings of a text's windows come to: the worst one counts."""
    if isinstance(read, str):
        return Finding(text.note_id, None, None, None, reason=read, windows=0)
    worst = worst_of(read)
    p_error = None if worst is None or worst.p_error is None else threshold.calibrated(worst.p_error)
    flagged = p_error is not None and p_error >= threshold.value
    silent = any(each.p_error is None for each in read)
    if worst is None or (silent and not flagged):
        return Finding(text.note_id, None, None, None, reason=_silence(read), windows=len(read))
    found = Finding(text.note_id, worst.verdict, p_error, flagged, windows=len(read))
    if not flagged and worst.verdict != "INCORRECT":
        return found
    answer, number = worst.answer, worst.answer.error_sentence_id
    other_words = (answer.should_say or "").split() != (answer.says or "").split()
    return replace(
        found,
        sentence=number,
        sentence_text=None if number is None else text.sentences[number],
        says=answer.says,
        should_say=answer.should_say if other_words else None,
        correction=answer.correction if other_words else None,
    )


def _silence(read: Sequence[Reading]) -> str:
    """Why the readings do not judge a note."""
    silent = [each for each in read if each.p_error is None]
    why = "was cut off" if silent[0].truncated else "states no one verdict"
    where = f" about {len(silent)} of {len(read)} windows" if len(read) > 1 else ""
    return f"the model's answer{where} {why}"
