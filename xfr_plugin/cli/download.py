"""The command `xfr download`: public weights, once."""

from __future__ import annotations

from typing import Annotated

import typer

from xfr_plugin.cli.output import print_lines
from xfr_plugin.errors import InputError

app = typer.Typer()


@app.command("download")
def download_command(name: Annotated[str, typer.Argument(help="Name of a recognizer.")]) -> None:
    """Download the public weights of a recognizer once, and verify their checksum."""
    from xfr_plugin.recognition import zoo_card
    from xfr_plugin.recognition.download import download_weights

    weights = zoo_card(name).weights
    if weights is None:
        raise InputError(f"{name} ships with the package: there is nothing to download")
    if weights.url is None:
        raise InputError(
            f"the weights of {name} have no public address: put {weights.file} into weights/ of XFR_DATA"
        )
    print_lines(str(download_weights(weights.url, weights.sha256, weights.file, progress=True)))
