"""Turns that begin alike share one row: what they have in common is computed once, and each turn sees only itself.

Attempts at one note have the same prompt, and the twins of a pair differ in a few words near the end, so much of what
an update reads is the same text again. A row is the shared beginning, then what is left of each turn; a mask keeps the
turns from seeing one another (`masks`), and every token keeps the position it has in its own turn. Log-probabilities
and gradients are those of separate rows, but for rounding. A model that cannot do it gets a row for each turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from medserl.game.episode import Completion

WORTH_SHARING = 0.5
"""Turns join a row where they share at least this part of the longest of them."""

PAD_TO = 32
"""Rows are padded to a multiple of it, so that few sizes occur: on a CPU in bfloat16 each new size leaves small blocks
in memory for good (oneDNN's cache is part of them), which break up the room of larger arrays."""

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """Some turns as one sequence of tokens.

    `turns` are their indices; `branches` is 0 where a token is shared and k for the k-th turn's own; `places[k - 1]`
    are the places whose outputs predict that turn's completion tokens.
    """

    turns: tuple[int, ...]
    ids: Ids
    positions: Ids
    branches: Ids
    places: tuple[Ids, ...]

    def __len__(self) -> int:
        return len(self.ids)


def pack(completions: Sequence[Completion], longest: int, *, share: bool = True) -> list[Row]:
    """Rows of all turns with these completions, of at most `longest` tokens where a turn alone is not longer."""
    sequences = [completion.prompt_ids + completion.token_ids for completion in completions]
    rows: list[Row] = []
    members: list[int] = []
    shared = 0
    for i in sorted(range(len(sequences)), key=lambda i: (sequences[i], i)):
        own_prompt = len(completions[i].prompt_ids) - 1  # its last token predicts the first of the completion
        if members and share:
            common = min(shared, own_prompt, _common(sequences[members[0]], sequences[i]))
            together = [*members, i]
            length = common + sum(len(sequences[j]) - common for j in together)
            if common >= WORTH_SHARING * max(len(sequences[j]) for j in together) and length <= longest:
                members, shared = together, common
                continue
        if members:
            rows.append(_row(members, shared, sequences, completions))
        members, shared = [i], own_prompt
    if members:
        rows.append(_row(members, shared, sequences, completions))
    return rows


def _row(members: Sequence[int], shared: int, sequences: Sequence[Ids], completions: Sequence[Completion]) -> Row:
    ids, positions, branches = list(sequences[members[0]][:shared]), list(range(shared)), [0] * shared
    places = []
    for branch, i in enumerate(members, start=1):
        rest = sequences[i][shared:]
        ids += rest
        positions += range(shared, shared + len(rest))
        branches += [branch] * len(rest)
        places.append(tuple(range(len(ids) - 1 - len(completions[i].token_ids), len(ids) - 1)))
    return Row(tuple(members), tuple(ids), tuple(positions), tuple(branches), tuple(places))


def _common(a: Ids, b: Ids) -> int:
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def batches(rows: Sequence[Row], token_budget: int) -> Iterator[list[Row]]:
    """Rows of similar length together, within the budget once padded; a longer row is alone."""
    batch: list[Row] = []
    for row in sorted(rows, key=lambda row: (len(row), row.turns)):
        if batch and (len(batch) + 1) * padded(row) > token_budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def padded(row: Row) -> int:
    """The places that the row takes in a pass."""
    return -(-len(row) // PAD_TO) * PAD_TO


def turns_of(rows: Sequence[Row]) -> list[int]:
    """The rows' turns, in the order in which they stand there."""
    return [i for row in rows for i in row.turns]


def tensors(rows: Sequence[Row], pad_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids and positions, (B, L), padded on the right, and which earlier place belongs to a place's own turn.

    The last, (B, L, L), is True where the place of the last dimension comes before that of the middle one, or is the
    same, and stands in a turn of it. Padding stands with padding.
    """
    longest = max(map(padded, rows))
    ids = torch.full((len(rows), longest), pad_id)
    positions = torch.zeros(len(rows), longest, dtype=torch.long)
    branches = torch.full((len(rows), longest), -1)
    for i, row in enumerate(rows):
        ids[i, : len(row)], positions[i, : len(row)] = torch.tensor(row.ids), torch.tensor(row.positions)
        branches[i, : len(row)] = torch.tensor(row.branches)
    seen, seer = branches[:, None, :], branches[:, :, None]
    earlier = torch.ones(longest, longest, dtype=torch.bool).tril()
    return ids, positions, ((seen == seer) | ((seen == 0) & (seer > 0))) & earlier
