"""How long a method will take here, and which faster one keeps a deadline."""

from __future__ import annotations

import threading
from collections.abc import Iterable

__all__ = ["RELATIVE_COST", "CostBook"]

RELATIVE_COST: dict[str, float] = {
    "reconstruction": 0.3,
    "amortised": 5,
    "gradcam_plus_plus": 4.5,
    "gradcam": 4.5,
    "input_x_gradient": 4.5,
    "xssab": 5,
    "deeplift": 9,
    "ebp": 24,
    "lrp": 28,
    "counterfactual": 75,
    "smoothgrad": 115,
    "integrated_gradients": 155,
    "fggb": 160,
    "kernel_shap": 245,
    "replacement": 260,
    "occlusion": 260,
    "lime": 265,
    "exchange": 290,
    "mery_avg": 305,
    "fame": 390,
    "corrrise": 400,
    "srise": 430,
    "score_cam": 530,
    "channel_relevance": 560,
    "xface": 1000,
    "minplus": 1100,
}
"""Time of a method in forward passes of a pair, before it has run here (`benchmarks/serving_costs.py`)."""

_PREFERRED = ("amortised", "counterfactual", "reconstruction", "xssab")
_SAFETY = 1.5
_LEARNING = 0.3


class CostBook:
    """Seconds that each method takes for a pair: first estimated from a forward pass, then learnt from its runs.

    Args:
        forward_seconds: time of a forward pass of a pair.
    """

    def __init__(self, forward_seconds: float) -> None:
        self._seconds = {name: cost * forward_seconds for name, cost in RELATIVE_COST.items()}
        self._slowest = max(self._seconds.values())
        self._lock = threading.Lock()

    def estimate(self, method: str) -> float:
        """Seconds for a pair."""
        return self._seconds.get(method, self._slowest)

    def learn(self, method: str, seconds: float) -> None:
        """Take note of how long a pair took."""
        with self._lock:
            known = self.estimate(method)
            self._seconds[method] = known + _LEARNING * (seconds - known)

    def fits(self, method: str, seconds_left: float) -> bool:
        """Whether a method is likely to be done in this time."""
        return _SAFETY * self.estimate(method) <= seconds_left

    def faster(self, possible: Iterable[str], seconds_left: float) -> str | None:
        """The method to take instead: the best that fits. Known to be good ones come first, then the slower ones."""
        fitting = [name for name in possible if self.fits(name, seconds_left)]
        for name in _PREFERRED:
            if name in fitting:
                return name
        return max(fitting, key=self.estimate, default=None)
