"""The command `xfr recognizers`: those that have a name."""

from __future__ import annotations

import typer
from rich.table import Column, Table

from xfr_plugin.cli.output import terminal

app = typer.Typer()


@app.command("recognizers")
def recognizers_command() -> None:
    """List the recognizers that have a name."""
    from xfr_plugin.recognition import list_recognizers, zoo_card

    table = Table(
        Column("name", no_wrap=True), "architecture", "input", "threshold (EER)", "licence", "source"
    )
    for name in list_recognizers():
        card = zoo_card(name)
        threshold = f"{card.calibration.threshold:.3f}" if card.calibration else "not calibrated"
        size = "×".join(map(str, card.input_size))
        table.add_row(
            name, card.architecture, size, threshold, card.provenance.licence, card.provenance.source
        )
    terminal().print(table)
