"""Diversity of the Injector's edits, on rounds small enough to work out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.reports.diversity import edit_diversity, entropy, self_bleu
from tests.synthetic_run import edited_game as game


def test_diversity_by_hand() -> None:
    games = [
        game(2, "type 2", "type 1"),
        game(2, "Type 2,", "type 1"),  # case and punctuation are no difference
        game(2, "flu", "acute gout", "treatment"),
        game(2, "woman", "lady", None),
        game(2, "acute", "", None),  # a deletion writes no word
        game(2, "x", "y") | {"modified": None},  # not accepted
        game(1, "a", "b"),
    ]
    first, second = edit_diversity(games)
    assert (first.round, first.edits, first.distinct_ratio, first.self_bleu) == (1, 1, 1.0, None)
    assert first.error_type_entropy == 0.0
    assert (second.round, second.edits, second.distinct_ratio) == (2, 5, 4 / 5)
    both_elsewhere = (1 + 1 + 0 + 0) / 4  # "type 1" is wholly written elsewhere twice, the others not at all
    assert second.self_bleu == pytest.approx(both_elsewhere)
    assert second.error_type_entropy == pytest.approx(-(2 / 3) * math.log2(2 / 3) - (1 / 3) * math.log2(1 / 3))
    assert edit_diversity([]) == []
    assert edit_diversity([game(1, "a", "b", None)])[0].error_type_entropy is None


def test_entropy_of_five_alike_types() -> None:
    assert entropy(dict.fromkeys("abcde", 3)) == pytest.approx(math.log2(5))
    assert entropy({"a": 7, "b": 0}) == 0.0


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], None),
        (["a b", ""], None),
        (["a", "b"], 0.0),
        (["a b c", "a b c"], 1.0),
        # one of two words shared, no pair of words: the pair counts 0.1
        (["type 1", "type 2"], math.sqrt(1 / 2 * 0.1)),
        # the shorter text is all shared but pays for its length; the longer shares 1 of 2 words and no pair
        (["a", "a b"], (math.exp(1 - 2) + math.sqrt(1 / 2 * 0.1)) / 2),
        # clipped: only one of the two "a" is matched, and the pair "a a" not at all; no length penalty for the longer
        (["a a", "a", "b"], (math.sqrt(1 / 2 * 0.1) + 1 + 0) / 3),
        # the other text nearest in length counts: 1 to 1, not 3 to 1
        (["a", "a b c", "d"], (1 + ((1 / 3) * (0.1 / 2) * (0.1 / 1)) ** (1 / 3) + 0) / 3),
    ],
)
def test_self_bleu_by_hand(texts: list[str], expected: float | None) -> None:
    assert self_bleu([text.split() for text in texts]) == pytest.approx(expected)


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=6), max_size=12))
def test_self_bleu_lies_between_nothing_shared_and_all(texts: list[list[str]]) -> None:
    found = self_bleu(texts)
    written = [text for text in texts if text]
    assert (found is None) == (len(written) < 2)
    assert found is None or 0 <= found <= 1 + 1e-9
    if written:
        assert self_bleu(written + written) == pytest.approx(1.0)


def brute_force_self_bleu(texts: list[tuple[str, ...]]) -> float:
    """The definition, text by text against all others."""
    scores = []
    for place, text in enumerate(texts):
        others = texts[:place] + texts[place + 1 :]
        orders = range(1, min(4, len(text)) + 1)
        logs, shares_a_word = [], any(word in other for word in text for other in others)
        for order in orders:
            grams = [[one[i : i + order] for i in range(len(one) - order + 1)] for one in (text, *others)]
            mine, theirs = grams[0], grams[1:]
            matched = sum(min(mine.count(g), max(one.count(g) for one in theirs)) for g in set(mine))
            logs.append(math.log((matched or 0.1) / len(mine)))
        nearest = min((abs(len(one) - len(text)), len(one)) for one in others)[1]
        penalty = 1.0 if len(text) >= nearest else math.exp(1 - nearest / len(text))
        scores.append(penalty * math.exp(sum(logs) / len(logs)) if shares_a_word else 0.0)
    return sum(scores) / len(scores)


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=7).map(tuple), min_size=2, max_size=7))
def test_self_bleu_is_its_definition(texts: list[tuple[str, ...]]) -> None:
    assert self_bleu(texts) == pytest.approx(brute_force_self_bleu(texts))
