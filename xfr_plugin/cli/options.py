"""Arguments and options that several commands share, and how the values of some are read."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import typer

from xfr_plugin.base.choices import Alignment
from xfr_plugin.base.documents import RepeatedKeyError, read_json
from xfr_plugin.errors import InputError

__all__ = [
    "DEFAULT_OUT",
    "AlignmentOption",
    "ArchitectureOption",
    "CheckOption",
    "DecoderOption",
    "DeviceOption",
    "FaceAOption",
    "FaceBOption",
    "FmrOption",
    "JsonOption",
    "MethodOptions",
    "OptionOfMethod",
    "OutOption",
    "PhotoA",
    "PhotoB",
    "RecognizerOption",
    "SeedOption",
    "ServerOption",
    "ThresholdOption",
    "TokenOption",
    "names",
    "options_by_method",
    "read_options",
]


def _importable(recognizer: str) -> str:
    """Find modules of `module:factory` where the command was started, as `python -m` does."""
    if ":" in recognizer and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    return recognizer


PhotoA: TypeAlias = Annotated[Path, typer.Argument(metavar="A", help="Probe photo.")]
PhotoB: TypeAlias = Annotated[Path, typer.Argument(metavar="B", help="Reference photo.")]

RecognizerOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--recognizer",
        "-r",
        help="Name (see `xfr recognizers`), file (weights, .onnx, .xml, or a card of `xfr calibrate`), "
        "https://…#sha256=…, or module:factory, which runs code of yours.",
        callback=_importable,
    ),
]
ArchitectureOption: TypeAlias = Annotated[
    str | None, typer.Option(help="Architecture of a weight file; found from its keys if left out.")
]
DecoderOption: TypeAlias = Annotated[
    str | None,
    typer.Option(help="Decoder: name or file; the one that ships for the recognizer, if left out."),
]
DeviceOption: TypeAlias = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps …")]
ThresholdOption: TypeAlias = Annotated[float | None, typer.Option(help="Decide at this cosine.")]
FmrOption: TypeAlias = Annotated[
    float | None, typer.Option(help="Decide at the threshold calibrated for this false match rate.")
]
AlignmentOption: TypeAlias = Annotated[
    Alignment,
    typer.Option(help="`detect` a face, take photos as `aligned` crops, or `auto` by their size."),
]
FaceAOption: TypeAlias = Annotated[int, typer.Option(help="Which face of A: 0 is the largest.")]
FaceBOption: TypeAlias = Annotated[int, typer.Option(help="Which face of B: 0 is the largest.")]
SeedOption: TypeAlias = Annotated[int, typer.Option(help="Of everything random.")]

OptionOfMethod: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", help="Option of the method, as name=value; repeatable."),
]
MethodOptions: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", help="Option of a method, as method.name=value; repeatable."),
]
CheckOption: TypeAlias = Annotated[
    bool, typer.Option("--check", help="Also test whether the score follows what the maps point at.")
]

OutOption: TypeAlias = Annotated[Path, typer.Option(help="Folder for what is written.")]
DEFAULT_OUT = Path("xfr-out")
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]

ServerOption: TypeAlias = Annotated[
    str | None, typer.Option(help="Ask this server, e.g. http://127.0.0.1:8080.")
]
TokenOption: TypeAlias = Annotated[
    Path | None, typer.Option("--token-file", help="Key file of the server, as `xfr serve` prints it.")
]


def names(text: str) -> list[str] | Literal["all"]:
    """Read names with commas between them, or `all`."""
    return "all" if text == "all" else [name.strip() for name in text.split(",") if name.strip()]


def read_options(pairs: Sequence[str] | None) -> dict[str, Any]:
    """Read name=value pairs; values are JSON where they can be, or Python's True, False and None; text otherwise.

    Raises:
        InputError: one is no such pair.
    """
    options: dict[str, Any] = {}
    for pair in pairs or ():
        name, separator, value = pair.partition("=")
        if not separator:
            raise InputError(f"--option takes name=value, got {pair!r}")
        if name in options:
            raise InputError(f"--option {name} is given twice")
        try:
            options[name] = read_json(value)
        except RepeatedKeyError as error:
            raise InputError(f"--option {name}: {error}") from None
        except ValueError:
            options[name] = _PYTHON.get(value, value)
    return options


_PYTHON = {"True": True, "False": False, "None": None}


def options_by_method(pairs: Sequence[str] | None) -> dict[str, dict[str, Any]]:
    """Read method.name=value pairs, as `read_options` does.

    Raises:
        InputError: one is no such pair.
    """
    options: dict[str, dict[str, Any]] = {}
    for name, value in read_options(pairs).items():
        method, separator, option = name.partition(".")
        if not separator:
            raise InputError(f"--option takes method.name=value, got {name!r}")
        options.setdefault(method, {})[option] = value
    return options
