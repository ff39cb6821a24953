"""How a note is laid out on its lines, which an edit of a sentence leaves as it is."""

from __future__ import annotations

import re

from rapidfuzz.distance import Levenshtein

from medserl.game.sentences import LIST_MARK

_LINE_BREAK = re.compile("[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_BULLET = re.compile(rf"(?:{LIST_MARK.pattern})\s+")


def laid_out_like(old: str, new: str) -> str:
    """The sentence `new`, written on one line, laid out as `old` is: the same bullet, every line break and column.

    Words that both have keep the white space before them. Where words went, a line break between them stays.
    """
    bullet = _BULLET.match(old)
    if bullet and not _BULLET.match(new):
        new = bullet.group() + new
    old_words, new_words, gaps = old.split(), new.split(), re.findall(r"\s+", old.strip())
    if not _LINE_BREAK.search(old) and old.count("\t") < 2:
        return new  # neither several lines nor a row of a table
    before = ["", *gaps]
    laid_out, held = "", ""
    for run in Levenshtein.opcodes(old_words, new_words):
        lost = before[run.src_start : run.src_end]
        for n, word in enumerate(new_words[run.dest_start : run.dest_end]):
            gap = (lost[n] if n < len(lost) else "") or " "
            laid_out += _joined(held, gap if laid_out or _LINE_BREAK.search(gap) else "") + word
            held = ""
        for gap in lost[run.dest_end - run.dest_start :]:
            held = _joined(held, gap) if _LINE_BREAK.search(gap) else held
    return laid_out + held


def _joined(held: str, gap: str) -> str:
    """White space that stands for both: every line break, or else the later one."""
    if not held:
        return gap
    return held + gap if _LINE_BREAK.search(gap) else held
