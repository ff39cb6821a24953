"""Numbers and amounts in clinical text: "ten" is 10, "0.5 g" is 500 mg, "six weeks" are 42 days."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = {
    "twenty": 20,
    "thirty": 30,
    "forty": 40,
    "fifty": 50,
    "sixty": 60,
    "seventy": 70,
    "eighty": 80,
    "ninety": 90,
}
_SMALL = {word: n for n, word in enumerate(_ONES)} | _TENS
_SPELLED = re.compile(
    rf"\b(?:(?P<tens>{'|'.join(_TENS)})[- ](?P<one>{'|'.join(_ONES[1:10])})|(?P<small>{'|'.join(_SMALL)}))"
    r"(?P<hundred>[- ]hundred)?\b",
    re.IGNORECASE,
)
_THOUSANDS = re.compile(r"(?<![\d.,/])\d{1,3}(?:,\d{3})+(?![\d,])")

# unit -> (what it measures, how many of the smallest unit)
UNITS = {
    **dict.fromkeys(("mcg", "ug", "μg", "microgram"), ("mass", 1.0)),
    **dict.fromkeys(("mg", "milligram"), ("mass", 1e3)),
    **dict.fromkeys(("g", "gram"), ("mass", 1e6)),
    **dict.fromkeys(("kg", "kilogram"), ("mass", 1e9)),
    **dict.fromkeys(("ml", "milliliter"), ("volume", 1.0)),
    **dict.fromkeys(("l", "liter"), ("volume", 1e3)),
    "day": ("days", 1.0),
    "week": ("days", 7.0),
    "month": ("months", 1.0),
    "year": ("months", 12.0),
}
_DAYS_A_MONTH = 30.4


@dataclass(frozen=True)
class Quantity:
    """An amount in the smallest unit of what it measures. Days and months are kept apart: no month is so many days."""

    measures: str
    amount: float

    def ratio(self, other: Quantity) -> float | None:
        """How many times the larger holds the smaller, 1 or more; None where they measure different things."""
        amounts = [self.amount, other.amount]
        if self.measures != other.measures:
            if {self.measures, other.measures} != {"days", "months"}:
                return None
            amounts = [q.amount * (_DAYS_A_MONTH if q.measures == "months" else 1) for q in (self, other)]
        return max(amounts) / min(amounts) if min(amounts) > 0 else None


def with_digits(text: str) -> str:
    """`text` with spelled numbers and numbers with thousands commas as plain digits: "twenty-five" becomes "25"."""

    def digits(match: re.Match[str]) -> str:
        if match["small"]:
            number = _SMALL[match["small"].lower()]
        else:
            number = _TENS[match["tens"].lower()] + _SMALL[match["one"].lower()]
        return str(number * 100 if match["hundred"] else number)

    text = _SPELLED.sub(digits, text)
    return _THOUSANDS.sub(lambda match: match.group().replace(",", ""), text)


def quantity_at(words: Sequence[str], i: int) -> Quantity | None:
    """The amount that words[i] and words[i + 1] state, or None. Words are lower case and singular."""
    if i + 1 >= len(words) or words[i + 1] not in UNITS:
        return None
    number = as_number(words[i])
    if number is None:
        return None
    measures, size = UNITS[words[i + 1]]
    return Quantity(measures, number * size)


def as_number(word: str) -> float | None:
    """The value of a word of digits, or None. It may have a minus, and nothing before the point."""
    return float(word) if re.fullmatch(r"-?(?:\d+(?:\.\d+)?|\.\d+)", word) else None


def amounts(words: Sequence[str]) -> list[object]:
    """`words` with each number and its unit as one amount, so that 500 mg equal 0.5 g."""
    result: list[object] = []
    i = 0
    while i < len(words):
        amount = quantity_at(words, i)
        result.append(amount or words[i])
        i += 2 if amount else 1
    return result
