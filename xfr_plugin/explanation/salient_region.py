"""The region that a map points at most, and random regions of the same size and shape to compare it with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["random_regions", "top_salient_region"]

Map = NDArray[np.float64]
Mask = NDArray[np.bool_]


def top_salient_region(evidence: Map, face: Mask, largest: float, smallest: float) -> Mask | None:
    """Pixels of the face with the most evidence of one kind.

    Args:
        evidence: H×W; only what is positive is taken.
        face: H×W.
        largest: share of the face's pixels that is taken, 0…1; fewer where fewer are positive.
        smallest: if fewer than this share of the face's pixels are positive, there is no such region.

    Returns:
        H×W mask, or None.
    """
    values = np.where(face, evidence, 0)
    area = int(face.sum())
    size = min(round(largest * area), int((values > 0).sum()))
    if size < max(1, smallest * area):
        return None
    return _top(values, face, size)


def random_regions(region: Mask, face: Mask, count: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Move a region about the face: turned by any angle, mirrored or not, to any place.

    What a move pushes out of the face is made up by growing what is left, so that every region has the same number of
    pixels as the given one, and about its shape.

    Args:
        region: H×W, within the face.
        face: H×W.
        count: how many.
        rng: draws the moves.

    Returns:
        count×H×W masks.
    """
    from scipy.ndimage import affine_transform, distance_transform_edt  # they take their time to import

    depth = distance_transform_edt(region) - distance_transform_edt(~region)
    centre = np.argwhere(region).mean(axis=0)
    places = np.argwhere(face)
    size = int(region.sum())
    moved = np.empty((count, *region.shape), dtype=np.bool_)
    for index in range(count):
        angle = rng.uniform(0, 2 * np.pi)
        mirror = np.diag([1.0, rng.choice([-1.0, 1.0])])
        back = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ mirror
        offset = centre - back @ places[rng.integers(len(places))]
        moved[index] = _top(affine_transform(depth, back, offset, order=1, mode="nearest"), face, size)
    return moved


def _top(values: Map, face: Mask, size: int) -> Mask:
    """The `size` highest pixels of the face."""
    order = np.argsort(np.where(face, -values, np.inf), axis=None, kind="stable")
    mask = np.zeros(values.shape, dtype=np.bool_)
    mask.ravel()[order[:size]] = True
    return mask
