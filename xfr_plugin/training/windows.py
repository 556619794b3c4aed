"""Boxes that scikit-image's frontal-face cascade takes for faces: what the aligner learns from, right and wrong ones.

Local binary patterns, boosted (Liao et al., ICB 2007).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xfr_plugin.faces.detection import Box

__all__ = ["Candidate", "find_boxes"]

_LEAST_WINDOW = 24
_GROWTH = 1.1
_SAME_WINDOW = 0.4
_MOST_WINDOWS = 1500


@dataclass(frozen=True)
class Candidate:
    """A box that may hold a face, and the number of overlapping windows that the cascade took for one."""

    box: Box
    hits: int


def find_boxes(photo: NDArray[np.uint8]) -> list[Candidate]:
    """Run the cascade over a photo, with windows of 24 pixels and more.

    Windows that overlap by more than 40 % (intersection over union), directly or through others, make one
    box, their mean. Most hits first.

    Args:
        photo: RGB or grey, H×W×3 or H×W, 0…255.
    """
    if min(photo.shape[:2]) < _LEAST_WINDOW:
        return []
    windows = _windows(np.asarray(Image.fromarray(photo).convert("L")))
    if not len(windows):
        return []
    group = _connected(_overlaps(windows) > _SAME_WINDOW)
    found = [_candidate(windows[group == index]) for index in np.unique(group)]
    return sorted(found, key=lambda candidate: -candidate.hits)


def _connected(linked: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The number of the first of those that each of N things is linked with, directly or through others."""
    group = np.arange(len(linked))
    while True:
        reached = np.where(linked, group[None], len(group)).min(1)
        if np.array_equal(reached, group):
            return group
        group = reached


def _windows(grey: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Every window that passes the cascade, x, y, width, height, the largest first.

    The cascade's own grouping depends on the order in which its threads finish and hides the number of hits;
    a merging threshold that no overlap reaches switches it off.
    """
    most = min(grey.shape)
    found: list[dict[str, int]] = _cascade().detect_multi_scale(
        img=np.ascontiguousarray(grey),
        scale_factor=_GROWTH,
        step_ratio=1.0,
        min_size=(_LEAST_WINDOW, _LEAST_WINDOW),
        max_size=(most, most),
        min_neighbor_number=1,
        intersection_score_threshold=1.01,
    )
    rows = sorted((-w["width"], w["height"], w["c"], w["r"]) for w in found)[:_MOST_WINDOWS]
    table = np.array(rows, dtype=np.float64).reshape(-1, 4)
    placed: NDArray[np.float64] = np.abs(table[:, [2, 3, 0, 1]])
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
