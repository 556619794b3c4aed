"""What several commands print: decisions, files, and that work goes on."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.status import Status

if TYPE_CHECKING:
    from xfr_plugin.explanation.verification import Verification
    from xfr_plugin.service.answers import Decision

__all__ = ["print_decision", "print_document", "print_files", "print_plain", "working"]


def working(what: str) -> Status:
    """Show that work goes on, where somebody looks, as long as the block runs."""
    return Console(stderr=True).status(f"{what} …")


def print_plain(console: Console, text: str) -> None:
    """Print as it is: no colours for numbers and paths, no line breaks."""
    console.print(text, highlight=False, soft_wrap=True)


def print_document(text: str) -> None:
    """Print a JSON document, in ASCII where the output takes nothing else; `typer.echo` would change the encoding."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def print_decision(console: Console, decision: Verification | Decision) -> None:
    """Print verdict, score and threshold."""
    verdict = "[bold blue]MATCH[/]" if decision.match else "[bold red]NO MATCH[/]"
    sign = "≥" if decision.match else "<"
    print_plain(
        console,
        f"{verdict}  score {decision.score:.4f} {sign} threshold {decision.threshold:.4f} "
        f"({decision.threshold_source}), margin {decision.margin:+.4f}",
    )


def print_files(console: Console, notes: Iterable[str], picture: Path, document: Path) -> None:
    """Print what may make an answer less reliable, and where it was written."""
    for note in notes:
        print_plain(console, f"note: {note}")
    print_plain(console, f"picture:  {picture}\ndocument: {document}")
