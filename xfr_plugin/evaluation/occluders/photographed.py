"""Pairs whose probe comes with its photograph: what is drawn there goes through detection and alignment again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import affine_transform
from torch import Tensor

from xfr_plugin.base.quiet import ignoring
from xfr_plugin.errors import FaceError, FaceWarning
from xfr_plugin.evaluation.protocol import EvaluationPair
from xfr_plugin.faces.alignment import Landmarks, align, alignment_transform
from xfr_plugin.faces.photo import load_photo
from xfr_plugin.faces.preparation import prepare_face
from xfr_plugin.faces.regions import RegionMap

__all__ = ["FaceAgain", "PhotographedPair", "open_photograph"]

Photo = NDArray[np.uint8]
"""RGB, H×W×3, 0…255."""


@dataclass(frozen=True)
class PhotographedPair(EvaluationPair):
    """A genuine pair, with the photograph that its probe was found in.

    Attributes:
        photo: RGB, H×W×3, 0…255.
        landmarks: of the face in it.
    """

    photo: Photo
    landmarks: Landmarks


@dataclass(frozen=True)
class FaceAgain:
    """The face of a photograph that was drawn on, as it was found and aligned then.

    Attributes:
        pixels: 8-bit RGB crop, 3×H×W.
        landmarks: in the photograph.
        back: 3×3, from pixels (x, y) of this crop to the same place on the crop of the photograph before.
    """

    pixels: Tensor
    landmarks: Landmarks
    back: NDArray[np.float64]

    @classmethod
    def found(cls, pair: PhotographedPair, photo: Photo) -> FaceAgain | None:
        """Find the pair's face again; None if none is found, or one that is further than the eyes' distance off."""
        size = pair.probe_regions.size
        try:
            pixels, landmarks = _aligned(photo, size)
        except FaceError:
            return None
        moved, eyes = (landmarks - pair.landmarks).mean(axis=0), pair.landmarks[1] - pair.landmarks[0]
        if np.linalg.norm(moved) > np.linalg.norm(eyes):
            return None
        before, now = (alignment_transform(points, size) for points in (pair.landmarks, landmarks))
        return cls(pixels, landmarks, before @ np.linalg.inv(now))

    def mask(self, drawn: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """A mask of the photograph, on this crop."""
        size = (self.pixels.shape[1], self.pixels.shape[2])
        grey = np.repeat(np.where(drawn, 255, 0).astype(np.uint8)[..., None], 3, axis=2)
        return np.asarray(align(grey, self.landmarks, size)[..., 0] > 127)

    def regions(self, before: RegionMap) -> RegionMap:
        """Regions of the face before, where they lie now."""
        return RegionMap(self._carried(before.labels, order=0), before.names)

    def map(self, before: NDArray[np.float32]) -> NDArray[np.float32]:
        """A map of the face before, where it lies now; what it sums to stays."""
        area = abs(float(np.linalg.det(self.back[:2, :2])))
        return np.asarray(self._carried(before, order=1) * np.float32(area))

    def _carried(self, values: NDArray[Any], order: int) -> NDArray[Any]:
        rows_first = self.back[[1, 0]][:, [1, 0, 2]]
        carried: NDArray[Any] = affine_transform(values, rows_first[:, :2], rows_first[:, 2], order=order)
        return carried


def open_photograph(path: Path, size: tuple[int, int]) -> tuple[Photo, Tensor, Landmarks]:
    """A photograph, the face in it as 8-bit RGB, 3×H×W, and its landmarks.

    Raises:
        PhotoError: it cannot be read.
        FaceError: no face is found in it.
    """
    photo = load_photo(path)
    return photo, *_aligned(photo, size)


def _aligned(photo: Photo, size: tuple[int, int]) -> tuple[Tensor, Landmarks]:
    with ignoring(FaceWarning):  # several faces, or a tiny one: the largest is taken, as everywhere
        face = prepare_face(photo, size, alignment="detect")
    assert face.detected is not None  # which is so where a face had to be found
    return torch.from_numpy(face.image).permute(2, 0, 1).contiguous(), face.detected.landmarks
