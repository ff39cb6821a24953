"""One game on a terminal: the edit in colour, the VCF's decision, the Assessor's words, and who won."""

from __future__ import annotations

from rich.panel import Panel
from rich.text import Text

from medserl.display.console import console, say
from medserl.display.visible import visible, visible_line
from medserl.game.episode import Attempt, Episode
from medserl.game.text import normalize
from medserl.game.vcf import apply_vcf


def show_game(episode: Episode) -> None:
    asked = f"error mode, {episode.error_type}" if episode.mode == "error" else "benign mode"
    say(_panel(episode.original, f"note {episode.note_id} ({asked})"))
    for number, attempt in enumerate(episode.attempts, start=1):
        _show_attempt(number, attempt, episode.original)
    if episode.assessor is None:
        say(Text("No attempt was accepted: the Assessor saw nothing, nobody won.", style="yellow"))
        return
    say(_panel(episode.assessor.completion.text, "Assessor"))
    say(Text(who_won(episode), style="bold"))


def _panel(text: str, title: str) -> Panel:
    return Panel(Text(visible(text)), title=Text(visible_line(title)), title_align="left")


def _show_attempt(number: int, attempt: Attempt, original: str) -> None:
    vcf = attempt.vcf
    decision = ("accepted", "green") if vcf.passed else (f"rejected: {vcf.reason}", "red")
    measured = f" ({vcf.word_edits} word edits, Jaccard {vcf.jaccard:.3f})"
    say(Text.assemble(f"attempt {number}: VCF ", decision, measured))
    if attempt.modified is None:
        say(Text(visible(attempt.turn.completion.text), style="dim"))
    else:
        say(highlighted(original, attempt.modified, signs=console.color_system is None or console.no_color))


def highlighted(original: str, modified: str, signs: bool = False) -> Text:
    """The modified note; what was taken out is struck through in red, what was put in is green.

    With `signs`, for where no colour is seen, they stand in brackets too: `[-aspirin-] {+warfarin+}`.
    """
    shown, after = Text(), normalize(modified)
    position = 0
    for edit in apply_vcf(original, modified).edits:
        _add(shown, after[position : edit.modified_start])
        _add(shown, edit.original, "red strike", "[--]" if signs else "")
        _add(shown, edit.modified, "bold green", "{++}" if signs else "")
        position = edit.modified_end
    _add(shown, after[position:])
    return shown


def _add(shown: Text, piece: str, style: str = "", brackets: str = "") -> None:
    """Put the piece at the end, a blank before it where two words would run together."""
    if not piece:
        return
    half = len(brackets) // 2
    piece = brackets[:half] + visible(piece) + brackets[half:]
    before = shown.plain[-2:]
    if (before[-1:].isalnum() or before in ("-]", "+}")) and (piece[0].isalnum() or half):
        shown.append(" ")
    shown.append(piece, style=style)


def who_won(episode: Episode) -> str:
    """Who won, in a sentence."""
    if episode.assessor and episode.assessor.completion.truncated:
        return (
            "The Assessor's answer was cut at the token limit: no verdict. It loses, and the Injector has won nothing."
        )
    if episode.verdict is None:
        return "The Assessor gave no verdict: it loses, and the Injector has won nothing."
    winner = "Injector" if episode.fooled else "Assessor"
    return f"The Assessor says {episode.verdict}. {winner} wins."
