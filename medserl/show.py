"""One game on a terminal: the edit in colour, the VCF's decision, the Assessor's words, and who won."""

from __future__ import annotations

from rich.panel import Panel
from rich.text import Text

from medserl.console import console
from medserl.game.episode import Attempt, Episode
from medserl.game.text import normalize
from medserl.game.vcf import apply_vcf


def show_game(episode: Episode) -> None:
    asked = f"error mode, {episode.error_type}" if episode.mode == "error" else "benign mode"
    title = f"note {episode.note_id} ({asked})"
    console.print(Panel(Text(episode.original), title=title, title_align="left"), soft_wrap=False)
    for number, attempt in enumerate(episode.attempts, start=1):
        _show_attempt(number, attempt, episode.original)
    if episode.assessor is None:
        console.print("No attempt was accepted: the Assessor saw nothing, nobody won.", style="yellow")
        return
    console.print(Panel(Text(episode.assessor.completion.text), title="Assessor", title_align="left"), soft_wrap=False)
    console.print(outcome(episode), style="bold")


def _show_attempt(number: int, attempt: Attempt, original: str) -> None:
    vcf = attempt.vcf
    decision = "[green]accepted[/]" if vcf.passed else f"[red]rejected: {vcf.reason}[/]"
    console.print(f"attempt {number}: VCF {decision} ({vcf.word_edits} word edits, Jaccard {vcf.jaccard:.3f})")
    if attempt.modified is None:
        console.print(Text(attempt.turn.completion.text, style="dim"))
    else:
        console.print(highlighted(original, attempt.modified), soft_wrap=False)


def highlighted(original: str, modified: str) -> Text:
    """The modified note; what was taken out is struck through in red, what was put in is green."""
    shown, after = Text(), normalize(modified)
    position = 0
    for edit in apply_vcf(original, modified).edits:
        shown.append(after[position : edit.modified_start])
        gap = " " if edit.original and edit.modified else ""
        shown.append(edit.original, style="red strike")
        shown.append(gap)
        shown.append(edit.modified, style="bold green")
        position = edit.modified_end
    shown.append(after[position:])
    return shown


def outcome(episode: Episode) -> str:
    """Who won, in a sentence."""
    if episode.verdict is None:
        return "The Assessor gave no verdict: it loses, and the Injector has won nothing."
    winner = "Assessor" if episode.rewards.assessor == 1.0 else "Injector"
    return f"The Assessor says {episode.verdict}. {winner} wins."
