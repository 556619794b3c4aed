"""How far a run has come, and how long it will still take."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

__all__ = ["Clock", "Progress", "Step"]


class Step(NamedTuple):
    """What has been done of a stage.

    Attributes:
        stage: in words.
        done: what is done, in earlier runs too.
        total: what there is to do.
        remaining: estimated seconds for the rest of the stage; None as long as nothing is known.
    """

    stage: str
    done: int
    total: int
    remaining: float | None


Progress: TypeAlias = Callable[[Step], None]


class Clock:
    """Tells of the steps of a stage.

    Args:
        stage: in words.
        done: what earlier runs have done.
        total: what there is to do.
        tell: called with each step; None tells nobody.
    """

    def __init__(self, stage: str, done: int, total: int, tell: Progress | None) -> None:
        self.stage, self.before, self.done, self.total, self.tell = stage, done, done, total, tell
        self.start = time.perf_counter()
        self.passed(0)

    def passed(self, count: int) -> None:
        """Note that so much more is done."""
        self.done += count
        if self.tell is None:
            return
        new = self.done - self.before
        seconds = time.perf_counter() - self.start
        remaining = seconds / new * (self.total - self.done) if new else None
        self.tell(Step(self.stage, self.done, self.total, remaining))
