"""Gold pairs in training: the Assessor's turns on twins whose label no Injector can game.

Three uses, each off at 0. `gold_fraction`: the Assessor judges both twins of some pairs, is rewarded as in play, and
learns by REINFORCE++ with the rest. `sft_verdict_pairs`: the answers that it should give to both twins of some pairs
are learnt as they stand (`auxiliary`). `sft_edit_pairs`: likewise the Injector's, in either mode.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from medserl.config import Settings
from medserl.errors import ConfigError
from medserl.game.answers import injection_answer
from medserl.game.episode import Sample, Turn
from medserl.game.note import Note
from medserl.game.prompts import PromptSet
from medserl.game.referee import reading_reward
from medserl.game.rewards import AssessorReward
from medserl.game.roles import MODES, Mode, Verdict, truth
from medserl.game.vcf import apply_vcf
from medserl.knowledge.neutral import apply_neutral_edit
from medserl.rollout import VCFRolloutGenerator, derive_seed
from medserl.rounds.auxiliary import SFTExample, verdict_example
from medserl.rounds.metrics import RoundFigures, share


@dataclass(frozen=True)
class GoldText:
    """One twin of a gold pair, and the other; `mode` is that of the game whose truth it has."""

    note_id: str
    text: str
    mode: Mode
    twin: str


@dataclass(frozen=True)
class GoldTurn:
    """The Assessor's turn on a gold text."""

    gold: GoldText
    turn: Turn
    verdict: Verdict | None

    @property
    def right(self) -> bool:
        return self.verdict == truth(self.gold.mode)

    def sample(self, rule: AssessorReward = "verdict") -> Sample:
        gold = self.gold
        reward = reading_reward(self.turn, gold.mode, gold.text, gold.twin, rule)
        return Sample(self.turn, reward, gold.note_id, gold.mode)


class GoldPairs:
    """The pairs among the notes, in a fresh order each time all have been used, all from one seed.

    What a round draws depends on its number alone, so there is no state to save.
    """

    def __init__(self, notes: Sequence[Note], settings: Settings) -> None:
        """Raises ConfigError where gold turns or examples are asked for and no note has a twin that the VCF accepts, or
        so few gold turns that they make no pair."""
        self.settings = settings
        wanted = settings.takes_gold_pairs
        self.pairs = [twins for note in notes if (twins := _twins(note, settings))] if wanted else []
        self._notes = {note.note_id: note for note in notes} if wanted else {}
        if settings.gold_fraction and not self._pairs_beside(settings.rollout_batch_size):
            raise ConfigError(
                f"gold_fraction {settings.gold_fraction:g} of {settings.rollout_batch_size} games is less than one "
                "pair a round: raise either, or leave gold_fraction at 0"
            )
        if wanted and not self.pairs:
            raise ConfigError(
                "gold_fraction, sft_verdict_pairs and sft_edit_pairs need notes with a correct and an incorrect twin: "
                "found none; --gold-data FILE names some, --gold-data sample takes the sample's"
            )

    def judge(self, rollout: VCFRolloutGenerator, games: int, round_number: int) -> list[GoldTurn]:
        """The Assessor on both twins of as many pairs as make `gold_fraction` of its turns beside those in `games`."""
        full = self._pairs_beside(self.settings.rollout_batch_size)
        # A smaller last batch draws fewer pairs; where a round begins must not depend on that.
        texts = self._next_twins("practice", (round_number - 1) * full, self._pairs_beside(games))
        seed = derive_seed(self.settings.seed, "gold", round_number)
        said = rollout.read([gold.text for gold in texts], seed)
        return [GoldTurn(gold, turn, turn.verdict) for gold, turn in zip(texts, said, strict=True)]

    def examples(self, prompts: PromptSet, round_number: int) -> list[SFTExample]:
        """The right answers to both twins of `sft_verdict_pairs` pairs and `sft_edit_pairs` pairs.

        Both counts go through the pairs in the same order.
        """
        judged, edited = (
            self._next_twins("lessons", (round_number - 1) * count, count)
            for count in (self.settings.sft_verdict_pairs, self.settings.sft_edit_pairs)
        )
        examples = [verdict_example(prompts, gold.note_id, gold.text, gold.mode, gold.twin) for gold in judged]
        return examples + [edit for gold in edited if (edit := self._edit(gold, prompts))]

    def _edit(self, gold: GoldText, prompts: PromptSet) -> SFTExample | None:
        """What the Injector should do in the mode of a twin: the physician's edit, or one out of the neutral table
        that changes nothing; None where the table has none for the note."""
        note = self._notes[gold.note_id]
        original = note.correct_note or ""
        neutral = apply_neutral_edit(original, random.Random(f"{self.settings.seed}/{gold.note_id}/{gold.mode}"))
        modified = gold.text if gold.mode == "error" else neutral and neutral[0]
        answer = injection_answer(original, modified, prompts.form) if modified else None
        if not answer:
            return None
        error_type = note.error_type if gold.mode == "error" else None
        return SFTExample("injector", gold.note_id, prompts.injector(original, gold.mode, error_type), answer)

    def _pairs_beside(self, games: int) -> int:
        """Pairs that go with so many games."""
        fraction = self.settings.gold_fraction
        turns = games * self.settings.assessor_samples * fraction / (1 - fraction)
        return round(turns / len(MODES))

    def _next_twins(self, use: str, first: int, count: int) -> list[GoldText]:
        """The twins at `count` places, from `first` on, of all epochs in a row."""
        order: dict[int, list[tuple[GoldText, GoldText]]] = {}
        drawn: list[GoldText] = []
        for place in range(first, first + count):
            epoch, position = divmod(place, len(self.pairs))
            if epoch not in order:
                rng = random.Random(f"{self.settings.seed}/{use}/{epoch}")
                order[epoch] = rng.sample(self.pairs, len(self.pairs))
            drawn += order[epoch][position]
        return drawn


def _twins(note: Note, settings: Settings) -> tuple[GoldText, GoldText] | None:
    """Both twins of a pair whose edit the game would accept; None for any other note."""
    if note.correct_note is None or note.incorrect_note is None:
        return None
    vcf = apply_vcf(
        note.correct_note,
        note.incorrect_note,
        min_jaccard=settings.vcf_min_jaccard,
        max_jaccard=settings.vcf_max_jaccard,
        max_word_edits=settings.vcf_max_word_edits,
    )
    if not vcf.passed:
        return None
    return (
        GoldText(note.note_id, note.incorrect_note, "error", note.correct_note),
        GoldText(note.note_id, note.correct_note, "benign", note.incorrect_note),
    )


def gold_metrics(turns: Sequence[GoldTurn]) -> RoundFigures:
    """The Assessor on gold texts, apart from self-made notes; nothing where there are none."""
    figures: RoundFigures = {}
    if turns:
        pairs = zip(turns[::2], turns[1::2], strict=True)
        figures |= {
            "gold_accuracy": share(turn.right for turn in turns),
            "gold_pairwise_accuracy": share(wrong.right and correct.right for wrong, correct in pairs),
            "gold_recall": share(turn.right for turn in turns if turn.gold.mode == "error"),
            "gold_specificity": share(turn.right for turn in turns if turn.gold.mode == "benign"),
        }
    return figures


def original_metrics(turns: Sequence[GoldTurn]) -> RoundFigures:
    """The Assessor on the originals of accepted errors, which are correct; nothing where they are not judged."""
    return {"original_specificity": share(turn.right for turn in turns)} if turns else {}
