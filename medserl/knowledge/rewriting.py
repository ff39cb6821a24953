"""Phrases that say the same, rewritten to the simplest of them, so that two texts can be compared by what they say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Phrase = tuple[str, ...]
Rewritings = Mapping[str, tuple[tuple[Phrase, Phrase], ...]]
"""First word of a phrase -> (phrase, the simplest phrase that says the same), the longest phrase first."""


def rewrite_rules(pairs: Iterable[tuple[Phrase, Phrase]]) -> Rewritings:
    """Rules that rewrite every phrase to the simplest of those that `pairs` say mean the same.

    Pairs are taken from short to long and are first rewritten by the rules there are, so that "is seen because of" and
    "is evaluated due to" meet although no pair names both.
    """
    rules: dict[str, tuple[tuple[Phrase, Phrase], ...]] = {}
    for pair in sorted({tuple(sorted(pair, key=_size)) for pair in pairs}, key=_pair_size):
        short, long = sorted((simplest(words, rules) for words in pair), key=_size)
        if short != long:
            known = (*rules.get(long[0], ()), (long, short))
            rules[long[0]] = tuple(sorted(known, key=lambda rule: -len(rule[0])))
    return rules


def simplest(words: Phrase, rules: Rewritings) -> Phrase:
    """`words` with every phrase rewritten until no rule applies. Every rule makes a phrase smaller, so it ends."""
    current, previous = words, None
    while current != previous:
        previous, current = current, _rewritten(current, rules)
    return current


def _rewritten(words: Phrase, rules: Rewritings) -> Phrase:
    result: list[str] = []
    i = 0
    while i < len(words):
        for phrase, simpler in rules.get(words[i], ()):
            if words[i : i + len(phrase)] == phrase:
                result += simpler
                i += len(phrase)
                break
        else:
            result.append(words[i])
            i += 1
    return tuple(result)


def _size(words: Phrase) -> tuple[int, Phrase]:
    return len(words), words


def _pair_size(pair: tuple[Phrase, ...]) -> tuple[int, tuple[Phrase, ...]]:
    return sum(map(len, pair)), pair
