"""The outline finder's network: an aligned face gives the outlines of its features, and a face score.

The outlines are a point of a linear shape model (Cootes et al., *Active shape models*, CVIU 1995): the network
gives the coefficients of the model's components, so that what it draws always has the form of a face.

Its *frame* is the 112×112 crop of the ArcFace template.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from xfr_plugin.errors import InputError
from xfr_plugin.faces.landmark_network import convolution, standardised

__all__ = ["FRAME_SIDE", "OutlineFinder", "Sketch", "from_frame", "mirror_order", "to_frame"]

FRAME_SIDE = 112
"""Side of the frame in which points are given, in pixels."""

_LOPSIDED = 6.0
_LUMA = (0.299, 0.587, 0.114)


class Sketch(NamedTuple):
    """Outline points in pixels of the frame, B×K×2; their distance from the mean shape, B; face logits, B."""

    points: Tensor
    distances: Tensor
    logits: Tensor


class OutlineFinder(nn.Module):
    """Strided convolutions to 7×7, then two linear layers.

    Args:
        points: how many outline points there are (K).
        components: of the shape model (C).
        width: channels of the first layer; the number of parameters grows with its square.

    Attributes:
        mean: the mean shape in pixels of the frame, K×2.
        basis: the components, C×K×2, each scaled to one standard deviation.
        reach: greatest distance of a plausible shape from the mean: root mean square of the coefficients.
    """

    mean: Tensor
    basis: Tensor
    reach: Tensor

    def __init__(self, points: int, components: int = 40, width: int = 24) -> None:
        super().__init__()
        self.points, self.components, self.width = points, components, width
        self.register_buffer("mean", torch.zeros(points, 2))
        self.register_buffer("basis", torch.zeros(components, points, 2))
        self.register_buffer("reach", torch.tensor(2.0))
        self.features = nn.Sequential(
            convolution(1, width, 2),
            convolution(width, 2 * width, 2),
            convolution(2 * width, 2 * width),
            convolution(2 * width, 4 * width, 2),
            convolution(4 * width, 4 * width),
            convolution(4 * width, 4 * width, 2),
            convolution(4 * width, 4 * width),
            nn.Conv2d(4 * width, 2 * width, 1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
        )
        self.hidden = nn.Sequential(nn.Linear(2 * width * 49, 8 * width), nn.ReLU(), nn.Dropout(0.1))
        self.coefficients = nn.Linear(8 * width, components)
        self.score = nn.Linear(8 * width, 1)

    def forward(self, crops: Tensor) -> Sketch:
        """Sketch aligned faces; `crops` are grey, B×1×112×112, on any linear scale."""
        features = self.hidden(self.features(standardised(crops)).flatten(1))
        coefficients = self.coefficients(features)
        points = self.mean + torch.einsum("bc,ckd->bkd", coefficients, self.basis)
        return Sketch(points, coefficients.square().mean(1).sqrt(), self.score(features).squeeze(1))


def to_frame(images: Tensor) -> Tensor:
    """Bring aligned faces (N×3×H×W or grey N×1×H×W) to what the network sees: grey, N×1×112×112.

    The middle square of full height is taken; a crop that is narrower gets black sides.
    """
    luma = images.new_tensor(_LUMA)[:, None, None]
    grey = images if images.shape[1] == 1 else (images * luma).sum(1, keepdim=True)
    height, width = grey.shape[2:]
    left = _margin((height, width))
    square = pad(grey, (-left, left + height - width))
    if height != FRAME_SIDE:
        side = (FRAME_SIDE, FRAME_SIDE)
        square = interpolate(square, side, mode="bilinear", antialias=height > FRAME_SIDE)
    return square


def from_frame(points: Tensor, size: tuple[int, int]) -> Tensor:
    """Move points from the frame to the crops of `size` (height, width) that `to_frame` was given."""
    placed = (points + 0.5) * (size[0] / FRAME_SIDE) - 0.5
    return placed + placed.new_tensor([_margin(size), 0])


def mirror_order(points: Tensor) -> Tensor:
    """Which point each becomes in a mirror: `mirrored[:, order]` are the points of the mirror image.

    Found on the mean of `points` (N×K×2): pairs of points whose mirror images lie closest together.

    Raises:
        InputError: the points do not fall into pairs.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    mean = points.double().mean(0).numpy()
    mirrored = mean * [-1, 1] + [2 * mean[:, 0].mean(), 0]
    distances = cdist(mean, mirrored)
    points, order = linear_sum_assignment(distances)
    if (order[order] != points).any() or distances[points, order].max() > _LOPSIDED:
        raise InputError("the outlines of the right and the left side do not mirror each other")
    return torch.from_numpy(order)


def _margin(size: tuple[int, int]) -> int:
    """Column of the crop at which the middle square begins; negative, if it begins before."""
    return (size[1] - size[0]) // 2
