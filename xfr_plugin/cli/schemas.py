"""The command `xfr schemas`: JSON schemas of the service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from xfr_plugin.base.files import write_text
from xfr_plugin.cli.output import print_lines

app = typer.Typer()


@app.command("schemas", epilog="Example: `xfr schemas --out schemas`.")
def schemas_command(
    out: Annotated[Path, typer.Option(help="Folder for request.json, answer.json and error.json.")] = Path(
        "schemas"
    ),
) -> None:
    """Write the JSON schemas of the service's requests, answers and errors."""
    from xfr_plugin.service import json_schemas

    for name, schema in json_schemas().items():
        write_text(out / f"{name}.json", json.dumps(schema, indent=1) + "\n")
    print_lines(str(out))
