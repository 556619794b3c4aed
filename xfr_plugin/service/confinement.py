"""The last line of a worker process: what it may take of the machine, whatever a request makes it do."""

from __future__ import annotations

import resource
import signal

from xfr_plugin.service.limits import Limits

__all__ = ["allow_batch", "confine"]


def confine(limits: Limits) -> None:
    """Bound this process's private memory: an allocation beyond it fails with MemoryError, and its request with it.

    No core is dumped, as it would hold faces.
    """
    _lower(resource.RLIMIT_DATA, limits.memory_mib << 20)
    _lower(resource.RLIMIT_CORE, 0)


def allow_batch(limits: Limits) -> None:
    """Give this process CPU time for a batch. The kernel ends a process that takes more: no code can hold it up.

    A timer, and not RLIMIT_CPU, which counts from the process's start: by the kernel's ticks, of which the longer a
    process lives, the further its own clocks are away.
    """
    signal.setitimer(signal.ITIMER_PROF, limits.cpu_seconds)


def _lower(what: int, most: int) -> None:
    """Set the limit that counts, which can be raised again up to the hard one."""
    hard = resource.getrlimit(what)[1]
    resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
