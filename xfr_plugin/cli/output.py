"""What several commands print: decisions, files, and that work goes on; all text from outside as it is."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.status import Status
from rich.text import Text

from xfr_plugin.base.text import digits_apart, printable

if TYPE_CHECKING:
    from xfr_plugin.explanation.verification import Verification
    from xfr_plugin.service.answers import Decision

__all__ = ["print_decision", "print_document", "print_files", "print_lines", "terminal", "working"]


class _Terminal(Console):
    """A console on which strings are text: no markup, no emoji, no control characters. `Text` has styles."""

    def render_str(self, text: str, **settings: Any) -> Text:
        return super().render_str("\n".join(map(printable, text.split("\n"))), **settings)


def terminal(*, stderr: bool = False) -> Console:
    """The only way to make a console here."""
    return _Terminal(markup=False, emoji=False, highlight=False, stderr=stderr)


def working(what: str) -> Status:
    """Show that work goes on, where somebody looks, as long as the block runs."""
    return terminal(stderr=True).status(Text(f"{what} …"))


def print_lines(*lines: str | Text) -> None:
    """Print lines, each on one however long it is."""
    console = terminal()
    for line in lines:
        console.print(printable(line) if isinstance(line, str) else line, soft_wrap=True)


def print_document(text: str) -> None:
    """Print a JSON document, in ASCII where the output takes nothing else; `typer.echo` would change the encoding."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def print_decision(decision: Verification | Decision) -> None:
    """Print verdict, score and threshold."""
    verdict = Text("MATCH", "bold blue") if decision.match else Text("NO MATCH", "bold red")
    sign = "≥" if decision.match else "<"
    digits = digits_apart(decision.score, decision.threshold, 4)
    words = (
        f"  score {decision.score:.{digits}f} {sign} threshold {decision.threshold:.{digits}f} "
        f"({decision.threshold_source}), margin {decision.margin:+.{digits}f}"
    )
    print_lines(Text.assemble(verdict, printable(words)))


def print_files(notes: Iterable[str], picture: Path, document: Path) -> None:
    """Print what may make an answer less reliable, and where it was written."""
    print_lines(*(f"note: {note}" for note in notes), f"picture:  {picture}", f"document: {document}")
