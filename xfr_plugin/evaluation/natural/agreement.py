"""How far what is said of regions agrees with what was measured."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Regional", "agreements"]

Vector = NDArray[np.float64]
"""A number for each player."""


class Regional(NamedTuple):
    """What was measured of the regions of a face; what lies around it is left out.

    Attributes:
        true: Shapley values, R.
        area: shares of the face, R; 0 of a region that is not seen.
        level: what must be reached for a match, over what an empty face scores: τ − v(∅).
    """

    true: Vector
    area: Vector
    level: float


def agreements(said: Vector, truth: Regional, level: float = 0.0) -> dict[str, float]:
    """Compare evidence by region, R, with the truth, over the regions that are seen.

    Args:
        said: evidence by region, R.
        truth: what was measured.
        level: of `said`, if it adds up to a score and not to a margin; see `Regional`.

    Returns:
        `total`, `rank`: linear and rank correlation of the sums over regions, as they are; `density`: of sums by
        area; `excess`: of what the sums are over those of an even map of the same whole; `sign`: share of the regions
        of which both are for a match, or both against, levels being taken off by area; `most for`, `most against`: 1
        if the region of the highest, lowest density is the same. NaN where a side is constant.
    """
    from scipy.stats import rankdata  # takes its time to import

    seen = truth.area > 0
    said, true, area = said[seen], truth.true[seen], truth.area[seen]
    return {
        "total": _correlation(said, true),
        "rank": _correlation(rankdata(said), rankdata(true)),
        "density": _correlation(said / area, true / area),
        "excess": _correlation(said - area * said.sum(), true - area * true.sum()),
        "sign": float(np.mean(np.sign(said - level * area) == np.sign(true - truth.level * area))),
        "most for": float(np.argmax(said / area) == np.argmax(true / area)),
        "most against": float(np.argmin(said / area) == np.argmin(true / area)),
    }


def _correlation(first: Vector, second: Vector) -> float:
    if np.ptp(first) <= 1e-12 or np.ptp(second) <= 1e-12:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])
