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
        Column("name", no_wrap=True),
        Column("takes", no_wrap=True),
        "threshold (EER)",
        Column("licence, source", overflow="fold"),
        show_lines=True,
    )
    for name in list_recognizers():
        card = zoo_card(name)
        threshold = f"{card.calibration.threshold:.3f}" if card.calibration else "not calibrated"
        table.add_row(
            f"{name}\narchitecture {card.architecture}",
            card.description.replace(", ", "\n"),
            threshold,
            f"{card.provenance.licence}\n{card.provenance.source}",
        )
    terminal().print(table)
