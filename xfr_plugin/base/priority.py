"""Work that others may overtake."""

from __future__ import annotations

import contextlib
import contextvars
import os
import sys
import threading
from collections.abc import Callable

__all__ = ["at_low_priority"]

_NICE = 10
"""A tenth of the time of a core that another thread wants, and all that nobody wants."""


def at_low_priority(work: Callable[[], None]) -> None:
    """Do what raises nothing in a thread that gives way to all others of the machine; wait for it.

    A thread of its own, as a priority that was given up cannot be had back. On Linux; elsewhere at the same priority.
    """
    context = contextvars.copy_context()

    def run() -> None:
        if sys.platform == "linux":  # where threads have priorities of their own
            nice = os.getpriority(os.PRIO_PROCESS, 0) + _NICE
            with contextlib.suppress(OSError):  # of a sandbox that forbids it
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
        context.run(work)

    thread = threading.Thread(target=run, name="xfr-slow")
    thread.start()
    thread.join()
