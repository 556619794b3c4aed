"""What may make an answer less reliable, with a code: the same for the local calls and for the service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xfr_plugin.explanation.occlusion import covered_parts
from xfr_plugin.explanation.verification import Verification
from xfr_plugin.faces import AlignedFace
from xfr_plugin.faces.alignment import template
from xfr_plugin.faces.search import FaceDetector
from xfr_plugin.recognition import Recognizer

if TYPE_CHECKING:
    from xfr_plugin.explanation.pipeline import Side

__all__ = [
    "COPIES",
    "DARKEST",
    "FLATTEST",
    "MISALIGNED",
    "NEAR",
    "SMOOTHEST",
    "UNEVEN",
    "Caution",
    "CautionCode",
    "copy_cautions",
    "decision_cautions",
    "evenness",
    "face_cautions",
    "measure",
    "misalignment",
]

CautionCode: TypeAlias = Literal[
    "several_faces",
    "tiny_face",
    "low_quality",
    "occluded",
    "taken_as_aligned",
    "near_threshold",
    "out_of_calibration",
    "same_picture",
]

DARKEST, FLATTEST, SMOOTHEST = 69.0, 20.0, 7.1
"""Least brightness, contrast and sharpness without a caution, 0…255: the 0.5 % quantiles of the aligned LFW
photographs of the training people, 112×112 (`benchmarks/serving_quality.py`)."""

UNEVEN = 0.46
"""Least brightness of one half of a face, relative to the other, without a caution: the same quantile."""

COPIES = 8.0
"""Mean difference of two aligned faces, in grey levels, below which they are one picture. Copies of 60 photographs of
LFW, saved anew as JPEG of quality 50 … 95, or at .7 and 1.5 of their size, have 0.4 … 7.4; of 8,169 pairs of
photographs of one of the training people one has 9.7, the others 15 and more (`benchmarks/serving_quality.py`)."""

NEAR = 0.03
"""Distance from the threshold, in cosines, within which small changes of a photo reverse a decision; other scores are
brought to that scale, see `Recognizer.score_unit`."""


MISALIGNED = 0.25
"""Mean distance of a crop's landmarks from where alignment puts them, in distances between the eyes, from which on it
is no aligned crop. 200 aligned crops of LFW's training people have .02 … .20, 200 of its photographs .32 … .81
(`benchmarks/serving_quality.py`)."""


_GREY, _SMALLEST, _HEIGHT = np.array([0.299, 0.587, 0.114], dtype=np.float32), 14, 112


@dataclass(frozen=True)
class Caution:
    """Something that may make an answer less reliable.

    Attributes:
        code: its kind.
        message: a sentence.
        face: whom it concerns; None for the decision.
    """

    code: CautionCode
    message: str
    face: Side | None = None

    def __str__(self) -> str:
        return self.message if self.face is None else f"{self.face}: {self.message}"


def measure(image: NDArray[np.uint8]) -> tuple[float, float, float]:
    """Brightness (mean), contrast (standard deviation) and sharpness (that of the Laplacian) of the middle of an
    aligned face, H×W×3; all in grey levels, 0…255.

    A larger face is reduced to the height that `SMOOTHEST` is of: what is enlarged for a recognizer is smoother from
    pixel to pixel, and no more blurred.
    """
    height, width = image.shape[:2]
    if height > _HEIGHT:
        size = (max(1, round(width * _HEIGHT / height)), _HEIGHT)
        image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    rows, columns = (slice(side // 4, side - side // 8) for side in image.shape[:2])
    middle = (image.astype(np.float32) @ _GREY)[rows, columns]
    return float(middle.mean()), float(middle.std()), float(_laplacian(middle).std())


def evenness(image: NDArray[np.uint8]) -> float:
    """Brightness of the darker half of an aligned face H×W×3, from brows to mouth, relative to the other's, 0…1.

    1 where the image is too small to tell.
    """
    height, width = image.shape[:2]
    if min(height, width) < _SMALLEST:
        return 1.0
    rows, middle = slice(height * 5 // 14, height * 6 // 7), width // 2
    halves = (slice(width // 4, middle), slice(middle, width - width // 4))
    first, second = (float((image[rows, columns] @ _GREY).mean()) for columns in halves)
    return (min(first, second) + 1) / (max(first, second) + 1)


def _laplacian(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """As `scipy.ndimage.laplace`, which takes its time to import: second differences, mirrored at the edges."""
    padded = np.pad(values, 1, mode="symmetric")
    along = padded[1:-1, 2:] - 2 * values + padded[1:-1, :-2]
    return along + padded[2:, 1:-1] - 2 * values + padded[:-2, 1:-1]


def misalignment(image: NDArray[np.uint8]) -> float | None:
    """How far the face in a crop H×W×3 lies from where alignment puts it, see `MISALIGNED`; None if none is found."""
    found = FaceDetector()(image)
    if not found:
        return None
    largest = max(found, key=lambda face: face.box.area)
    expected = template((image.shape[0], image.shape[1]))
    distances = np.linalg.norm(np.asarray(largest.landmarks) - expected, axis=1)
    return float(distances.mean() / np.linalg.norm(expected[1] - expected[0]))


def face_cautions(name: Side, face: AlignedFace) -> list[Caution]:
    """Cautions about a face: what its preparation noted, and how it looks."""
    found = [Caution(_code(note), note, name) for note in face.notes]
    if face.detected is None:
        found.append(Caution("taken_as_aligned", "the image was taken as an aligned crop", name))
    brightness, contrast, sharpness = measure(face.image)
    for word, value, least in (
        ("dark", brightness, DARKEST),
        ("poor in contrast", contrast, FLATTEST),
        ("blurred", sharpness, SMOOTHEST),
    ):
        if value < least:
            message = f"the face is {word}, more than in 199 of 200 photographs ({value:.0f} grey levels)"
            found.append(Caution("low_quality", message, name))
    share = evenness(face.image)
    if share < UNEVEN:
        message = "the face is lit from one side, more than in 199 of 200 photographs"
        words = f"{message} (one half has {100 * share:.0f} % of the other's light)"
        found.append(Caution("low_quality", words, name))
    covered = covered_parts(face.image) if sharpness >= SMOOTHEST else ()  # what is blurred looks odd, too
    for part in () if covered and _lies_elsewhere(face) else covered:
        message = f"the {part} may be covered: about 1 of 100 photographs look so odd there"
        found.append(Caution("occluded", message, name))
    return found


def _lies_elsewhere(face: AlignedFace) -> bool:
    """Whether it is a crop whose face is not where one looks for eyes and mouth."""
    distance = misalignment(face.image) if face.detected is None else None
    return distance is not None and distance > MISALIGNED


def decision_cautions(decision: Verification, recognizer: Recognizer) -> list[Caution]:
    """Cautions about a decision. Of a threshold that was given by hand nobody knows the error rates."""
    found = []
    near = NEAR * recognizer.score_unit
    if abs(decision.margin) < near:
        message = (
            f"the score is within {near:.2g} of the threshold: small changes of a photo reverse the decision"
        )
        found.append(Caution("near_threshold", message))
    if recognizer.calibration is None or decision.threshold_source == "given":
        found.append(
            Caution("out_of_calibration", "the threshold was not calibrated: its error rates are unknown")
        )
    return found


def copy_cautions(first: AlignedFace, second: AlignedFace) -> list[Caution]:
    """A caution where two faces are one picture, of which the score says nothing."""
    if first.image.shape != second.image.shape:
        return []
    difference = np.abs(first.image.astype(np.int16) - second.image).mean()
    message = (
        "the two photographs are one picture, or copies of it: their score says nothing of whom it shows"
    )
    return [Caution("same_picture", message)] if difference < COPIES else []


def _code(note: str) -> CautionCode:
    if "cut" in note:
        return "low_quality"
    return "tiny_face" if "tiny" in note else "several_faces"
