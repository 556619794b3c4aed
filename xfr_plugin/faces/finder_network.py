"""The face finder's network: a grey picture gives a map of where faces of about one size are, and how they lie.

Faces are points on a heat map (Zhou et al., *Objects as points*, 2019). The network sees faces whose eyes are about
`LEAST_EYES` to `MOST_EYES` pixels apart; larger ones are found in smaller copies of a photo.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, pad

from xfr_plugin.faces.landmark_network import Residual, convolution

__all__ = ["LEAST_EYES", "MOST_EYES", "STRIDE", "USUAL_EYES", "FaceMap", "FinderNetwork"]

STRIDE = 4
"""Pixels from one cell of the map to the next; cell (0, 0) lies on pixel (0, 0)."""

LEAST_EYES, USUAL_EYES, MOST_EYES = 4.5, 7.0, 11.5
"""Distances of the eyes, in pixels, of faces that the network is taught to see."""

_BLOCK = 8


class FaceMap(NamedTuple):
    """What the network says in each cell.

    Attributes:
        logits: that a face's landmarks have their mean here, B×h×w.
        offsets: from the cell to that mean, x and y, in `USUAL_EYES`, B×2×h×w.
        sizes: logarithm of the distance of the eyes, in `USUAL_EYES`, B×h×w.
        turns: cosine and sine of the angle by which the face is turned, clockwise, of any length, B×2×h×w.
    """

    logits: Tensor
    offsets: Tensor
    sizes: Tensor
    turns: Tensor


class FinderNetwork(nn.Module):
    """A grey picture (B×1×H×W, sides divisible by 8, any linear scale) gives a `FaceMap` of a fourth of its size.

    Args:
        width: channels of the highest resolution; the number of parameters grows with its square.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.width = width
        self.high = nn.Sequential(
            convolution(1, width, stride=2), convolution(width, width, stride=2), Residual(width)
        )
        self.low = nn.Sequential(
            convolution(width, 2 * width, stride=2), *(Residual(2 * width) for _ in range(3))
        )
        self.from_low = nn.Conv2d(2 * width, width, 1)
        last = nn.Conv2d(width, 6, 1)
        assert last.bias is not None
        nn.init.constant_(last.bias[:1], -4.0)  # most cells hold no face
        self.head = nn.Sequential(convolution(width, width), last)

    def forward(self, pictures: Tensor) -> FaceMap:
        """Say in each cell whether a face is there, and how it lies."""
        high = self.high(evenly_lit(pictures).contiguous(memory_format=torch.channels_last))
        low = self.from_low(self.low(high))
        cells = self.head(high + interpolate(low, size=high.shape[2:], mode="nearest"))
        return FaceMap(cells[:, 0], cells[:, 1:3], cells[:, 3], cells[:, 4:])


def evenly_lit(pictures: Tensor) -> Tensor:
    """Take brightness and contrast out of each part of a picture, about as large as a face."""
    blocks = avg_pool2d(pictures, _BLOCK)
    squares = avg_pool2d(pictures.square(), _BLOCK)
    mean, square = (_around(values) for values in (blocks, squares))
    spread = (square - mean.square()).clamp(min=0).sqrt()
    mean, spread = (
        interpolate(values, size=pictures.shape[2:], mode="bilinear", align_corners=False)
        for values in (mean, spread)
    )
    return (pictures - mean) / (spread + 2e-3 + 0.03 * mean.abs())


def _around(blocks: Tensor) -> Tensor:
    """Mean of each block and its eight neighbours; beyond the picture its border goes on."""
    return avg_pool2d(pad(blocks, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
