"""The face finder: where faces may be in a photo, how large they are and how they are turned."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import max_pool2d

from xfr_plugin.base.folding import batchnorm_folded
from xfr_plugin.base.weights import MODELS
from xfr_plugin.faces.detection import Box
from xfr_plugin.faces.finder_network import STRIDE, USUAL_EYES, FinderNetwork
from xfr_plugin.faces.weights import read_network, write_network

__all__ = ["Candidate", "Finder", "face_box", "load_finder", "save_finder"]

_MARGIN = 16
_BOX = (0.01, -0.22, 2.78)
"""Boxes that the aligner expects: centre from the landmarks' mean along the face, and side, in eye distances."""


@dataclass(frozen=True)
class Candidate:
    """What may be a face.

    Attributes:
        box: around it, of the side that the aligner expects; turned about its centre by `angle`.
        angle: clockwise, in radians.
        score: how much it looks like a face, 0…1.
    """

    box: Box
    angle: float
    score: float


class Finder:
    """Finds what may be faces in copies of a photo.

    Attributes:
        network: what it computes with, in evaluation mode.
        card: what is known about it (training data, figures).
    """

    def __init__(self, network: FinderNetwork, card: Mapping[str, Any] | None = None) -> None:
        self.network = network.eval().requires_grad_(False)
        self._folded = batchnorm_folded(self.network)
        self.card = dict(card or {})

    def __call__(
        self, photo: Image.Image, scales: Sequence[float], least_score: float = 0.4
    ) -> list[Candidate]:
        """Search copies of a grey photo, best first.

        Args:
            photo: in Pillow's mode L.
            scales: of the copies, the largest first; faces are found whose eyes are 4.5 to 11.5 pixels apart in one.
            least_score: of what counts as a candidate.
        """
        found: list[tuple[float, ...]] = []
        copy = photo
        for scale in scales:
            size = [max(1, round(side * scale)) for side in photo.size]
            if copy.size != tuple(size):
                copy = copy.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
            found += self._search(copy, scale, least_score)
        found.sort(reverse=True)
        return [
            Candidate(face_box((x, y), eyes, angle), angle, score)
            for score, x, y, eyes, angle in _without_doubles(found)
        ]

    @torch.no_grad()
    def _search(self, copy: Image.Image, scale: float, least_score: float) -> Iterator[tuple[float, ...]]:
        """Score, x, y, distance of the eyes in the photo, and angle, of each face in a copy."""
        pixels = torch.from_numpy(np.array(copy)).float() / 255
        cells = self._folded(_padded(pixels)[None, None])
        peaks = max_pool2d(cells.logits, 3, 1, 1) == cells.logits
        row, column = (
            (peaks & (cells.logits > math.log(least_score / (1 - least_score))))[0].nonzero().unbind(1)
        )
        offsets = cells.offsets[0, :, row, column] * USUAL_EYES - _MARGIN
        x, y = column * STRIDE + offsets[0], row * STRIDE + offsets[1]
        eyes = USUAL_EYES * cells.sizes[0, row, column].clamp(-1, 1).exp()
        cos, sin = cells.turns[0, :, row, column]
        places = [(x + 0.5) / scale - 0.5, (y + 0.5) / scale - 0.5, eyes / scale, torch.atan2(sin, cos)]
        table = torch.stack([cells.logits[0, row, column].sigmoid(), *places], dim=1)
        return (tuple(values) for values in table.tolist())


def _padded(pixels: Tensor) -> Tensor:
    """A grey margin around a picture, for faces that are cut by its border, up to sides divisible by 8."""
    height, width = pixels.shape
    mean = float(pixels.mean())
    margins = (_MARGIN, _MARGIN + -width % 8, _MARGIN, _MARGIN + -height % 8)
    return torch.nn.functional.pad(pixels, margins, value=mean)


def _without_doubles(found: list[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """Of places that lie within one face keep the first."""
    kept: list[tuple[float, ...]] = []
    for face in found:
        if not any(
            math.hypot(face[1] - other[1], face[2] - other[2]) < 0.8 * max(face[3], other[3])
            for other in kept
        ):
            kept.append(face)
    return kept


def face_box(centre: tuple[float, float], eyes: float, angle: float) -> Box:
    """The box that the aligner expects around a face.

    Args:
        centre: the mean of its landmarks.
        eyes: their distance in pixels.
        angle: by which the face, and the box about its centre, is turned, clockwise, in radians.
    """
    right, down, side = (eyes * value for value in _BOX)
    x = centre[0] + math.cos(angle) * right - math.sin(angle) * down
    y = centre[1] + math.sin(angle) * right + math.cos(angle) * down
    # a box counts from the corner of a pixel, and points from its middle
    return Box(x + 0.5 - side / 2, y + 0.5 - side / 2, side, side)


def load_finder(path: str | os.PathLike[str] | None = None) -> Finder:
    """Load a finder; the shipped one, if no path is given.

    Raises:
        WeightsError: the file is missing, damaged, or no finder of ours.
        LayoutError: its weights do not fit the architecture it names.
    """
    return _shipped() if path is None else Finder(*read_network(path, "finder", FinderNetwork))


def save_finder(network: FinderNetwork, path: str | os.PathLike[str], training: Mapping[str, Any]) -> None:
    """Write a finder in half precision, with what is known about its training, whole or not at all."""
    write_network(network, path, "finder", {"training": dict(training)})


@cache
def _shipped() -> Finder:
    return load_finder(MODELS / "finder.safetensors")
