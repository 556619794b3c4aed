"""How far a run is, and how long the rest takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from xfr_plugin.attr.registry import Method

__all__ = ["Clock", "Progress", "Step"]


class Step(NamedTuple):
    """What has been done of a run: one method on one pair.

    Attributes:
        method: its name.
        done: steps done, those of earlier runs included.
        total: steps in all.
        remaining: estimated seconds for the rest; None as long as nothing is known.
    """

    method: str
    done: int
    total: int
    remaining: float | None


Progress: TypeAlias = Callable[[Step], None]


class Clock:
    """Counts steps and estimates the time left, from the mean time of each method in this run.

    Args:
        methods: of the run.
        pairs: number of pairs that each explains.
    """

    def __init__(self, methods: Sequence[Method], pairs: int) -> None:
        self.left = {method.name: pairs for method in methods}
        self.total = pairs * len(methods)
        self.seconds: dict[str, list[float]] = {method.name: [] for method in methods}

    def passed(self, method: str, seconds: float | None) -> None:
        """A step is done; without seconds there was nothing to do."""
        self.left[method] -= 1
        if seconds is not None:
            self.seconds[method].append(seconds)

    def step(self, method: str) -> Step:
        """Where the run is, after a step of a method."""
        known = [name for name, seconds in self.seconds.items() if seconds]
        remaining = None
        if len(known) == len(self.seconds) or not any(self.left.values()):
            remaining = sum(self.left[name] * float(np.mean(self.seconds[name][-20:])) for name in known)
        return Step(method, self.total - sum(self.left.values()), self.total, remaining)
