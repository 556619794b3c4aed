"""Exit codes: what each of them says, and to nobody but `xfr verify` do 0 and 1 mean a decision."""

from __future__ import annotations

__all__ = [
    "EXIT_BAD_INPUT",
    "EXIT_CLOSED_PIPE",
    "EXIT_CODES",
    "EXIT_FAILED",
    "EXIT_MATCH",
    "EXIT_NON_MATCH",
    "EXIT_STOPPED",
    "EXIT_UNWRITTEN",
    "Ended",
]

EXIT_MATCH, EXIT_NON_MATCH, EXIT_BAD_INPUT = 0, 1, 2

EXIT_FAILED = 70
"""A fault of the program (EX_SOFTWARE of sysexits.h)."""

EXIT_UNWRITTEN = 74
"""The answer could not be written (EX_IOERR)."""

EXIT_STOPPED, EXIT_CLOSED_PIPE = 130, 141
"""Interrupted by Ctrl-C, and nobody reads any more; as shells have it for SIGINT and SIGPIPE."""

EXIT_CODES = (
    "Exit codes: 0 success (verify: match), 1 verify: no match, and nothing else; 2 bad input, with one line on "
    "stderr; 70 a fault of the program (`XFR_TRACEBACK=1` shows where); 74 the output cannot be written; "
    "130 interrupted; 141 the reader of the output went away."
)
"""For people."""


class Ended(SystemExit):
    """The end of a command by a code of this list. Libraries end programs too, by codes that mean other things."""
