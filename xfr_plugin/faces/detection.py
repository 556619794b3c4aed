"""Finding faces in a photo: the protocol of a detector, and the detector that ships.

The shipped detector (`faces.search`) has a small network propose where faces are, and asks a landmark model for the
five points of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from xfr_plugin.errors import InputError
from xfr_plugin.faces.alignment import Landmarks

__all__ = ["Box", "DetectedFace", "Detector", "LandmarkModel", "check_photo"]


@dataclass(frozen=True)
class Box:
    """A rectangle in a photo, in pixels; (x, y) is its upper left corner."""

    x: float
    y: float
    width: float
    height: float

    @property
    def area(self) -> float:
        """Area in square pixels."""
        return self.width * self.height


@dataclass(frozen=True)
class DetectedFace:
    """A face in a photo.

    Attributes:
        box: where it is.
        landmarks: five points (x, y) in the photo, 5×2, see `faces.alignment.Landmarks`.
        confidence: 0…1, or None where the detector gives none.
    """

    box: Box
    landmarks: Landmarks
    confidence: float | None = None


@runtime_checkable
class Detector(Protocol):
    """Anything that finds faces: a function of an RGB photo (H×W×3, 0…255), in any order, maybe none."""

    def __call__(self, photo: NDArray[np.uint8], /) -> Sequence[DetectedFace]:
        """Find the faces of a photo."""
        ...


def check_photo(photo: NDArray[Any]) -> None:
    """See that a photo is what detectors take.

    Raises:
        InputError: it is not H×W×3 of uint8, or empty.
    """
    if not isinstance(photo, np.ndarray):
        raise InputError(f"a photo is an array, H×W×3 of uint8, not {type(photo).__name__}: see load_photo")
    if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8 or not photo.size:
        raise InputError(f"a photo is H×W×3 of uint8, got {photo.dtype} of shape {photo.shape}")


class LandmarkModel(Protocol):
    """Finds five landmarks in a face box of a photo."""

    def __call__(self, photo: NDArray[np.uint8], box: Box, /) -> Landmarks:
        """Return five points (x, y) in the photo, 5×2."""
        ...
