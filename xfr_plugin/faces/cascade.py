"""The shipped face detector: scikit-image's frontal-face cascade plus the aligner.

The cascade (local binary patterns, boosted; Liao et al., ICB 2007) proposes boxes, generously; the aligner
puts landmarks into them and refuses what is no face. Where nothing is found, copies of the photo are
searched: finer, padded, mirrored, larger, and turned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse.csgraph import connected_components
from skimage.data import lbp_frontal_face_cascade_filename
from skimage.feature import Cascade

from xfr_plugin.errors import InputError
from xfr_plugin.faces.detection import Box, DetectedFace, LandmarkModel
from xfr_plugin.faces.landmarks import Aligner, load_aligner

__all__ = ["Candidate", "CascadeDetector", "find_boxes"]

_WINDOW = 24
_SAME_WINDOW = 0.4
_MOST_WINDOWS = 1500
_MOST_CANDIDATES = 32
_HITS_WITHOUT_SCORE = 4


@dataclass(frozen=True)
class _View:
    """A way to search a photo.

    Attributes:
        side: longest side of the copy in pixels; a photo is enlarged at most to `enlarged` times its size.
        angle: degrees by which faces that stand upright in the copy are turned in the photo, clockwise.
        mirrored: search the mirror image.
        padding: grey margin as a share of the copy's sides, for faces that fill the photo.
        scale_factor: see `find_boxes`.
        window: see `find_boxes`; time grows with the number of small windows.
    """

    side: int = 400
    enlarged: float = 1.0
    angle: float = 0.0
    mirrored: bool = False
    padding: float = 0.0
    scale_factor: float = 1.1
    window: int = 36


_ROUNDS: tuple[tuple[_View, ...], ...] = (
    (_View(),),
    (_View(padding=0.2, scale_factor=1.05), _View(mirrored=True, scale_factor=1.05)),
    (_View(side=800, enlarged=2.0),),
    (_View(angle=15), _View(angle=-15)),
    (_View(angle=30), _View(angle=-30)),
    (_View(side=1600, enlarged=4.0, window=48),),
)
"""Searched one after the other until a round finds a face. Most photos need only the first."""


class CascadeDetector:
    """Finds frontal faces; a `Detector` (see `faces.detection`).

    Time and memory are bounded: large photos are searched in copies of at most 1600 pixels a side.

    Args:
        landmark_model: puts landmarks into boxes; the shipped aligner, if left out. Another model has no face
            score, so that only boxes with several overlapping hits of the cascade count as faces.
        min_confidence: least face score (0…1) of the aligner.
        thorough: search copies where the photo itself shows no face; slower on photos without faces.

    Raises:
        InputError: `min_confidence` is not in 0…1.
    """

    def __init__(
        self,
        landmark_model: LandmarkModel | None = None,
        *,
        min_confidence: float = 0.5,
        thorough: bool = True,
    ) -> None:
        if not 0 <= min_confidence <= 1:
            raise InputError(f"min_confidence must be in 0…1, got {min_confidence}")
        self._model = landmark_model
        self._min_confidence = min_confidence
        self._rounds = _ROUNDS if thorough else _ROUNDS[:1]

    def __call__(self, photo: NDArray[np.uint8], /) -> list[DetectedFace]:
        """Find the faces of an RGB photo (H×W×3, 0…255); the one with most hits of the cascade first."""
        image = Image.fromarray(photo).convert("L")
        for views in self._rounds:
            found = [pair for view in views for pair in self._search(photo, image, view)]
            if found:
                return _without_doubles(found)
        return []

    def _search(
        self, photo: NDArray[np.uint8], image: Image.Image, view: _View
    ) -> list[tuple[int, DetectedFace]]:
        copy, to_photo = _render(image, view)
        candidates = [
            Candidate(_mapped(candidate.box, to_photo), candidate.hits)
            for candidate in find_boxes(np.asarray(copy), view.scale_factor, view.window)
        ]
        candidates = [c for c in candidates if _is_centred_in(c.box, image.size)][:_MOST_CANDIDATES]
        boxes = [candidate.box for candidate in candidates]
        model = self._model or load_aligner()
        if not isinstance(model, Aligner):
            sure = [i for i, c in enumerate(candidates) if c.hits >= _HITS_WITHOUT_SCORE]
            return [(candidates[i].hits, DetectedFace(boxes[i], model(photo, boxes[i]))) for i in sure]
        landmarks, scores = model.locate(photo, boxes, [math.radians(view.angle)] * len(boxes))
        return [
            (candidate.hits, DetectedFace(box, points, confidence))
            for candidate, box, points, score in zip(candidates, boxes, landmarks, scores, strict=True)
            if (confidence := _confidence(candidate.hits, float(score))) >= self._min_confidence
        ]


def _confidence(hits: int, score: float) -> float:
    """Weigh the aligner's score by the cascade's hits: four leave it, fewer lower and more raise it."""
    odds = score / max(1 - score, 1e-9) * (hits / 4)
    return odds / (1 + odds)


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
    height, width = photo.shape[:2]
    if min(height, width) < window:
        return []
    grey = np.asarray(Image.fromarray(photo).convert("L"))
    windows = _windows(grey, scale_factor, window)
    if not len(windows):
        return []
    count, group = connected_components(_overlaps(windows) > _SAME_WINDOW, directed=False)
    found = [_candidate(windows[group == index]) for index in range(count)]
    return sorted(found, key=lambda candidate: -candidate.hits)


def _render(image: Image.Image, view: _View) -> tuple[Image.Image, NDArray[np.float64]]:
    """Make the copy to search, and the 2×3 matrix from its coordinates to the photo's."""
    scale = min(view.enlarged, view.side / max(image.size))
    small = image.resize(
        [max(1, round(side * scale)) for side in image.size], Image.Resampling.BILINEAR, reducing_gap=2.0
    )
    if not (view.angle or view.mirrored or view.padding):
        return small, np.array([[1 / scale, 0, 0], [0, 1 / scale, 0]])
    linear = _turn(view.angle) @ np.diag([-1.0 if view.mirrored else 1.0, 1.0])
    # large enough to hold the turned photo
    size = np.abs(linear) @ small.size * (1 + 2 * view.padding)
    offset = np.array(small.size) / 2 - linear @ (size / 2)
    matrix = np.column_stack([linear, offset])
    grey = int(np.asarray(small).mean())
    width, height = np.ceil(size).astype(int).tolist()
    copy = small.transform(
        (width, height),
        Image.Transform.AFFINE,
        tuple(matrix.ravel()),
        Image.Resampling.BILINEAR,
        fillcolor=grey,
    )
    return copy, matrix / scale


