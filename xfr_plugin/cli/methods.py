"""The command `xfr methods`: what is known about each attribution method."""

from __future__ import annotations

import json

import typer

from xfr_plugin.cli.options import JsonOption
from xfr_plugin.cli.output import print_document, terminal

app = typer.Typer()


@app.command("methods")
def methods_command(as_json: JsonOption = False) -> None:
    """List the attribution methods and their options."""
    from xfr_plugin.attr import METHODS
    from xfr_plugin.cli.tables import method_card, methods_table

    if as_json:
        print_document(json.dumps([method_card(method) for method in METHODS.values()], indent=1))
    else:
        terminal().print(methods_table(METHODS.values()))
