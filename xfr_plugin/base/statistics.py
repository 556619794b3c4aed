"""Blurred maps, rank correlations, ratios."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xfr_plugin.errors import InputError

__all__ = [
    "SMOOTHING",
    "checked_smoothing",
    "map_correlations",
    "rank_correlations",
    "ratio",
    "smoothed",
]

SMOOTHING = 0.04
"""σ of the blur before maps are correlated, as a share of the face's height: 4.5 pixels of 112."""


def rank_correlations(samples: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """Spearman's rank correlations K×K of K samples of equal length; NaN where a sample is constant."""
    from scipy.stats import rankdata  # takes its time to import

    if not len(samples):
        return np.empty((0, 0))
    ranks = rankdata(np.asarray(samples), axis=1)
    centred = ranks - ranks.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = ratio(centred, norms)
    correlations: NDArray[np.float64] = np.clip(unit @ unit.T, -1, 1)
    return correlations


def checked_smoothing(smoothing: float) -> float:
    """Return a σ that `smoothed` takes.

    Raises:
        InputError: it is none.
    """
    if not 0 <= smoothing < 1:
        raise InputError(f"smoothing is a share of the face's height, 0 … 1, got {smoothing:g}")
    return float(smoothing)


def smoothed(values: NDArray[np.floating], smoothing: float = SMOOTHING) -> NDArray[np.float64]:
    """A map H×W blurred by a Gaussian, σ as a share of its height; 0 leaves it as it is."""
    from scipy.ndimage import gaussian_filter  # takes its time to import

    exact = values.astype(np.float64)
    return exact if smoothing == 0 else np.asarray(gaussian_filter(exact, smoothing * len(exact)))


def map_correlations(
    maps: Sequence[NDArray[np.floating]], inside: NDArray[np.bool_], smoothing: float = SMOOTHING
) -> NDArray[np.float64]:
    """Rank correlations K×K of maps H×W over the pixels of a mask, blurred first; NaN where a map is constant."""
    return rank_correlations([smoothed(values, smoothing)[inside] for values in maps])


def ratio(values: NDArray[np.float64], by: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values over positive numbers, broadcast to their shape; NaN where these are none."""
    divisors = np.broadcast_to(by, values.shape)
    return np.divide(values, divisors, out=np.full_like(values, np.nan), where=divisors > 0)
