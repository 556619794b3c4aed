"""Who may use the networks at the same time.

Some methods change the network while they run: hooks, canonizers, tracing (which replaces functions of torch for the
whole process). A forward pass of another thread in that time could give a wrong score. So these run alone, and plain
forward passes run together.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["NETWORKS", "Guard"]


class Guard:
    """Any number of shared uses, or one exclusive use. Not reentrant; who waits for exclusive use goes first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._shared = 0
        self._exclusive = False
        self._waiting = 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Use the networks without changing them."""
        with self._changed:
            self._changed.wait_for(lambda: not self._exclusive and not self._waiting)
            self._shared += 1
        try:
            yield
        finally:
            with self._changed:
                self._shared -= 1
                self._changed.notify_all()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Use the networks alone in this process."""
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: not self._exclusive and not self._shared)
            self._waiting -= 1
            self._exclusive = True
        try:
            yield
        finally:
            with self._changed:
                self._exclusive = False
                self._changed.notify_all()


NETWORKS = Guard()
"""Of all networks in this process, since tracing concerns them all."""
