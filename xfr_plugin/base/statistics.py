"""Means with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

__all__ = ["RESAMPLES", "Interval", "bootstrap_mean"]


RESAMPLES = 2000
"""Draws behind an interval."""


class Interval(BaseModel):
    """A mean with its 95 % bootstrap interval."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    low: float
    high: float


def bootstrap_mean(values: Sequence[float], seed: int = 0) -> Interval:
    """Mean and percentile interval over resampled maps; the same seed gives the same interval."""
    array = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    means = array[rng.integers(len(array), size=(RESAMPLES, len(array)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(mean=float(array.mean()), low=float(low), high=float(high))
