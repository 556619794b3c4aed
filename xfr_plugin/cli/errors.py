"""How commands end: an exit code for everything that can happen, and errors and warnings as single lines.

Python, click and rich end a program that failed with 1, which from `xfr verify` means "no match".
"""

from __future__ import annotations

import codecs
import errno
import io
import json
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

import typer

from xfr_plugin.base.files import reason
from xfr_plugin.base.text import printable
from xfr_plugin.cli.codes import (
    EXIT_BAD_INPUT,
    EXIT_CLOSED_PIPE,
    EXIT_FAILED,
    EXIT_MATCH,
    EXIT_STOPPED,
    EXIT_UNWRITTEN,
    Ended,
)
from xfr_plugin.errors import FaceWarning, XfrError

__all__ = ["command_ended", "program_ended"]

_UsageError: type[Exception] = typer.BadParameter.__bases__[0]  # typer does not export it
_ENDS_OF_CLICK = (EXIT_MATCH, EXIT_BAD_INPUT, EXIT_STOPPED)
"""Success, help and version; wrong usage; interrupted while arguments were read."""


_OF_OUTPUT = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
"""What goes wrong when a stream is written to: no reader, no space, too large, a broken disk, closed."""


@contextmanager
def command_ended() -> Iterator[None]:
    """Give whatever ends a command its exit code: `Ended` is raised for all but success and click's own exceptions.

    Our errors, impossible values and warnings become lines on stderr; of any other error there is one line too.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FaceWarning)
        try:
            yield
        except XfrError as error:
            raise _refused(str(error)) from error
        except _UsageError as error:
            if type(error) is not typer.BadParameter:  # an argument is missing: typer shows the usage
                raise
            message = error.format_message().replace(
                ": Value error, ", ": "
            )  # some versions prefix the latter
            raise _refused(message) from error
        except (Ended, typer.Exit, typer.Abort):
            raise
        except BaseException as error:
            raise _failed(error) from error
        finally:
            for message in dict.fromkeys(str(warning.message) for warning in caught):
                _say(f"xfr: warning: {message}")


@contextmanager
def program_ended() -> Iterator[None]:
    """End the program with an exit code of the list, once everything is written; always raises `Ended`.

    What the encoding of the output lacks is written as JSON and Python escape it.
    """
    _prepare_streams()
    try:
        yield
        code = EXIT_MATCH
    except Ended as end:
        code = int(str(end.code))
    except SystemExit as end:
        if end.code not in _ENDS_OF_CLICK:
            raise _failed(end) from end
        code = int(str(end.code))
    except BaseException as error:
        raise _failed(error) from error
    try:
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        raise _unwritten(error) from error
    raise Ended(code)


def _refused(message: str) -> Ended:
    _say(f"xfr: error: {message}")
    return Ended(EXIT_BAD_INPUT)


def _failed(error: BaseException) -> Ended:
    """The end that an error means which nobody foresaw."""
    if isinstance(error, KeyboardInterrupt):
        _say("xfr: interrupted")
        return Ended(EXIT_STOPPED)
    for cause in (error, error.__context__):  # rich exits by itself where a pipe is closed
        if isinstance(cause, OSError) and cause.filename is None and cause.errno in _OF_OUTPUT:
            return _unwritten(cause)
    if os.environ.get("XFR_TRACEBACK"):
        for line in "".join(traceback.format_exception(error)).splitlines():
            _say(line)
    text = " ".join(str(error).split())
    _say(
        f"xfr: error: {type(error).__name__}: {text} (not foreseen: XFR_TRACEBACK=1 shows where it came from)"
    )
    return Ended(EXIT_FAILED)


def _unwritten(error: OSError | ValueError) -> Ended:
    _discard(sys.stdout)
    if isinstance(error, BrokenPipeError):
        return Ended(EXIT_CLOSED_PIPE)
    _say(f"xfr: error: the output cannot be written: {reason(error)}")
    return Ended(EXIT_UNWRITTEN)


def _prepare_streams() -> None:
    """Let no character fail, and no file of ours take the place of a stream that is closed."""
    codecs.register_error("xfr.escaped", _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="xfr.escaped")
    if sys.stderr is None:
        os.open(os.devnull, os.O_WRONLY)
    if sys.stdout is None:
        _say("xfr: error: the standard output is closed: where should the answer go?")
        raise Ended(EXIT_UNWRITTEN)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def _say(line: str) -> None:
    """Write a line to stderr; where that cannot be written to, there is nobody to tell."""
    try:
        typer.echo(printable(line), err=True)
    except (OSError, ValueError):
        _discard(sys.stderr)


def _discard(stream: TextIO) -> None:
    """Send what a stream still holds nowhere, or Python would try again at exit, and end with a code of its own."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
