"""One batch of the game through any engine: inject, filter, retry, assess (docs/design.md)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from medserl.config import Settings
from medserl.engines.base import InferenceEngine, Sampling
from medserl.game.episode import Attempt, Episode, Turn
from medserl.game.prompts import Messages, PromptSet
from medserl.game.referee import judge_attempt, settle
from medserl.game.roles import Mode, Role
from medserl.game.setup import GameSetup
from medserl.game.vcf import MAX_WORD_EDITS
from medserl.knowledge.audit import audit
from medserl.knowledge.oracle import still_true

Attempts = tuple[Attempt, ...]

ROOM_FOR_A_WORD = 4
"""Tokens by which a word that is put in may be longer than the one that it stands for."""


class VCFRolloutGenerator:
    """Plays games with the engine's current rollout weights; every attempt goes through the VCF at once.

    `MedSeRLTrainer.rollout` and `Assessor.rollout` are ready ones. Otherwise:

        settings = Settings(model=...)
        prompts = load_prompts(settings.prompts, settings.injector_format)      # medserl.game.prompts
        rollout = VCFRolloutGenerator(create_engine(settings), prompts, settings)     # medserl.engines

    Every method raises what the engine raises: ModelError for a prompt that does not fit into the model's context.
    """

    def __init__(self, engine: InferenceEngine, prompts: PromptSet, settings: Settings) -> None:
        """`engine` runs the model; `settings` hold the rules of the game, temperature, `top_p` and room for answers."""
        self.engine = engine
        self.prompts = prompts
        self.settings = settings

    def play(self, games: Sequence[GameSetup], seed: int, *, greedy: bool = False) -> list[Episode]:
        """Play every game to its end: one `Episode` a game, in their order. `seed` fixes all sampling.

        Raises:
            ValueError: a game's note has no correct text.
        """
        return self.assess(games, self.inject(games, seed, greedy=greedy), seed, greedy=greedy)

    def inject(self, games: Sequence[GameSetup], seed: int, *, greedy: bool = False) -> list[Attempts]:
        """The Injector's attempts at every game, 1 to `vcf_max_attempts`: the last is accepted, or all were rejected.

        Raises:
            ValueError: a game's note has no correct text.
        """
        prompts = [self.prompts.injector(game.original, game.mode, game.error_type) for game in games]
        return self.generate_with_vcf(
            prompts,
            [game.original for game in games],
            modes=[game.mode for game in games],
            seed=seed,
            greedy=greedy,
        )

    def generate_with_vcf(
        self,
        prompts: Sequence[Messages | str],
        original_notes: Sequence[str],
        *,
        modes: Sequence[Mode] | None = None,
        seed: int = 0,
        greedy: bool = False,
    ) -> list[Attempts]:
        """Up to `vcf_max_attempts` attempts for each prompt, retried together: a call for all that still lack one.

        A prompt given as a string is one user message. Greedy attempts would repeat themselves, so only the first
        is greedy. The edit audit rejects by mode, so without `modes` it rejects nothing. All sequences have one entry
        a prompt.

        Returns:
            A tuple of attempts for each prompt, 1 to `vcf_max_attempts`; only the last can be accepted.

        Raises:
            ValueError: the sequences are not of one length.
        """
        for name, given in (("original_notes", original_notes), ("modes", modes)):
            if given is not None and len(given) != len(prompts):
                raise ValueError(f"{len(prompts)} prompts, but {len(given)} {name}: give one for each prompt")
        chats = [_as_messages(prompt) for prompt in prompts]
        attempts: list[list[Attempt]] = [[] for _ in prompts]
        missing = list(range(len(prompts)))
        rooms = self.rooms("injector", original_notes)
        for number in range(self.settings.vcf_max_attempts):
            if not missing:
                break
            sampling = self._sampling(
                "injector", [rooms[i] for i in missing], derive_seed(seed, "inject", number), greedy and number == 0
            )
            completions = self.engine.generate([chats[i] for i in missing], sampling)
            for i, completion in zip(missing, completions, strict=True):
                turn = Turn("injector", chats[i], completion)
                mode = modes[i] if modes else None
                attempts[i].append(
                    judge_attempt(turn, original_notes[i], mode, self.prompts.form, self.settings, audit)
                )
            missing = [i for i in missing if not attempts[i][-1].vcf.passed]
        return [tuple(tries) for tries in attempts]

    def assess(
        self, games: Sequence[GameSetup], attempts: Sequence[Attempts], seed: int, *, greedy: bool = False
    ) -> list[Episode]:
        """Show every accepted note to the Assessor, which sees nothing else, and settle each game."""
        unplayed = unjudged(games, attempts)
        samples = self.settings.assessor_samples
        shown = [each.modified for each in unplayed for _ in range(samples) if each.modified is not None]
        turns = iter(self.read(shown, derive_seed(seed, "assess"), greedy=greedy))
        return [
            episode
            if episode.modified is None
            else settle(episode, [next(turns) for _ in range(samples)], self.settings.assessor_reward)
            for episode in unplayed
        ]

    def read(
        self,
        notes: Sequence[str],
        seed: int,
        *,
        greedy: bool = False,
        sentences: Sequence[Sequence[str]] | None = None,
        seeds: Sequence[int] = (),
    ) -> list[Turn]:
        """The Assessor's turn on each note.

        A note is shown as its numbered sentences: those in `sentences`, one entry a note, or else those that it is
        split into. `seeds`, one a note, take the place of `seed`.
        """
        if not notes:
            return []
        known = sentences or [()] * len(notes)
        prompts = [self.prompts.assessor(note, each) for note, each in zip(notes, known, strict=True)]
        sampling = self._sampling("assessor", self.rooms("assessor", notes), seed, greedy)
        sampling = replace(sampling, seeds=tuple(seeds))
        completions = self.engine.generate(prompts, sampling)
        return [Turn("assessor", prompt, c) for prompt, c in zip(prompts, completions, strict=True)]

    def _sampling(self, role: Role, rooms: Sequence[int], seed: int, greedy: bool) -> Sampling:
        return Sampling(
            max_new_tokens=max(rooms),
            temperature=0.0 if greedy else self.settings.temperature,
            top_p=self.settings.top_p,
            seed=seed,
            limits=tuple(rooms) if len(set(rooms)) > 1 else (),
            role=role,
        )

    def rooms(self, role: Role, notes: Sequence[str]) -> tuple[int, ...]:
        """The most tokens that a role's completion about each note may have.

        Where the settings do not say, the Injector's follows from what it may have to repeat, a note's longest sentence
        or the whole note, with `ROOM_FOR_A_WORD` for each word that the VCF lets it add. The Assessor's is the prompt
        set's, which has room to quote as many words as the VCF's default lets be changed, and more where that is more.
        """
        own, edits = self.prompts.completion_tokens(role), self.settings.vcf_max_word_edits
        if role == "assessor":
            quoted = own + 2 * ROOM_FOR_A_WORD * max(0, edits - MAX_WORD_EDITS)  # what it says, and what it should
            return (self.settings.max_new_tokens_assessor or quoted,) * len(notes)
        if self.settings.max_new_tokens_injector:
            return (self.settings.max_new_tokens_injector,) * len(notes)
        added = own + ROOM_FOR_A_WORD * edits
        repeated = [self.prompts.repeated(note) for note in notes]
        counts = iter(self.engine.count_tokens([text for texts in repeated for text in texts]))
        return tuple(max((next(counts) for _ in texts), default=0) + added for texts in repeated)


def unjudged(games: Sequence[GameSetup], attempts: Sequence[Attempts]) -> list[Episode]:
    """The games as the Injector leaves them: no Assessor has read a note, and nobody has earned anything."""
    return [
        Episode(
            note_id=game.note.note_id,
            original=game.original,
            mode=game.mode,
            error_type=game.error_type,
            attempts=tries,
            fact_id=game.note.fact_id,
            still_true=still_true(game.original, _accepted(tries), game.note.fact_id),
        )
        for game, tries in zip(games, attempts, strict=True)
    ]


def derive_seed(*parts: object) -> int:
    """A seed below 2**63 that depends on every part, the same on every machine."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _accepted(attempts: Attempts) -> str | None:
    """The note of the accepted attempt: always the last."""
    return attempts[-1].modified if attempts and attempts[-1].vcf.passed else None


def _as_messages(prompt: Messages | str) -> Messages:
    return ({"role": "user", "content": prompt},) if isinstance(prompt, str) else tuple(prompt)
