"""The pages for people: they read easily, their links lead somewhere, their commands and settings are there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from cyclopts import App

from medserl.cli import app
from medserl.config import Settings
from tests import prose
from tests.places import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
OUTSIDE_THE_SITE = sorted({*ROOT.glob("*.md"), *ROOT.glob("*/README.md")} - {ROOT / "CHANGELOG.md"})
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_SHELL = re.compile(r"```bash\n(.*?)```", re.DOTALL)
_INLINE = re.compile(r"`(medserl [^`]+)`")


def slug(heading: str) -> str:
    """The anchor of a heading, as hosts of repositories and the site make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


# -- reading -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", prose.pages(), ids=lambda page: page.name)
def test_a_page_reads_easily(page: Path) -> None:
    found = prose.read(page.read_text(encoding="utf-8"))
    assert found.crowded == []
    assert found.median_words < prose.LONGEST_MEDIAN


@pytest.mark.parametrize(
    ("sentence", "count"),
    [
        ("It took 3 s.", 1),
        ("It is 42.3 % (37.3 to 47.4), and 1,219 notes.", 2),
        ("Python 3.11, arXiv 2501.03262 and SmolLM2-135M are names.", 0),
        ("Recall fell from 48.6 to 12.5 %, by -36 points.", 3),
        ("`--steps 4 5 6` is code, [seed 7](x.md#8) a name.", 0),
    ],
)
def test_figures_are_counted(sentence: str, count: int) -> None:
    (read,) = prose.read(sentence).sentences
    assert len(prose.figures(read)) == count


def test_what_is_no_sentence_is_left_out() -> None:
    text = "# 1 2 3\n\nOne. Two!\n\n| 4 | 5 |\n\n```\n6 7 8\n```\n> 9 9 9\n\n- an item\n- another, e.g. this\n"
    assert prose.read(text).sentences == ["One.", "Two!", "an item", "another, e.g. this"]


def test_a_sentence_may_begin_with_code() -> None:
    text = "It is `a`. `b` is next, e.g. `c`: `d`, and `e 1` (`f`). **`g`** ends it.\n"
    code = "`code`"
    assert prose.read(text).sentences == [
        f"It is {code}.",
        f"{code} is next, e.g. {code}: {code}, and {code} ({code}).",
        f"**{code}** ends it.",
    ]


# -- links ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", OUTSIDE_THE_SITE, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_pages_outside_the_site_lead_somewhere(page: Path) -> None:
    """Those of docs/ are the site's to check."""
    for link in _LINK.findall(page.read_text(encoding="utf-8")):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name} links to {link}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), f"{page.name} links to {link}"


_CITED = re.compile(
    r"(?<![\w/.:-])(?:medserl|docs|tests|scripts|src|benchmarks|configs|containers)/[\w.-]+(?:/[\w.-]+)*(?<!\.)"
)
"""Files and folders of the repository; what stands in `data/` may be what a command writes."""


@pytest.mark.parametrize("page", prose.pages(), ids=lambda page: page.name)
def test_no_page_cites_a_file_that_is_not_there(page: Path) -> None:
    cited = set(_CITED.findall(page.read_text(encoding="utf-8")))
    assert sorted(name for name in cited if not (ROOT / name).exists()) == []


class Asked(HTMLParser):
    """What a browser fetches for a page: scripts, styles, pictures, fonts. Links to click on are none."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        address = given.get("src") or (given.get("href") if tag == "link" and given.get("rel") != "canonical" else None)
        if address:
            self.addresses.append(address)


def test_the_site_is_built_and_asks_nobody_else_for_anything(tmp_path: Path) -> None:
    """`--strict`: a link or an anchor that leads nowhere, or a page that is in no menu, stops it."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    told = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=told, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert {f"{page.stem}.html" for page in (ROOT / "docs").glob("*.md")} <= {page.name for page in pages}
    for page in pages:
        assert [address for address in Asked(page).addresses if "//" in address] == [], page.name
        assert 'class="mermaid"' not in page.read_text(encoding="utf-8")  # it would be drawn by a script from elsewhere
    styles = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "site").rglob("*.css"))
    assert not re.search(r"(?:url\(|@import )[\"']?(?:https?:)?//", styles)


# -- commands and settings -----------------------------------------------------------------------------------------


def documented() -> list[tuple[str, str]]:
    """Every `medserl ...` of a shell block, an indented one or a code span, with the page that it is on."""
    found = []
    for page in prose.pages():
        text = page.read_text(encoding="utf-8")
        lines = [line for block in _SHELL.findall(text) for line in block.replace("\\\n", " ").splitlines()]
        lines += [" ".join(span.split()) for span in _INLINE.findall(text)]
        lines += re.findall(r"^    (medserl .+)$", text, re.MULTILINE)
        calls = (re.search(r"\bmedserl ([a-z-].*)", line.partition("#")[0]) for line in lines)
        found += [(page.name, call[1].strip()) for call in calls if call]
    return found


def command_of(words: list[str]) -> tuple[App, list[str]]:
    """The command that the words name, and what follows it."""
    here = app
    while words and not words[0].startswith("-") and words[0] in here:
        here, words = here[words[0]], words[1:]
    return here, words


def flags_of(command: App) -> set[str]:
    if command is app:
        return {"--help", "--version"}
    return {"--help", *(name for argument in command.assemble_argument_collection() for name in argument.names)}


def test_every_documented_command_and_flag_is_there() -> None:
    calls = documented()
    assert len(calls) > 60
    wrong = []
    for page, call in calls:
        command, rest = command_of(call.split())
        flags = {word.partition("=")[0] for word in rest if word.startswith("--")}
        if (command is app and not flags) or flags - flags_of(command):
            wrong.append((page, call))
    assert wrong == []


def test_the_readme_has_its_two_commands_and_every_other() -> None:
    assert "bash scripts/run_medserl_pipeline.sh   # environment, model, 5 online rounds of 32 notes" in README
    assert "bash scripts/run_tests.sh              # format, types and tests" in README
    missing = [name for name in app if not name.startswith("-") and f"| `medserl {name}" not in README]
    assert missing == []


def test_the_readme_names_five_settings_with_their_defaults() -> None:
    rows = re.findall(r"^\| `(--[\w-]+)` \| ([^|]+) \|", README, re.MULTILINE)
    assert len(rows) == 5
    for flag, default in rows:
        field = Settings.model_fields[flag.removeprefix("--").replace("-", "_")]
        assert default.strip("` ") == str(field.default)
