"""Searching one photo with scikit-image's frontal-face cascade: boxes that may hold a face."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xfr_plugin.faces.detection import Box

__all__ = ["Candidate", "find_boxes"]

_WINDOW = 24
_SAME_WINDOW = 0.4
_MOST_WINDOWS = 1500

_AROUND = 0.5
"""Sides of a window that was hit, around it, in which all windows are tried."""

_SIZES = 1.5
"""Ratio of the sizes tried there to that of the window."""


@dataclass(frozen=True)
class Candidate:
    """A box that may hold a face, and the number of overlapping windows that the cascade took for one."""

    box: Box
    hits: int


def find_boxes(
    photo: NDArray[np.uint8], scale_factor: float = 1.1, window: int = _WINDOW, *, sketch: bool = False
) -> list[Candidate]:
    """Run the frontal-face cascade of local binary patterns over a photo.

    Windows that overlap by more than 40 % (intersection over union), directly or through others, make one
    box, their mean. Most hits first.

    Args:
        photo: RGB or grey, H×W×3 or H×W, 0…255.
        scale_factor: ratio of successive window sizes; smaller finds more and takes longer.
        window: side of the smallest windows in pixels, at least 24.
        sketch: look with a quarter of the windows first, and with all of them only around what that shows. Faces
            that few windows hit are missed.
    """
    height, width = photo.shape[:2]
    if min(height, width) < window:
        return []
    grey = np.asarray(Image.fromarray(photo).convert("L"))
    places = _sketched(grey, scale_factor, window) if sketch else [_everywhere(grey, window)]
    windows = np.concatenate([np.zeros((0, 4)), *(_windows(grey, scale_factor, place) for place in places)])
    if not len(windows):
        return []
    group = _connected(_overlaps(windows) > _SAME_WINDOW)
    found = [_candidate(windows[group == index]) for index in np.unique(group)]
    return sorted(found, key=lambda candidate: -candidate.hits)


@dataclass(frozen=True)
class _Place:
    """What is searched of a photo, and the smallest and largest side of its windows."""

    left: int
    top: int
    right: int
    bottom: int
    least: float
    most: float


def _everywhere(grey: NDArray[np.uint8], window: int) -> _Place:
    height, width = grey.shape
    return _Place(0, 0, width, height, window, max(height, width))


def _sketched(grey: NDArray[np.uint8], scale_factor: float, window: int) -> list[_Place]:
    """Where windows at every second step show something; places do not overlap."""
    x, y, side, _ = _windows(grey, scale_factor, _everywhere(grey, window), step=2.0).T
    low, high = (
        np.column_stack([x, y]) + factor[:, None] for factor in (-_AROUND * side, (1 + _AROUND) * side)
    )
    found = np.column_stack([low, high, side, side])
    while len(found):
        group = _connected(_meet(found))
        merged = np.array([_union(found[group == index]) for index in np.unique(group)])
        if len(merged) == len(found):
            break
        found = merged
    height, width = grey.shape
    return [
        _Place(
            max(0, round(left)), max(0, round(top)), min(width, round(right)), min(height, round(bottom)),
            max(window, least / _SIZES), most * _SIZES,
        )
        for left, top, right, bottom, least, most in found.tolist()
    ]  # fmt: skip


def _meet(places: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of N rectangles (left, top, right, bottom, …) have something in common, N×N."""
    low, high = places[:, :2], places[:, 2:4]
    shared = np.minimum(high[:, None], high[None]) - np.maximum(low[:, None], low[None])
    meet: NDArray[np.bool_] = np.all(shared > 0, axis=2)
    return meet


def _union(places: NDArray[np.float64]) -> list[float]:
    low, high = places.min(0), places.max(0)
    return [*low[:2], *high[2:4], low[4], high[5]]


def _connected(linked: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The number of the first of those that each of N things is linked with, directly or through others."""
    group = np.arange(len(linked))
    while True:
        reached = np.where(linked, group[None], len(group)).min(1)
        if np.array_equal(reached, group):
            return group
        group = reached


def _windows(
    grey: NDArray[np.uint8], scale_factor: float, place: _Place, step: float = 1.0
) -> NDArray[np.float64]:
    """Every window that passes the cascade, x, y, width, height, the largest first.

    The cascade's own grouping depends on the order in which its threads finish and hides the number of hits;
    a merging threshold that no overlap reaches switches it off.
    """
    part = np.ascontiguousarray(grey[place.top : place.bottom, place.left : place.right])
    most = min(place.most, *part.shape)
    if most < place.least:
        return np.zeros((0, 4))
    found = _cascade().detect_multi_scale(
        img=part,
        scale_factor=scale_factor,
        step_ratio=step,
        min_size=(place.least, place.least),
        max_size=(most, most),
        min_neighbor_number=1,
        intersection_score_threshold=1.01,
    )
    rows = sorted((-w["width"], w["height"], w["c"], w["r"]) for w in found)[:_MOST_WINDOWS]
    table = np.array(rows, dtype=np.float64).reshape(-1, 4)
    placed: NDArray[np.float64] = np.abs(table[:, [2, 3, 0, 1]]) + np.array([place.left, place.top, 0, 0])
    return placed


def _overlaps(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of all pairs of boxes (N×4), N×N."""
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    sides = np.minimum(high[:, None], high[None]) - np.maximum(low[:, None], low[None])
    shared = np.clip(sides, 0, None).prod(2)
    areas = boxes[:, 2:].prod(1)
    overlaps: NDArray[np.float64] = shared / (areas[:, None] + areas[None] - shared)
    return overlaps


def _candidate(windows: NDArray[np.float64]) -> Candidate:
    x, y, width, height = windows.mean(0).tolist()
    return Candidate(Box(x, y, width, height), len(windows))


@cache
def _cascade() -> Any:
    from skimage.data import lbp_frontal_face_cascade_filename  # they take their time to import
    from skimage.feature import Cascade

    return Cascade(lbp_frontal_face_cascade_filename())
