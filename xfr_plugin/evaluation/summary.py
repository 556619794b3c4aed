"""From scores of single maps to a table with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from xfr_plugin.evaluation.planted import PlantedScore

__all__ = ["MOVED", "Interval", "PlantedSummary", "bootstrap_mean", "summarise"]

MOVED = 0.1
"""Plantings that move the score by more than this are also summarised on their own: the others the recognizer
hardly noticed."""

_RESAMPLES = 2000


class Interval(BaseModel):
    """A mean with its 95 % bootstrap interval."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    low: float
    high: float


class PlantedSummary(BaseModel):
    """Scores of one method in one game.

    Attributes:
        method: name.
        game: dissimilar or similar.
        count: number of maps.
        auc: pixel AUC inside the face.
        top1: share of maps whose most salient region is the planted one.
        energy: energy ratio.
        pointing: share of maps whose highest pixel is in the region.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    game: str
    count: int
    auc: Interval
    top1: Interval
    energy: Interval
    pointing: Interval


def bootstrap_mean(values: Sequence[float], seed: int = 0) -> Interval:
    """Mean and percentile interval over resampled maps; the same seed gives the same interval."""
    array = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    means = array[rng.integers(len(array), size=(_RESAMPLES, len(array)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(mean=float(array.mean()), low=float(low), high=float(high))


def summarise(
    scores: Iterable[PlantedScore], keep: Callable[[PlantedScore], bool] = lambda score: True
) -> list[PlantedSummary]:
    """Summarise by method and game, in order of appearance; groups of which nothing is kept are left out."""
    groups: dict[tuple[str, str], list[PlantedScore]] = {}
    for score in scores:
        if keep(score):
            groups.setdefault((score.method, score.game), []).append(score)
    return [
        PlantedSummary(
            method=method,
            game=game,
            count=len(group),
            auc=bootstrap_mean([score.auc for score in group]),
            top1=bootstrap_mean([float(score.hit) for score in group]),
            energy=bootstrap_mean([score.energy for score in group]),
            pointing=bootstrap_mean([float(score.pointing) for score in group]),
        )
        for (method, game), group in groups.items()
    ]
