"""The shipped face detector: the face finder proposes, the aligner places landmarks and refuses what is no face."""

from __future__ import annotations

import cmath
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xfr_plugin.base.deadlines import check_deadline
from xfr_plugin.errors import InputError
from xfr_plugin.faces.alignment import ARCFACE_TEMPLATE, Landmarks
from xfr_plugin.faces.detection import Box, DetectedFace, LandmarkModel, check_photo
from xfr_plugin.faces.finder import Candidate, Finder, face_box, load_finder
from xfr_plugin.faces.landmarks import Aligner, load_aligner

__all__ = ["FaceDetector", "candidate_around", "search_rounds"]

_FIRST_PIXELS = 320 * 320
_MOST_PIXELS = 1200 * 1200
_LONGEST_SIDE = 4000
_STEP = math.sqrt(2)
_SMALLEST_SIDE = 24
_MOST_CANDIDATES = 128
_SURE_WITHOUT_ALIGNER = 0.6
_HOPELESS = 0.01
_SMALL = 1e-9


class FaceDetector:
    """Finds faces, upright or turned by up to about 45°; a `Detector` (see `faces.detection`).

    Copies of the photo are searched, each of half the pixels of the one before. Where they show no face, larger
    copies follow. Time and memory are bounded: no copy has more than 1.44 million pixels.

    Args:
        landmark_model: puts landmarks into boxes; the shipped aligner, if left out. Another model has no face score
            and does not know how a box is turned, so that only what the finder is sure of counts as a face.
        finder: proposes faces; the shipped one, if left out.
        min_confidence: least confidence (0…1), from the finder's and the aligner's face scores.
        thorough: search larger copies where the first show no face.

    Raises:
        InputError: `min_confidence` is not in 0…1.
    """

    def __init__(
        self,
        landmark_model: LandmarkModel | None = None,
        *,
        finder: Finder | None = None,
        min_confidence: float = 0.75,
        thorough: bool = True,
    ) -> None:
        if not 0 <= min_confidence <= 1:
            raise InputError(f"min_confidence must be in 0…1, got {min_confidence}")
        self._model = landmark_model
        self._finder = finder
        self._min_confidence = min_confidence
        self._thorough = thorough

    def __call__(self, photo: NDArray[np.uint8], /) -> list[DetectedFace]:
        """Find the faces of an RGB photo (H×W×3, 0…255), the surest first.

        Raises:
            InputError: the photo is of another kind.
            DeadlineError: see `base.deadlines`.
        """
        check_photo(photo)
        image, spent = Image.fromarray(photo).convert("L"), 0.0
        for scales in search_rounds(image.size):
            check_deadline(spent)  # each round takes longer than the one before
            start = time.thread_time()
            found = self._search(photo, image, scales)
            spent = time.thread_time() - start
            if found or not self._thorough:
                return [_seen(face, image.size) for face in _without_doubles(found)]
        return []

    def _search(
        self, photo: NDArray[np.uint8], image: Image.Image, scales: Sequence[float]
    ) -> list[DetectedFace]:
        finder = self._finder or load_finder()
        candidates = [c for c in finder(image, scales) if _is_centred_in(c.box, image.size)]
        largest = sorted(candidates, key=lambda c: -c.box.width)[:_MOST_CANDIDATES]  # what matters in a crowd
        candidates = sorted(largest, key=lambda c: -c.score)
        model = self._model or load_aligner()
        if not isinstance(model, Aligner):
            sure = [c.box for c in candidates if c.score >= _SURE_WITHOUT_ALIGNER]
            return [DetectedFace(box, model(photo, box)) for box in sure]
        return [
            DetectedFace(closer.box, points, confidence)
            for closer, points, score in _located(model, photo, candidates)
            if (confidence := _confidence(closer, score)) >= self._min_confidence
        ]


