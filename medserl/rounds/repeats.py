"""Edits that the Injector has made before: counted every round, and charged for with `repeat_penalty`.

An Injector that has found one edit that fools the Assessor makes it again in every note. What counts as the same edit
is the words taken out and put in, wherever in whatever note, in the round itself or the `repeat_window` rounds before.
A past policy's edits are not looked at: they say nothing of the Injector that learns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from medserl.game.episode import Episode
from medserl.game.rewards import Rewards
from medserl.rounds.metrics import share


class RepeatPenalty:
    """Takes `penalty` off the Injector's reward for each repeated edit; remembers the edits of `window` rounds."""

    def __init__(self, penalty: float, window: int) -> None:
        self.penalty = penalty
        self._rounds: deque[list[str]] = deque(maxlen=window)

    def charge(self, episodes: Sequence[Episode]) -> tuple[list[Episode], float | None]:
        """The episodes with their rewards less the penalty, and the share of accepted edits that are repeats."""
        known = {span for spans in self._rounds for span in spans}
        charged, repeats, new = [], [], []
        for episode in episodes:
            span = episode.edited_span if episode.past_role != "injector" else None
            if span is not None:
                repeats.append(span in known)
                episode = self._charged(episode) if span in known else episode
                known.add(span)
                new.append(span)
            charged.append(episode)
        self._rounds.append(new)
        return charged, share(repeats)

    def _charged(self, episode: Episode) -> Episode:
        rewards = episode.rewards
        if not self.penalty or rewards.injector is None:
            return episode
        return replace(episode, rewards=Rewards(rewards.assessor, rewards.injector - self.penalty))

    def state_dict(self) -> list[list[str]]:
        return [list(spans) for spans in self._rounds]

    def load_state_dict(self, state: Sequence[Sequence[str]]) -> None:
        self._rounds.clear()
        self._rounds.extend(list(spans) for spans in state)
