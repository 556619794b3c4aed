"""Worker processes on this machine, which end when their parent does."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from xfr_plugin.errors import InputError

__all__ = ["cores", "end_processes", "pickled", "started_processes"]


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pickled(value: Any, name: str) -> bytes:
    """A value for other processes.

    Args:
        value: any.
        name: of the recognizer in it, which alone may be what cannot be sent.

    Raises:
        InputError: it cannot be sent.
    """
    try:
        return pickle.dumps(value)
    except Exception as error:
        raise InputError(
            f"the recognizer {name!r} cannot be sent to other processes ({error}): use one worker"
        ) from error


def started_processes(count: int, start: Callable[..., object], *arguments: Any) -> ProcessPoolExecutor:
    """New processes, each of which calls `start` with these arguments before its first job.

    They are spawned: what they are given is pickled, and a script that starts them has its work under
    `if __name__ == "__main__"`.
    """
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(count, mp_context=spawn, initializer=_begin, initargs=(start, arguments))


def end_processes(pool: ProcessPoolExecutor) -> None:
    """End the processes of a pool: what they are doing is lost, and nobody waits for it."""
    running = list((pool._processes or {}).values())  # there is no other way to them before Python 3.14
    pool.shutdown(wait=False, cancel_futures=True)
    for process in running:
        process.kill()  # one that is stopped would not take notice of less
    for process in running:
        process.join()


def _begin(start: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the parent's, which then ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    start(*arguments)


def _end_with_parent() -> None:
    """End this process when its parent was killed, which cannot do so itself."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