def _located(
    aligner: Aligner, photo: NDArray[np.uint8], candidates: Sequence[Candidate]
) -> list[tuple[Candidate, Landmarks, float]]:
    """Landmarks, and how much each candidate looks like a face, in the better of two looks.

    The second is at the box that fits the landmarks of the first.
    """
    first = []
    for candidate, (points, score) in zip(candidates, _look(aligner, photo, candidates), strict=True):
        closer = candidate_around(points, candidate.score)
        if score > _HOPELESS and _is_centred_in(closer.box, photo.shape[1::-1]):
            first.append((closer, (points, score)))
    again = _look(aligner, photo, [closer for closer, _ in first])
    return [
        (closer, *max(seen, look, key=itemgetter(1)))
        for (closer, seen), look in zip(first, again, strict=True)
    ]


def _look(
    aligner: Aligner, photo: NDArray[np.uint8], candidates: Sequence[Candidate]
) -> list[tuple[Landmarks, float]]:
    landmarks, scores = aligner.locate(photo, [c.box for c in candidates], [c.angle for c in candidates])
    return list(zip(landmarks, scores.tolist(), strict=True))


def candidate_around(landmarks: Landmarks, score: float) -> Candidate:
    """The candidate whose box fits these landmarks."""
    # in the plane of complex numbers a similarity is z → factor · z + shift
    given, usual = landmarks @ (1, 1j), ARCFACE_TEMPLATE @ (1, 1j)
    shape = usual - usual.mean()
    factor = complex(np.vdot(shape, given - given.mean()) / np.vdot(shape, shape).real)
    eyes = max(1.0, float(abs(factor * (usual[1] - usual[0]))))
    angle, middle = cmath.phase(factor), complex(given.mean())
    return Candidate(face_box((middle.real, middle.imag), eyes, angle), angle, score)


def search_rounds(size: tuple[int, int]) -> Iterator[list[float]]:
    """Scales of the copies to search together: halves down to where a face fills the photo, then larger ones."""
    pixels, longest = size[0] * size[1], max(size)
    scale = min(1.0, math.sqrt(_FIRST_PIXELS / pixels), _LONGEST_SIDE / longest)
    count = 1 + max(0, math.ceil(math.log(min(size) * scale / _SMALLEST_SIDE, _STEP)))
    yield [scale / _STEP**number for number in range(count)]
    largest = min(1.0, math.sqrt(_MOST_PIXELS / pixels), _LONGEST_SIDE / longest)
    while scale < largest:
        larger = {min(largest, scale * _STEP), min(largest, scale * _STEP**2)}
        yield sorted(larger, reverse=True)
        scale = max(larger)


def _confidence(candidate: Candidate, score: float) -> float:
    """The finder's odds times the root of the aligner's, which are far from even more often."""
    odds = candidate.score / (1 - candidate.score + _SMALL) * math.sqrt(score / (1 - score + _SMALL))
    return odds / (1 + odds)


def _is_centred_in(box: Box, size: Sequence[int]) -> bool:
    x, y = box.x + box.width / 2, box.y + box.height / 2
    return 0 <= x < size[0] and 0 <= y < size[1]


def _seen(face: DetectedFace, size: tuple[int, int]) -> DetectedFace:
    """The face with what the photo shows of its box: one at the border is no larger than what is seen of it."""
    box = face.box
    left, top = max(0.0, box.x), max(0.0, box.y)
    right, bottom = min(size[0], box.x + box.width), min(size[1], box.y + box.height)
    return replace(face, box=Box(left, top, right - left, bottom - top))


def _without_doubles(found: Sequence[DetectedFace]) -> list[DetectedFace]:
    """Of faces whose landmarks lie on one another keep the surest."""
    kept: list[DetectedFace] = []
    for face in sorted(found, key=lambda face: -(face.confidence or 0)):
        if not any(_same_face(face, other) for other in kept):
            kept.append(face)
    return kept


def _same_face(first: DetectedFace, second: DetectedFace) -> bool:
    apart = float(np.linalg.norm(first.landmarks.mean(0) - second.landmarks.mean(0)))
    return apart < 0.35 * max(first.box.width, second.box.width)
