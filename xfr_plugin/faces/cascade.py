"""The shipped face detector: scikit-image's frontal-face cascade plus the aligner.

The cascade (local binary patterns, boosted; Liao et al., ICB 2007) proposes boxes, generously; the aligner
puts landmarks into them and refuses what is no face. Where nothing is found, copies of the photo are
searched: finer, padded, mirrored, larger, and turned.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xfr_plugin.base.deadlines import check_deadline
from xfr_plugin.errors import InputError
from xfr_plugin.faces.detection import Box, DetectedFace, LandmarkModel
from xfr_plugin.faces.landmarks import Aligner, load_aligner
from xfr_plugin.faces.windows import Candidate, find_boxes

__all__ = ["CascadeDetector"]

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
        doubt: divides the odds that what is found is a face: where the photo itself shows none, there often
            is none.
    """

    side: int = 400
    enlarged: float = 1.0
    angle: float = 0.0
    mirrored: bool = False
    padding: float = 0.0
    scale_factor: float = 1.1
    window: int = 36
    doubt: float = 1.0

    @property
    def is_plain(self) -> bool:
        """Whether the copy differs from the photo by its size alone."""
        return not (self.angle or self.mirrored or self.padding)

    def scale(self, size: tuple[int, int]) -> float:
        """Size of the copy relative to a photo of `size`."""
        return min(self.enlarged, self.side / max(size))


_ROUNDS: tuple[tuple[_View, ...], ...] = (
    (_View(),),
    (
        _View(padding=0.2, scale_factor=1.05, doubt=3.0),
        _View(mirrored=True, scale_factor=1.05, doubt=3.0),
        _View(enlarged=4.0, doubt=3.0),
    ),
    (_View(side=800, enlarged=2.0, doubt=3.0),),
    (_View(angle=15, doubt=3.0), _View(angle=-15, doubt=3.0)),
    (_View(angle=30, doubt=3.0), _View(angle=-30, doubt=3.0)),
    (_View(side=1600, window=48, doubt=3.0),),
)
"""Searched one after the other until a round finds a face. Most photos need only the first."""


class CascadeDetector:
    """Finds frontal faces; a `Detector` (see `faces.detection`).

    Time and memory are bounded: large photos are searched in copies of at most 1600 pixels a side.

    Args:
        landmark_model: puts landmarks into boxes; the shipped aligner, if left out. Another model has no face
            score, so that only boxes with several overlapping hits of the cascade count as faces.
        min_confidence: least confidence (0…1): the aligner's face score, weighed by the number of hits.
        thorough: search copies where the photo itself shows no face; slower on photos without faces.

    Raises:
        InputError: `min_confidence` is not in 0…1.
    """

    def __init__(
        self,
        landmark_model: LandmarkModel | None = None,
        *,
        min_confidence: float = 0.75,
        thorough: bool = True,
    ) -> None:
        if not 0 <= min_confidence <= 1:
            raise InputError(f"min_confidence must be in 0…1, got {min_confidence}")
        self._model = landmark_model
        self._min_confidence = min_confidence
        self._rounds = _ROUNDS if thorough else _ROUNDS[:1]

    def __call__(self, photo: NDArray[np.uint8], /) -> list[DetectedFace]:
        """Find the faces of an RGB photo (H×W×3, 0…255); the one with most hits of the cascade first.

        Raises:
            DeadlineError: see `base.deadlines`.
        """
        image, spent = Image.fromarray(photo).convert("L"), 0.0
        for views in self._rounds_for(image.size):
            found: list[tuple[int, DetectedFace]] = []
            for view in views:
                check_deadline(spent)  # most views take longer than the one before
                start = time.thread_time()
                found += self._search(photo, image, view)
                spent = time.thread_time() - start
            if found:
                return _without_doubles(found)
        return []

    def _rounds_for(self, size: tuple[int, int]) -> Iterator[list[_View]]:
        """Leave out plain views that show a photo of `size` no larger than an earlier one did."""
        largest = 0.0
        for views in self._rounds:
            chosen = [view for view in views if not view.is_plain or view.scale(size) > largest]
            largest = max([largest, *(view.scale(size) for view in chosen if view.is_plain)])
            yield chosen

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
            if (confidence := _confidence(float(score), candidate.hits / view.doubt)) >= self._min_confidence
        ]


def _confidence(score: float, hits: float) -> float:
    """Weigh the aligner's score by the cascade's hits: four leave it, fewer lower and more raise it."""
    odds = score / max(1 - score, 1e-9) * (hits / 4)
    return odds / (1 + odds)


def _render(image: Image.Image, view: _View) -> tuple[Image.Image, NDArray[np.float64]]:
    """Make the copy to search, and the 2×3 matrix from its coordinates to the photo's."""
    scale = view.scale(image.size)
    small = image.resize(
        [max(1, round(side * scale)) for side in image.size], Image.Resampling.BILINEAR, reducing_gap=2.0
    )
    if view.is_plain:
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
