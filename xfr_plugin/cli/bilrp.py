"""The command `xfr bilrp`: which regions of two faces matched."""

from __future__ import annotations

from typing import Annotated

import typer

from xfr_plugin.base.choices import DEFAULT_RECOGNIZER
from xfr_plugin.base.files import check_targets
from xfr_plugin.cli.options import (
    DEFAULT_OUT,
    AlignmentOption,
    ArchitectureOption,
    DeviceOption,
    FmrOption,
    OutOption,
    PhotoA,
    PhotoB,
    RecognizerOption,
    ThresholdOption,
)
from xfr_plugin.cli.output import print_decision, print_lines, terminal

app = typer.Typer()


@app.command("bilrp", epilog="Example: `xfr bilrp a.jpg b.jpg --out result`.")
def bilrp_command(
    a: PhotoA,
    b: PhotoB,
    out: OutOption = DEFAULT_OUT,
    by: Annotated[str, typer.Option(help="`bilrp`, or `shapley` for any recognizer.")] = "bilrp",
    composite: Annotated[str, typer.Option(help="Rules: `auto`, or a composite's name.")] = "auto",
    recognizer: RecognizerOption = DEFAULT_RECOGNIZER,
    architecture: ArchitectureOption = None,
    threshold: ThresholdOption = None,
    fmr: FmrOption = None,
    alignment: AlignmentOption = "auto",
    device: DeviceOption = "cpu",
) -> None:
    """Show which regions of two faces matched, by BiLRP or Shapley values: lines between the faces, and a table."""
    check_targets((out / "bilrp.png", out / "bilrp.csv"), (a, b, recognizer))
    from xfr_plugin.explanation.figures.matches import matches_table, write_matches
    from xfr_plugin.explanation.matches import match_regions
    from xfr_plugin.recognition import load_recognizer

    matches = match_regions(
        a,
        b,
        recognizer=load_recognizer(recognizer, architecture=architecture, device=device),
        by=by,  # type: ignore[arg-type]  # checked there
        composite=composite,
        threshold=threshold,
        fmr=fmr,
        alignment=alignment,
    )
    picture, table = write_matches(matches, out)
    print_decision(matches.verification)
    terminal().print(matches_table(matches))
    print_lines(f"picture: {picture}", f"table:   {table}")
