"""Does a map point at the right place? Scores of a saliency map against a known region."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from xfr_plugin.errors import InputError

__all__ = ["energy_ratio", "most_salient_region", "pixel_auc", "points_inside"]

Map = NDArray[np.floating]
Mask = NDArray[np.bool_]


def pixel_auc(saliency: Map, truth: Mask, inside: Mask) -> float:
    """Probability that a pixel of the true region is more salient than another pixel of the face (ties: half).

    Args:
        saliency: H×W; higher means more salient.
        truth: H×W, the true region.
        inside: H×W, the face; only its pixels are compared.

    Raises:
        InputError: shapes differ, or one of the two sets is empty.
    """
    _check(saliency, truth, inside)
    values, is_true = saliency[inside], truth[inside]
    positives = int(is_true.sum())
    negatives = is_true.size - positives
    if not positives or not negatives:
        raise InputError("pixel AUC needs pixels of the face inside and outside the true region")
    ranks = rankdata(values)
    return float((ranks[is_true].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def most_salient_region(saliency: Map, regions: Mapping[str, Mask]) -> str:
    """Name of the region with the highest mean saliency.

    Raises:
        InputError: no regions, or an empty one.
    """
    if not regions or not all(mask.any() for mask in regions.values()):
        raise InputError("regions to choose from must not be empty")
    means = {name: float(saliency[mask].mean()) for name, mask in regions.items()}
    return max(means, key=means.__getitem__)


def energy_ratio(saliency: Map, truth: Mask, inside: Mask) -> float:
    """Share of the map's positive part in the true region, over its share of the face's area.

    1 is what a constant map has; a map without a positive part counts as constant.

    Raises:
        InputError: see `pixel_auc`.
    """
    _check(saliency, truth, inside)
    energy = np.maximum(saliency[inside], 0)
    area = float(truth[inside].mean())
    total = float(energy.sum())
    if area == 0:
        raise InputError("the true region does not touch the face")
    return float(energy[truth[inside]].sum()) / total / area if total > 0 else 1.0


def points_inside(saliency: Map, truth: Mask, inside: Mask) -> bool:
    """Pointing game (Zhang et al., 2018): the most salient pixel of the face lies in the true region."""
    _check(saliency, truth, inside)
    candidates = np.where(inside, saliency, -np.inf)
    return bool(truth.ravel()[int(np.argmax(candidates))])


def _check(saliency: Map, truth: Mask, inside: Mask) -> None:
    if not saliency.shape == truth.shape == inside.shape:
        raise InputError(f"map {saliency.shape}, region {truth.shape} and face {inside.shape} differ in size")
