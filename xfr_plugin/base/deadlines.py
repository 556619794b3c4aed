"""When to stop: long work asks here between its steps, so that nobody waits for what is worth nothing any more."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from xfr_plugin.errors import DeadlineError

__all__ = ["check_deadline", "until"]

_FAR = float("inf")
_ends: ContextVar[tuple[float, float]] = ContextVar("ends", default=(_FAR, _FAR))
"""Of `time.perf_counter`, and of `time.thread_time`."""


@contextmanager
def until(moment: float, cpu_moment: float = _FAR) -> Iterator[None]:
    """Let the work in the block end at this moment of `time.perf_counter`, or earlier if one around it says so.

    Args:
        moment: when the answer is worth nothing any more.
        cpu_moment: of `time.thread_time`, where it matters how much is computed, however busy the machine is.
    """
    moments = _ends.get()
    token = _ends.set((min(moment, moments[0]), min(cpu_moment, moments[1])))
    try:
        yield
    finally:
        _ends.reset(token)


def check_deadline(ahead: float = 0.0, later: float = 0.0) -> None:
    """Go on, if there is time left.

    Args:
        ahead: seconds of CPU time that the next step takes at least, where it cannot be interrupted.
        later: seconds of CPU time that the steps after it take, about. Where CPU time is bounded, what would not be
            ended is not begun.

    Raises:
        DeadlineError: the moment of a block around this call has passed, or will have.
    """
    end, cpu_end = _ends.get()
    if time.perf_counter() + ahead > end or (cpu_end < _FAR and time.thread_time() + ahead + later > cpu_end):
        raise DeadlineError(
            "the deadline passed before the answer was ready: allow more time, or ask for less"
        )
