"""How pages read: words of each sentence, and figures in it. Tables, code, quotes and headings are left out.

    python -m tests.prose          prints a line for each page, and the sentences that hold too many figures

A figure is a number that stands by itself: not part of a name, a version or code. A 95 % interval in brackets belongs
to the figure before it.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.places import ROOT

MOST_FIGURES = 2
SKIPPED = ("|", "#", ">", "---")
"""Tables, headings, quotes of notes, rules."""
LONGEST_MEDIAN = 20

_FENCE = re.compile(r"^( *)(```|~~~).*?^\1\2\s*$", re.MULTILINE | re.DOTALL)
_CODE, _COMMENT = re.compile(r"``[^`]+``|`[^`\n]+`"), re.compile(r"<!--.*?-->", re.DOTALL)
_LINK, _PICTURE = re.compile(r"\[([^\]]*)\]\([^)]*\)"), re.compile(r"!\[[^\]]*\]\([^)]*\)")
_ITEM = re.compile(r"^\s*(?:[-*+]|\d+\.)\s+")
_INTERVAL = re.compile(r"\(\s*[−+-]?\d[\d.,]*(?:\s*(?:to|–)\s*)[−+-]?\d[\d.,]*[^)]*\)")
_NAMED = re.compile(
    r"\b(?:arXiv|[Ss]ection|[Pp]ython|seed|round|ACL|version|step)\s*:?\s*\d[\d.]*|CC BY \d\.\d|\d{4}-\d\d-\d\d"
)
_FIGURE = re.compile(r"(?<![\w.,-])[−+-]?\d[\d.,]*(?![\w-])")
_END = re.compile(
    r"(?<=[.!?:])(?:[*_\"')]*)\s+(?=[*_\"'(\[]*[A-Z0-9])"
    r"|(?<=[.!?])(?:[*_\"')]*)\s+(?=[*_\"'(\[]*`)"  # a sentence may begin with code; what follows a colon is none
)
_NO_END = re.compile(r"\b(?:e\.g|i\.e|et al|cf|vs|Fig|No|ed)\.$")


@dataclass(frozen=True)
class Reading:
    """The sentences of a page."""

    sentences: list[str]

    @property
    def median_words(self) -> float:
        return median([len(sentence.split()) for sentence in self.sentences] or [0])

    @property
    def crowded(self) -> list[str]:
        """Sentences with more than `MOST_FIGURES` figures."""
        return [sentence for sentence in self.sentences if len(figures(sentence)) > MOST_FIGURES]


def figures(sentence: str) -> list[str]:
    return _FIGURE.findall(_NAMED.sub("", _INTERVAL.sub("", sentence)))


def read(text: str) -> Reading:
    """The sentences of a page of Markdown; an item of a list and a paragraph begin and end some."""
    text = _COMMENT.sub("", _FENCE.sub("\n\n", text))
    text = _LINK.sub(r"\1", _PICTURE.sub("", text))
    text = _CODE.sub("`code`", text)
    blocks: list[list[str]] = [[]]
    for line in text.splitlines():
        bare = line.strip()
        if not bare or bare.startswith(SKIPPED) or _ITEM.match(line):
            blocks.append([])
        if bare and not bare.startswith(SKIPPED):
            blocks[-1].append(_ITEM.sub("", line).strip())
    return Reading([sentence for block in blocks for sentence in _sentences(" ".join(block))])


def _sentences(paragraph: str) -> list[str]:
    found: list[str] = []
    for part in _END.split(paragraph):
        if found and _NO_END.search(found[-1]):
            found[-1] += f" {part}"
        elif part.strip(" .*_"):
            found.append(part.strip())
    return found


def pages() -> list[Path]:
    """The pages for people: README, and everything in docs/."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]


def main() -> None:
    for page in pages():
        found = read(page.read_text(encoding="utf-8"))
        print(f"{page.relative_to(ROOT)}: {len(found.sentences)} sentences, median {found.median_words:g} words")
        for sentence in found.crowded:
            print(f"    {len(figures(sentence))} figures: {sentence}")


if __name__ == "__main__":
    sys.exit(main())
