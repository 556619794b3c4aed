"""The command `xfr`.

Modules of commands import what is slow to import inside the commands: help and version come at once.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from xfr_plugin._version import __version__
from xfr_plugin.cli import (
    align,
    atlas,
    batch,
    bilrp,
    calibrate,
    compare,
    demo,
    download,
    evaluate,
    explain,
    methods,
    package,
    recognizers,
    reconstruct,
    report,
    schemas,
    serve,
    train,
    verify,
    web,
)
from xfr_plugin.cli.codes import EXIT_CODES
from xfr_plugin.cli.errors import command_ended, program_ended

__all__ = ["app", "main"]


class _Commands(TyperGroup):
    """A group whose commands, and theirs, end with the exit codes of `cli.codes`."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # typer's own context is click's
        with command_ended():
            return super().invoke(ctx)

    def main(self, *args: Any, **settings: Any) -> Any:
        if not settings.get("standalone_mode", True):
            return super().main(*args, **settings)
        with program_ended():
            super().main(*args, **settings)


app = typer.Typer(
    name="xfr",
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Explain face verification: which regions argue for a match, which against, and how much.",
    epilog=EXIT_CODES,
)
for _module in (verify, explain, report, compare, bilrp, methods, recognizers, download, reconstruct, atlas):
    app.add_typer(_module.app)
for _module in (batch, align, calibrate, evaluate, demo, package, serve, web, schemas):
    app.add_typer(_module.app)
app.add_typer(train.app, name="train")


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"xfr-plugin {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line."""
    app()
