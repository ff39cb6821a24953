"""Trainers that differ from MedSeRL's in one thing, so that it can be told what an arm's gain is due to.

    python benchmarks/learning/controls.py random_swaps --config SETTINGS.toml --output-dir RUN
    python benchmarks/learning/controls.py random_swaps --resume RUN

`random_swaps`: no model writes the errors. A term that stands in the note, of whatever pool of the fact table, gives
way to another of its pool; benign edits are the neutral table's. VCF and audit decide as ever. It knows which words are
terms, which the Injector has to find out, and not which of them is the note's fact.
`plain_text`: the round's notes are learnt as text, where they stand in the Assessor's prompt, and no game is played.
`shuffled_labels`: the Assessor is rewarded as though the labels of the round's texts had been dealt out by chance.
`in_turns`: 20 rounds the Assessor alone is trained, 20 the Injector, and so on.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Any

from medserl.config import read_config, validate
from medserl.display.console import complain, set_up_logging
from medserl.engines.base import WeightedTurn
from medserl.errors import MedSeRLError
from medserl.game.answers import injection_answer
from medserl.game.episode import Completion, Episode, Sample, Turn
from medserl.game.referee import judge_attempt, settle
from medserl.game.roles import Mode, Role
from medserl.game.setup import GameSetup
from medserl.knowledge.audit import audit
from medserl.knowledge.facts import Pool, Term, load_facts
from medserl.knowledge.neutral import apply_neutral_edit, with_case
from medserl.rollout import Attempts, VCFRolloutGenerator, derive_seed
from medserl.rounds.clock import PhaseClock
from medserl.rounds.self_play import Played
from medserl.trainer import MedSeRLTrainer

ROUNDS_IN_TURN = 20
TURNS: tuple[Role, ...] = ("assessor", "injector")


# -- random swaps in the Injector's place ------------------------------------------------------------------------------


class RandomSwaps(VCFRolloutGenerator):
    """The game with edits that no model writes."""

    def inject(self, games: Sequence[GameSetup], seed: int, *, greedy: bool = False) -> list[Attempts]:
        return [self._attempts(game, random.Random(f"{seed}/{i}")) for i, game in enumerate(games)]

    def _attempts(self, game: GameSetup, rng: random.Random) -> Attempts:
        prompt = self.prompts.injector(game.original, game.mode, game.error_type)
        tries: list[Any] = []
        while len(tries) < self.settings.vcf_max_attempts and not (tries and tries[-1].vcf.passed):
            modified = swapped(game.original, game.mode, rng)
            answer = injection_answer(game.original, modified, self.prompts.form) if modified else None
            turn = Turn("injector", prompt, Completion(answer or "", (), (), (), "stop"))
            tries.append(judge_attempt(turn, game.original, game.mode, self.prompts.form, self.settings, audit))
        return tuple(tries)


def swapped(note: str, mode: Mode, rng: random.Random) -> str | None:
    """The note with one of its terms changed for another of the same pool, or in benign mode with a neutral edit; None
    where there is nothing to change."""
    if mode == "benign":
        edit = apply_neutral_edit(note, rng)
        return edit[0] if edit else None
    pattern, known = _terms()
    found = list(pattern.finditer(note))
    if not found:
        return None
    match = rng.choice(found)
    pool, term = rng.choice(known[match[0].casefold()])
    other = rng.choice([each for each in pool.terms if each != term])
    return note[: match.start()] + with_case(other.name, match[0]) + note[match.end() :]


@lru_cache(maxsize=1)
def _terms() -> tuple[re.Pattern[str], Mapping[str, list[tuple[Pool, Term]]]]:
    """What finds every form of every term, the longest first, and the terms that a form stands for."""
    known: dict[str, list[tuple[Pool, Term]]] = {}
    for pool in load_facts().pools:
        for term in pool.terms:
            for form in term.forms:
                known.setdefault(form.casefold(), []).append((pool, term))
    forms = "|".join(map(re.escape, sorted(known, key=lambda form: (-len(form), form))))
    return re.compile(rf"(?<!\w)(?:{forms})(?!\w)", re.IGNORECASE), known


class RandomSwapTrainer(MedSeRLTrainer):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.rollout = RandomSwaps(self.engine, self.rollout.prompts, self.settings)


# -- language modelling ------------------------------------------------------------------------------------------------


class PlainTextTrainer(MedSeRLTrainer):
    def play(self, batch: Sequence[GameSetup], round_number: int, clock: PhaseClock) -> Played:
        self._texts = [(game.note.note_id, game.original) for game in batch]
        return Played([], [], [])

    def sft_turns(self, episodes: Sequence[Episode]) -> list[WeightedTurn]:
        """Each note of the round once, its tokens where they stand in the Assessor's prompt."""
        prompts = [self.rollout.prompts.assessor(text) for _, text in self._texts]
        read = [
            turn.completion.prompt_ids for turn in self.engine.target_turns("assessor", prompts, ["" for _ in prompts])
        ]
        before = alike(read)
        after = alike([ids[before:][::-1] for ids in read])
        turns = []
        for (note_id, _), prompt, ids in zip(self._texts, prompts, read, strict=True):
            told = Completion("", ids[:before], ids[before : len(ids) - after], (), "stop")
            if not told.token_ids:
                continue  # nothing tells this note from the round's others
            weights = (self.settings.sft_loss_weight,) * len(told.token_ids)
            turns.append(WeightedTurn(Turn("assessor", prompt, told), None, weights, note_id))
        return turns


