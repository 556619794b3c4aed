"""The command `xfr web`: a page on this machine."""

from __future__ import annotations

import webbrowser
from typing import Annotated

import typer

from xfr_plugin.base.choices import DEFAULT_RECOGNIZER
from xfr_plugin.cli.options import ArchitectureOption, FmrOption, RecognizerOption, ThresholdOption
from xfr_plugin.cli.output import print_lines, working
from xfr_plugin.errors import InputError

app = typer.Typer()

_PATIENCE_MS = 300_000  # of one person at a machine that may be slow
_LARGE = {"image_bytes": 24 << 20, "json_bytes": 65 << 20, "pixels": 50_000_000, "scan_pixels": 10**9}
"""Photographs as cameras and phones make them, two in a request."""


@app.command("web", epilog="Example: `xfr web`.")
def web_command(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 is any free one.")] = 0,
    open_browser: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in the browser.")
    ] = True,
    recognizer: RecognizerOption = DEFAULT_RECOGNIZER,
    architecture: ArchitectureOption = None,
    threshold: ThresholdOption = None,
    fmr: FmrOption = None,
) -> None:
    """Open a page on this machine, for nobody else: two photographs, the decision, and what argues for it."""
    with working("loading"):
        try:
            from xfr_plugin.asgi.page import serve_page
        except ModuleNotFoundError as error:
            if error.name not in ("fastapi", "python_multipart", "uvicorn", "yaml"):
                raise
            raise InputError(f"{error.name} is not installed: pip install 'xfr-plugin[web]'") from error
        from xfr_plugin.service.deployment import read_deployment

    settings = {
        "limits": {**_LARGE, "deadline_ms": _PATIENCE_MS},
        "thrifty": False,
        "embeddings": True,  # of the folder's faces, for the page alone: why one and not the next
        "recognizer": recognizer,
        "architecture": architecture,
        "threshold": threshold,
        "fmr": fmr,
    }
    deployment = read_deployment({name: value for name, value in settings.items() if value is not None})

    def said(url: str) -> None:
        print_lines(f"page: {url}", "stop: Ctrl-C")
        if open_browser:
            webbrowser.open(url)

    serve_page(deployment, port, said)
    print_lines("stopped")
