"""Turns that begin alike share one row, a tree of prefixes: what they have in common is read once.

All turns on a note begin with the same words up to their task, or to the first word of an edit: both roles, its twin,
the original, every try. A row holds each of these beginnings once, then what follows each; a token sees its ancestors
in the tree alone (`masks`), and keeps the position that it has in its own turn. Log-probabilities and gradients are
those of separate rows, but for rounding. A model that cannot do it gets a row for each turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from medserl.game.episode import Completion

LEAST_SHARED_PART = 0.25
"""A turn joins a row where it has at least this part of itself in common with a turn there."""

PAD_TO = 32
"""Rows are padded to a multiple of it, so that few sizes occur: on a CPU in bfloat16 each new size leaves small blocks
in memory for good (oneDNN's cache is part of them), which break up the room of larger arrays."""

Ids = tuple[int, ...]


@dataclass(frozen=True)
class PackedRow:
    """Some turns as one sequence of tokens.

    `turns` are their indices. `paths` are a turn's places in the row, from its first token to the last but one, whose
    output predicts the last. `targets` are a turn's completion, predicted by the last places of its path.
    """

    turns: tuple[int, ...]
    ids: Ids
    positions: Ids
    paths: tuple[Ids, ...]
    targets: tuple[Ids, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def places(self, branch: int) -> Ids:
        """The places whose outputs predict the completion of the turn with this number in the row."""
        path = self.paths[branch]
        return path[len(path) - len(self.targets[branch]) :]


def pack(completions: Sequence[Completion], longest: int, *, share: bool = True) -> list[PackedRow]:
    """Rows of all turns with these completions, of at most `longest` tokens where a turn alone is not longer."""
    inputs = [(completion.prompt_ids + completion.token_ids)[:-1] for completion in completions]
    together: list[list[int]] = []
    length = 0
    # Sorted, a turn has with the one before it at least as much in common as with any earlier one.
    for i in sorted(range(len(inputs)), key=lambda i: (inputs[i], i)):
        common = _common(inputs[together[-1][-1]], inputs[i]) if together else 0
        more = len(inputs[i]) - common
        if together and share and common >= LEAST_SHARED_PART * len(inputs[i]) and length + more <= longest:
            together[-1].append(i)
            length += more
        else:
            together.append([i])
            length = len(inputs[i])
    return [_row(members, inputs, completions) for members in together]


def _row(members: Sequence[int], inputs: Sequence[Ids], completions: Sequence[Completion]) -> PackedRow:
    """The tree of these turns, which are sorted, written depth first."""
    ids: list[int] = []
    positions: list[int] = []
    paths: list[Ids] = []
    for before, i in zip([None, *members], members, strict=False):
        common = 0 if before is None else _common(inputs[before], inputs[i])
        shared = paths[-1][:common] if paths else ()
        paths.append((*shared, *range(len(ids), len(ids) + len(inputs[i]) - common)))
        ids += inputs[i][common:]
        positions += range(common, len(inputs[i]))
    targets = tuple(completions[i].token_ids for i in members)
    return PackedRow(tuple(members), tuple(ids), tuple(positions), tuple(paths), targets)


def _common(a: Ids, b: Ids) -> int:
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def batches(rows: Sequence[PackedRow], token_budget: int) -> Iterator[list[PackedRow]]:
    """Rows of similar length together, within the budget once padded; a longer row is alone."""
    batch: list[PackedRow] = []
    for row in sorted(rows, key=lambda row: (len(row), row.turns)):
        if batch and (len(batch) + 1) * padded(row) > token_budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def padded(row: PackedRow) -> int:
    """The places that the row takes in a pass."""
    return -(-len(row) // PAD_TO) * PAD_TO


def turns_of(rows: Sequence[PackedRow]) -> list[int]:
    """The rows' turns, in the order in which they stand there."""
    return [i for row in rows for i in row.turns]


def tensors(rows: Sequence[PackedRow], pad_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids and positions, (B, L), padded on the right, and whether a place is another's ancestor or itself,
    (B, L, L) by the place that looks and the place that is seen."""
    longest = max(map(padded, rows))
    ids = torch.full((len(rows), longest), pad_id)
    positions = torch.zeros(len(rows), longest, dtype=torch.long)
    related = torch.eye(longest, dtype=torch.bool).repeat(len(rows), 1, 1)  # padding sees itself: no empty softmax
    for i, row in enumerate(rows):
        ids[i, : len(row)], positions[i, : len(row)] = torch.tensor(row.ids), torch.tensor(row.positions)
        for path in map(torch.tensor, row.paths):
            related[i, path[:, None], path[None]] = torch.ones(len(path), len(path), dtype=torch.bool).tril()
    return ids, positions, related
