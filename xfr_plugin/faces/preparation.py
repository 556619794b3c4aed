"""From a photo to the aligned face that a recognizer takes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral

import numpy as np
from numpy.typing import NDArray

from xfr_plugin.base.choices import Alignment
from xfr_plugin.base.options import checked_at_least, checked_choice
from xfr_plugin.errors import FaceError, FaceWarning, InputError, NoFaceError
from xfr_plugin.faces.alignment import align, fit_aligned, five_points
from xfr_plugin.faces.detection import Box, DetectedFace, Detector
from xfr_plugin.faces.photo import MAX_PIXELS, PhotoSource, load_photo
from xfr_plugin.faces.search import FaceDetector

__all__ = ["AlignedFace", "Alignment", "prepare_face"]

_TINY_EYE_DISTANCE = 20.0
_LEAST_EYE_DISTANCE = 8.0


@dataclass(frozen=True)
class AlignedFace:
    """An aligned face.

    Attributes:
        image: RGB crop, H×W×3, 0…255.
        detected: where it was found in the photo; None if the photo was taken as aligned.
        notes: what may make the answer less reliable, in words.
    """

    image: NDArray[np.uint8]
    detected: DetectedFace | None = None
    notes: tuple[str, ...] = ()


def prepare_face(
    source: PhotoSource,
    size: tuple[int, int] = (112, 112),
    *,
    detector: Detector | None = None,
    alignment: Alignment = "auto",
    face: int = 0,
    max_pixels: int = MAX_PIXELS,
) -> AlignedFace:
    """Load a photo, find its face, and align it.

    Args:
        source: see `faces.photo.PhotoSource`.
        size: height and width of the crop in pixels.
        detector: finds the faces; the shipped `FaceDetector`, if left out.
        alignment: see `Alignment`.
        face: which face, where there are several: 0 is the largest, 1 the next, and so on.
        max_pixels: pixel limit of the photo.

    Raises:
        PhotoError: the photo cannot be loaded.
        NoFaceError: no face was found.
        FaceError: there are fewer faces than `face` asks for, or the face is smaller than can be recognised.
        InputError: an argument makes no sense, or what the detector gives.

    Warns:
        FaceWarning: several faces, a tiny one, or one that the border cuts; the same words are in
            `AlignedFace.notes`.
    """
    checked_choice("alignment", alignment, "auto", "detect", "aligned")
    for side in size:
        checked_at_least("size", side, 1)
    photo = load_photo(source, max_pixels)
    if alignment == "aligned" or (alignment == "auto" and photo.shape[:2] == tuple(size)):
        return AlignedFace(fit_aligned(photo, size))
    chosen, notes = _choose(_found(detector or FaceDetector(), photo), face, photo.shape)
    for note in notes:
        warnings.warn(note, FaceWarning, stacklevel=2)
    return AlignedFace(align(photo, chosen.landmarks, size), chosen, notes)


def _found(detector: Detector, photo: NDArray[np.uint8]) -> list[DetectedFace]:
    """What a detector finds, which may be the user's own."""
    found = detector(photo)
    try:
        faces = [] if found is None else list(found)
    except TypeError:
        raise InputError(f"a detector must give a list of faces, got {type(found).__name__}") from None
    for face in faces:
        if not isinstance(face, DetectedFace) or not isinstance(face.box, Box):
            raise InputError(
                f"a detector must give DetectedFace values with a Box, got {type(face).__name__}"
            )
        if not np.isfinite(face.box.area):
            raise InputError(f"a face box must be finite, got {face.box}")
    return faces


def _choose(
    faces: Sequence[DetectedFace], index: int, shape: tuple[int, ...]
) -> tuple[DetectedFace, tuple[str, ...]]:
    if not isinstance(index, Integral) or isinstance(index, bool):
        raise InputError(f"face must be a whole number, got {index!r}")
    if not faces:
        raise NoFaceError(
            "no face was found: use a larger, upright, frontal photo, pass your own detector, "
            "or say that the photo is already aligned"
        )
    if not 0 <= index < len(faces):
        raise FaceError(f"there is no face number {index}: {len(faces)} found, numbered from 0 by size")
    chosen = sorted(faces, key=lambda found: -found.box.area)[index]
    points = five_points(chosen.landmarks)
    if points is not chosen.landmarks:
        chosen = replace(chosen, landmarks=points)
    seen = ((points >= -0.5) & (points < np.array([shape[1], shape[0]]) - 0.5)).all(1)
    if not seen.any():
        raise FaceError("the face that was found lies outside of the photo")
    eye_distance = float(np.linalg.norm(points[1] - points[0]))
    if eye_distance < _LEAST_EYE_DISTANCE:
        raise FaceError(
            f"the face has {eye_distance:.0f} pixels between the eyes: too few to recognise anyone"
        )
    which = f"number {index} by size" if index else "the largest"
    notes = {
        f"{len(faces)} faces in the photo: {which} was taken": len(faces) > 1,
        f"the face is tiny: {eye_distance:.0f} pixels between the eyes": eye_distance < _TINY_EYE_DISTANCE,
        "the face is cut by the border of the photo": not seen.all(),
    }
    return chosen, tuple(note for note, applies in notes.items() if applies)
