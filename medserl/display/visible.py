"""Text from notes, models and files, made safe to show: nothing in it commands a terminal or hides from the reader."""

from __future__ import annotations

import unicodedata


def visible(text: str) -> str:
    r"""The text with every character that is not to be seen written as `\x1b`, `\u202e` and the like.

    These are control characters (escape sequences begin with one), marks that turn the direction of writing round,
    other format characters, lone surrogates, and what Unicode has not assigned. Line breaks and tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in "\n\t" else _shown(char) for char in text)


def visible_line(text: str) -> str:
    r"""The same in one line: a line break is `\n`, so that nothing in the text can pass for a line of its own."""
    return visible(text).replace("\n", r"\n")


def _shown(char: str) -> str:
    if unicodedata.category(char) == "Zs":  # a blank of another width
        return char
    return char.encode("unicode_escape").decode("ascii")
