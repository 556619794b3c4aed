"""When to stop: long work asks here between its steps, so that nobody waits for what is worth nothing any more."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from xfr_plugin.errors import DeadlineError

__all__ = ["check_deadline", "until"]

_end: ContextVar[float] = ContextVar("end", default=float("inf"))


@contextmanager
def until(moment: float) -> Iterator[None]:
    """Let the work in the block end at this moment of `time.perf_counter`, or earlier if one around it says so."""
    token = _end.set(min(moment, _end.get()))
    try:
        yield
    finally:
        _end.reset(token)


def check_deadline(ahead: float = 0.0) -> None:
    """Go on, if there is time left.

    Args:
        ahead: seconds that the next step takes at least, where it cannot be interrupted.

    Raises:
        DeadlineError: the moment of a block around this call has passed, or will have.
    """
    if time.perf_counter() + ahead > _end.get():
        raise DeadlineError(
            "the deadline passed before the answer was ready: allow more time, or ask for less"
        )