def _turn(degrees: float) -> NDArray[np.float64]:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[cos, -sin], [sin, cos]])


def _mapped(box: Box, to_photo: NDArray[np.float64]) -> Box:
    """Move a box to the photo; a turned one keeps its centre and its sides' lengths."""
    scale = float(np.hypot(to_photo[0, 0], to_photo[1, 0]))
    x, y = (to_photo @ [box.x + box.width / 2, box.y + box.height / 2, 1.0]).tolist()
    width, height = box.width * scale, box.height * scale
    return Box(x - width / 2, y - height / 2, width, height)


def _is_centred_in(box: Box, size: tuple[int, int]) -> bool:
    x, y = box.x + box.width / 2, box.y + box.height / 2
    return 0 <= x < size[0] and 0 <= y < size[1]


def _without_doubles(found: Sequence[tuple[int, DetectedFace]]) -> list[DetectedFace]:
    """Of faces whose landmarks lie on one another keep the one with most hits of the cascade."""
    kept: list[DetectedFace] = []
    for _, face in sorted(found, key=lambda pair: (-pair[0], -(pair[1].confidence or 0))):
        if not any(_same_face(face, other) for other in kept):
            kept.append(face)
    return kept


def _same_face(first: DetectedFace, second: DetectedFace) -> bool:
    apart = float(np.linalg.norm(first.landmarks.mean(0) - second.landmarks.mean(0)))
    return apart < 0.35 * max(first.box.width, second.box.width)


def _windows(grey: NDArray[np.uint8], scale_factor: float, window: int) -> NDArray[np.float64]:
    """Every window that passes the cascade, x, y, width, height, the largest first.

    The cascade's own grouping depends on the order in which its threads finish and hides the number of hits;
    a merging threshold that no overlap reaches switches it off.
    """
    found = _cascade().detect_multi_scale(
        img=grey,
        scale_factor=scale_factor,
        step_ratio=1.0,
        min_size=(window, window),
        max_size=grey.shape,
        min_neighbor_number=1,
        intersection_score_threshold=1.01,
    )
    rows = sorted((-w["width"], w["height"], w["c"], w["r"]) for w in found)[:_MOST_WINDOWS]
    table = np.array(rows, dtype=np.float64).reshape(-1, 4)
    return np.abs(table[:, [2, 3, 0, 1]])


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
    return Cascade(lbp_frontal_face_cascade_filename())
