"""Of a server's worker processes one is kept free of slow requests: the others lock a file while they are slow."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["SlowLane"]


class SlowLane:
    """Whether this process may be slow now: fewer processes at a time may than there are.

    The locks end with their process, however it ends.

    Args:
        folder: where the files are; the same for all processes of a server, and for no others.
        workers: how many processes there are; a single one may always be slow.
    """

    def __init__(self, folder: Path, workers: int) -> None:
        self._files = [folder / f"slow-{number}.lock" for number in range(max(workers - 1, 1))]
        self._held: int | None = None

    @contextmanager
    def batch(self) -> Iterator[None]:
        """The work in which `enter` may be called; what it took is given back at the end."""
        try:
            yield
        finally:
            if self._held is not None:
                os.close(self._held)
                self._held = None

    def enter(self) -> bool:
        """Whether this process may be slow until the end of the batch. It never waits: who waits is not free."""
        for file in self._files:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
            else:
                self._held = descriptor
                return True
        return False