def alike(rows: Sequence[Sequence[int]]) -> int:
    """How many items all rows begin with."""
    return sum(1 for _ in takewhile(lambda items: len(set(items)) == 1, zip(*rows, strict=False)))


# -- labels by chance --------------------------------------------------------------------------------------------------


class ShuffledLabelsTrainer(MedSeRLTrainer):
    def play(self, batch: Sequence[GameSetup], round_number: int, clock: PhaseClock) -> Played:
        """The round, rewarded by its own labels dealt out anew among games and originals, on which the figures of
        rewards and of originals then rest; each game keeps its mode."""
        played = super().play(batch, round_number, clock)
        texts = [(episode.modified, episode.mode) for episode in played.episodes if episode.assessor]
        texts += [(each.gold.text, each.gold.mode) for each in played.originals]
        modes = dict(texts)  # an original that was read several times has one label
        dealt = list(modes.values())
        random.Random(derive_seed(self.settings.seed, "shuffled", round_number)).shuffle(dealt)
        label: Mapping[str | None, Mode] = dict(zip(modes, dealt, strict=True))
        episodes = [self._rewarded(e, label[e.modified]) if e.assessor else e for e in played.episodes]
        originals = [replace(each, gold=replace(each.gold, mode=label[each.gold.text])) for each in played.originals]
        return Played(episodes, played.gold, originals)

    def _rewarded(self, episode: Episode, mode: Mode) -> Episode:
        settled = settle(replace(episode, mode=mode), episode.assessor_turns, self.settings.assessor_reward)
        return replace(settled, mode=episode.mode)


# -- one role after the other ------------------------------------------------------------------------------------------


class InTurnsTrainer(MedSeRLTrainer):
    @property
    def _at_turn(self) -> Role:
        return TURNS[(self.round - 1) // ROUNDS_IN_TURN % len(TURNS)]

    def _wanted(self, samples: Iterable[Sample]) -> list[Sample]:
        return [sample for sample in super()._wanted(samples) if sample.turn.role == self._at_turn]

    def sft_turns(self, episodes: Sequence[Episode]) -> list[WeightedTurn]:
        return [example for example in super().sft_turns(episodes) if example.turn.role == self._at_turn]


CONTROLS: Mapping[str, type[MedSeRLTrainer]] = {
    "random_swaps": RandomSwapTrainer,
    "plain_text": PlainTextTrainer,
    "shuffled_labels": ShuffledLabelsTrainer,
    "in_turns": InTurnsTrainer,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("control", choices=CONTROLS)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--output-dir", type=Path)
    parser.add_argument("--resume", type=Path)
    options = parser.parse_args()
    places = {name: str(path) for name in ("output_dir", "resume") if (path := getattr(options, name))}
    set_up_logging()
    try:
        file = read_config(options.config) if options.config else {}
        with CONTROLS[options.control](validate({**file, **places})) as trainer:
            trainer.train()
    except MedSeRLError as error:
        complain(f"error: {error}", style="red")
        sys.exit(2)
    sys.exit(130 if trainer.interrupted else 0)


if __name__ == "__main__":
    main()
