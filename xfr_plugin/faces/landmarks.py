"""The aligner: five landmarks of a face, from its box in a photo."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from xfr_plugin.base.weights import MODELS
from xfr_plugin.errors import InputError
from xfr_plugin.faces.alignment import Landmarks
from xfr_plugin.faces.detection import Box, check_photo
from xfr_plugin.faces.landmark_network import BOX_MARGIN, CROP_SIZE, AlignerNetwork, box_frames
from xfr_plugin.faces.weights import read_network, write_network

__all__ = ["Aligner", "load_aligner", "save_aligner"]

_PATCH_SIDE = 160
_PATCH_MARGIN = 2.2
_LARGEST_PATCH = 1280
_LARGEST_BOX = 100
"""In sides of the photo."""


class Aligner:
    """A landmark model (see `faces.detection.LandmarkModel`) that also says how much a box looks like a face.

    Attributes:
        network: what it computes with, in evaluation mode.
        card: what is known about it (training data, figures).
    """

    def __init__(self, network: AlignerNetwork, card: Mapping[str, Any] | None = None) -> None:
        self.network = network.eval().requires_grad_(False)
        self.card = dict(card or {})

    def __call__(self, photo: NDArray[np.uint8], box: Box, /) -> Landmarks:
        """Return five points (x, y) in the photo, 5×2."""
        points: Landmarks = self.locate(photo, [box])[0][0]
        return points

    def locate(
        self, photo: NDArray[np.uint8], boxes: Sequence[Box], angles: Sequence[float] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Locate the faces of several boxes at once.

        Args:
            photo: RGB, H×W×3, 0…255.
            boxes: around faces, as the finder gives them: side about 2.8 eye distances.
            angles: by which each box is turned about its centre, clockwise, in radians; none, if left out.

        Returns:
            Landmarks in the photo, N×5×2; and how much each box looks like a face, N, 0…1.

        Raises:
            InputError: the photo is not H×W×3 of uint8; a box is empty, not finite or far larger than the photo;
                or there is not one finite angle a box.
        """
        check_photo(photo)
        turns = _turns(angles, len(boxes))
        _check_boxes(photo, boxes)
        if not boxes:
            return np.zeros((0, 5, 2)), np.zeros(0)
        patches, places = zip(*(_patch(photo, box) for box in boxes), strict=True)
        images = torch.from_numpy(np.stack(patches))[:, None].float() / 255
        middle = torch.full((len(boxes), 2), (_PATCH_SIDE - 1) / 2)
        sides = torch.full((len(boxes),), _PATCH_SIDE / _PATCH_MARGIN)
        located = self.network(images, box_frames(middle, sides, turns))
        place = np.array(places)
        points = located.points.double().numpy() * place[:, None, 2:] + place[:, None, :2]
        return points, located.logits.double().sigmoid().numpy()


def load_aligner(path: str | os.PathLike[str] | None = None) -> Aligner:
    """Load an aligner; the shipped one, if no path is given.

    Raises:
        WeightsError: the file is missing, damaged, or no aligner of ours.
        LayoutError: its weights do not fit the architecture it names.
    """
    return _shipped() if path is None else Aligner(*read_network(path, "aligner", AlignerNetwork))


def save_aligner(network: AlignerNetwork, path: str | os.PathLike[str], training: Mapping[str, Any]) -> None:
    """Write an aligner in half precision, with what is known about its training, whole or not at all."""
    card = {
        "crop": f"grey, {CROP_SIZE} pixels, {BOX_MARGIN} times the box; brightness and contrast taken out",
        "landmarks": "subject's right eye, left eye, nose tip, right and left mouth corner",
        "training": dict(training),
    }
    write_network(network, path, "aligner", card)


@cache
def _shipped() -> Aligner:
    return load_aligner(MODELS / "aligner.safetensors")


def _turns(angles: Sequence[float] | None, count: int) -> torch.Tensor:
    turns = torch.tensor([0.0] * count if angles is None else list(angles), dtype=torch.float32)
    if len(turns) != count or not turns.isfinite().all():
        raise InputError(f"there must be one finite angle a box: {count} boxes, angles {list(angles or ())}")
    return turns


def _check_boxes(photo: NDArray[np.uint8], boxes: Sequence[Box]) -> None:
    for box in boxes:
        values = (box.x, box.y, box.width, box.height)
        if not np.isfinite(values).all() or box.width <= 0 or box.height <= 0:
            raise InputError(f"a face box must be finite and not empty, got {box}")
        if max(box.width, box.height) > _LARGEST_BOX * max(photo.shape[:2]):
            height, width = photo.shape[:2]
            raise InputError(f"the face box {box} is far larger than the photo of {width}×{height} pixels")


def _patch(photo: NDArray[np.uint8], box: Box) -> tuple[NDArray[np.uint8], tuple[float, float, float, float]]:
    """Cut a square around a box, 160×160, grey, without aliasing; beyond the photo its border goes on.

    Returns:
        The square; and where it lies: photo = offset (x, y) + scale (x, y) · pixel.
    """
    side = max(box.width, box.height) * _PATCH_MARGIN
    factor = int(side / _LARGEST_PATCH)
    if factor > 1:  # many pixels would be padded for a patch of few
        reduced = np.asarray(Image.fromarray(photo).reduce(factor))
        small = Box(box.x / factor, box.y / factor, box.width / factor, box.height / factor)
        square, (x, y, right, down) = _patch(reduced, small)
        shift = (factor - 1) / 2
        return square, (factor * x + shift, factor * y + shift, factor * right, factor * down)
    left, top = box.x + (box.width - side) / 2, box.y + (box.height - side) / 2
    height, width = photo.shape[:2]
    outer = (int(np.floor(left)), int(np.floor(top)), int(np.ceil(left + side)), int(np.ceil(top + side)))
    cut = photo[max(0, outer[1]) : max(0, outer[3]), max(0, outer[0]) : max(0, outer[2])]
    if not cut.size:
        raise InputError(f"the face box {box} lies outside the photo of {width}×{height} pixels")
    grey = np.asarray(Image.fromarray(cut).convert("L"))
    margins = ((max(0, -outer[1]), max(0, outer[3] - height)), (max(0, -outer[0]), max(0, outer[2] - width)))
    padded = Image.fromarray(np.pad(grey, margins, mode="edge"))
    inner = (left - outer[0], top - outer[1], left - outer[0] + side, top - outer[1] + side)
    patch = padded.resize((_PATCH_SIDE, _PATCH_SIDE), Image.Resampling.BILINEAR, box=inner)
    scale = side / _PATCH_SIDE
    return np.asarray(patch), (left - 0.5 + scale / 2, top - 0.5 + scale / 2, scale, scale)
