"""Searching one photo with scikit-image's frontal-face cascade: boxes that may hold a face."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from xfr_plugin.faces.detection import Box

__all__ = ["Candidate", "find_boxes"]

_WINDOW = 24
_SAME_WINDOW = 0.4
_MOST_WINDOWS = 1500


@dataclass(frozen=True)
class Candidate:
    """A box that may hold a face, and the number of overlapping windows that the cascade took for one."""

    box: Box
    hits: int


def find_boxes(photo: NDArray[np.uint8], scale_factor: float = 1.1, window: int = _WINDOW) -> list[Candidate]:
    """Run the frontal-face cascade of local binary patterns over a photo.

    Windows that overlap by more than 40 % (intersection over union), directly or through others, make one
    box, their mean. Most hits first.

    Args:
        photo: RGB or grey, H×W×3 or H×W, 0…255.
        scale_factor: ratio of successive window sizes; smaller finds more and takes longer.
        window: side of the smallest windows in pixels, at least 24.
    """
    if min(photo.shape[:2]) < window:
        return []
    windows = _windows(np.asarray(Image.fromarray(photo).convert("L")), scale_factor, window)
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


def _windows(grey: NDArray[np.uint8], scale_factor: float, window: int) -> NDArray[np.float64]:
    """Every window that passes the cascade, x, y, width, height, the largest first.

    The cascade's own grouping depends on the order in which its threads finish and hides the number of hits;
    a merging threshold that no overlap reaches switches it off.
    """
    cascade, image = _cascade(), np.ascontiguousarray(grey)

    def search(sizes: tuple[float, float]) -> list[dict[str, int]]:
        least, most = sizes
        found: list[dict[str, int]] = cascade.detect_multi_scale(
            img=image,
            scale_factor=scale_factor,
            step_ratio=1.0,
            min_size=(least, least),
            max_size=(most, most),
            min_neighbor_number=1,
            intersection_score_threshold=1.01,
        )
        return found

    small, large = _halves(image.shape, scale_factor, window)
    if torch.get_num_threads() > 1:  # it searches without the interpreter's lock
        with ThreadPoolExecutor(1) as other:
            later = other.submit(search, large)
            found = [*search(small), *later.result()]
    else:
        found = [*search(small), *search(large)]
    rows = sorted((-w["width"], w["height"], w["c"], w["r"]) for w in found)[:_MOST_WINDOWS]
    table = np.array(rows, dtype=np.float64).reshape(-1, 4)
    placed: NDArray[np.float64] = np.abs(table[:, [2, 3, 0, 1]])
    return placed


def _halves(
    shape: tuple[int, ...], scale_factor: float, window: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Least and most side of small and of large windows, so that about as many are small as large."""
    most = min(shape)
    sides = window * scale_factor ** np.arange(1 + math.log(most / window, scale_factor))
    steps = np.round(sides / _WINDOW)
    counts = ((shape[0] - sides) * (shape[1] - sides)).clip(0) / steps**2
    first = int(np.searchsorted(counts.cumsum(), counts.sum() / 2)) + 1
    border = window * scale_factor**first
    return (window, min(most, border / scale_factor**0.5)), (border, most)


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
