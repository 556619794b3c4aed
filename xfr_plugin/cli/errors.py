"""How commands end: exit codes, and our errors and warnings as single lines."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from xfr_plugin.errors import FaceWarning, XfrError

__all__ = [
    "EXIT_BAD_INPUT",
    "EXIT_CODES",
    "EXIT_MATCH",
    "EXIT_NON_MATCH",
    "EXIT_STOPPED",
    "errors_as_lines",
]

EXIT_MATCH, EXIT_NON_MATCH, EXIT_BAD_INPUT = 0, 1, 2
EXIT_STOPPED = 130
"""Interrupted by Ctrl-C, as shells have it."""

EXIT_CODES = (
    "Exit codes: 0 success (verify: match), 1 verify: no match, 2 bad input, with one line on stderr."
)
"""For people."""


@contextmanager
def errors_as_lines() -> Iterator[None]:
    """Turn our errors and impossible values into one line on stderr and exit code 2, and our warnings into lines."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FaceWarning)
        try:
            yield
        except XfrError as error:
            raise _refused(str(error)) from error
        except typer.BadParameter as error:
            if type(error) is not typer.BadParameter:  # an argument is missing: typer shows the usage
                raise
            message = error.format_message().replace(
                ": Value error, ", ": "
            )  # some versions prefix the latter
            raise _refused(message) from error
        finally:
            for warning in caught:
                typer.echo(f"xfr: warning: {warning.message}", err=True)


def _refused(message: str) -> typer.Exit:
    typer.echo(f"xfr: error: {message}", err=True)
    return typer.Exit(EXIT_BAD_INPUT)
