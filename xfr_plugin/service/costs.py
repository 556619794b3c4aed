"""How long a method will take here, and which faster one keeps a deadline."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from xfr_plugin.attr.registry import get_method, preferred_methods

__all__ = ["CostBook"]

_SAFETY = 1.5
_LEARNING = 0.3


class CostBook:
    """Seconds that each method takes for a pair: first estimated from a forward pass, then learnt from its runs.

    Pairs of a gallery are learnt apart: they share what the probe costs.

    Args:
        forward_seconds: time of a forward pass of a pair.
    """

    def __init__(self, forward_seconds: float) -> None:
        self._forward_seconds = forward_seconds
        self._seconds: dict[tuple[str, bool], float] = {}
        self._lock = threading.Lock()

    def estimate(self, method: str, gallery: bool = False) -> float:
        """Seconds for a pair, by itself or of a gallery."""
        estimated = get_method(method).relative_cost * self._forward_seconds
        return self._seconds.get((method, gallery), estimated)

    def learn(self, method: str, seconds: float, gallery: bool = False) -> None:
        """Take note of how long a pair took."""
        with self._lock:
            known = self.estimate(method, gallery)
            self._seconds[method, gallery] = known + _LEARNING * (seconds - known)

    def fits(self, method: str, seconds_left: float, gallery: bool = False) -> bool:
        """Whether a method is likely to be done in this time."""
        return _SAFETY * self.estimate(method, gallery) <= seconds_left

    def faster(self, possible: Iterable[str], seconds_left: float, gallery: bool = False) -> str | None:
        """The method to take instead: the best that fits. Known to be good ones come first, then the slower ones."""
        fitting = [name for name in possible if self.fits(name, seconds_left, gallery)]
        for method in preferred_methods():
            if method.name in fitting:
                return method.name
        return max(fitting, key=lambda name: self.estimate(name, gallery), default=None)
