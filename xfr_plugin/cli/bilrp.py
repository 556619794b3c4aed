"""The command `xfr bilrp`: which regions of two faces matched."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from xfr_plugin.errors import InputError
from xfr_plugin.explanation.api import DEFAULT_RECOGNIZER
from xfr_plugin.recognition import load_recognizer

__all__ = ["bilrp_command", "register"]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("bilrp", epilog="Example: `xfr bilrp a.jpg b.jpg --out result`.")(bilrp_command)


def bilrp_command(
    a: Annotated[Path, typer.Argument(metavar="A", help="Probe photo.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Reference photo.")],
    out: Annotated[Path, typer.Option(help="Folder for the picture and the table of all pairs.")] = Path(
        "xfr-out"
    ),
    composite: Annotated[str, typer.Option(help="Rules: `auto`, or a composite's name.")] = "auto",
    recognizer: Annotated[
        str, typer.Option("--recognizer", "-r", help="Name, weight file, or https://…#sha256=…")
    ] = DEFAULT_RECOGNIZER,
    architecture: Annotated[str | None, typer.Option(help="Architecture of a weight file.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Decide at this cosine.")] = None,
    fmr: Annotated[
        float | None, typer.Option(help="Decide at the threshold calibrated for this false match rate.")
    ] = None,
    alignment: Annotated[str, typer.Option(help="`detect`, `aligned` or `auto`.")] = "auto",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps …")] = "cpu",
) -> None:
    """Show which regions of two faces matched, by BiLRP: lines between the faces, and a table."""
    if alignment not in ("auto", "detect", "aligned"):
        raise InputError(f"--alignment must be auto, detect or aligned, not {alignment!r}")
    from xfr_plugin.explanation.figures.matches import matches_table, write_matches
    from xfr_plugin.explanation.matches import match_regions  # Zennit is slow to import

    matches = match_regions(
        a,
        b,
        recognizer=load_recognizer(recognizer, architecture=architecture, device=device),
        composite=composite,
        threshold=threshold,
        fmr=fmr,
        alignment=alignment,  # type: ignore[arg-type]  # narrowed by the check above
    )
    picture, table = write_matches(matches, out)
    console, decision = Console(), matches.verification
    verdict = "MATCH" if decision.match else "NO MATCH"
    console.print(
        f"{verdict}  score {decision.score:.4f}, threshold {decision.threshold:.4f}", highlight=False
    )
    console.print(matches_table(matches))
    console.print(f"picture: {picture}\ntable:   {table}", highlight=False, soft_wrap=True)
