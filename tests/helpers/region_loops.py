"""Exchanged regions in the plainest words: one changed face at a time, embedded anew for every score.

What tests of evidence by intervention compare with. Only the smoothing and growing of masks are scipy's here, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter
from torch import Tensor, nn

from xfr_plugin.swaps.donors import synthetic_faces

SIZE = (56, 48)
Mask = NDArray[np.bool_]
Score = Callable[[Tensor, Tensor], float]
"""Of two faces, each C×H×W."""


class SmallFaceNet(nn.Module):
    """Faces N×C×H×W of any size to embeddings N×7."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 6, 5, stride=3)
        self.pool = nn.AdaptiveAvgPool2d((5, 4))
        self.fc = nn.Linear(120, 7)

    def forward(self, images: Tensor) -> Tensor:
        embedding: Tensor = self.fc(self.pool(torch.tanh(2 * self.conv(images - 0.5))).flatten(1))
        return embedding


def face_net(channels: int = 3) -> nn.Module:
    torch.manual_seed(2)
    return SmallFaceNet(channels).double().eval().requires_grad_(False)


def faces(count: int = 2, size: tuple[int, int] = SIZE, seed: int = 40) -> tuple[Tensor, Tensor]:
    """Probes and references, count×3×H×W in float64: synthetic faces, on which outlines are found."""
    drawn = synthetic_faces(2 * count, size, seed).double()
    return drawn[:count], drawn[count:]


def grown(mask: Mask) -> Mask:
    pixels = max(1, round(2 / 112 * len(mask)))
    larger: Mask = binary_dilation(mask, iterations=pixels)
    return larger


def with_region(face: Tensor, donor: Tensor, mask: Mask) -> Tensor:
    """The face with the donor's region: feathered, and shifted to the face's mean colour along the seam."""
    weight = gaussian_filter(mask.astype(np.float64), 1.5 / 112 * len(mask))
    seam = binary_dilation(mask, iterations=2) & ~binary_erosion(mask, border_value=1)
    colours = []
    for old, other in zip(face.numpy(), donor.numpy(), strict=True):
        shifted = other + old[seam].mean() - other[seam].mean()
        colours.append(np.clip((1 - weight) * old + weight * shifted, 0, 1))
    return torch.from_numpy(np.stack(colours))


def cosine_of(network: nn.Module) -> Score:
    def score(first: Tensor, second: Tensor) -> float:
        a, b = (network(face[None])[0].tolist() for face in (first, second))
        product = sum(x * y for x, y in zip(a, b, strict=True))
        return product / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(x * x for x in b))

    return score


def rasterized_on_cores(evidence: Sequence[float], masks: Sequence[Mask]) -> NDArray[np.float64]:
    """Map H×W: on a region by the root of the distance to the nearest pixel beside it, up to 5 pixels of 112."""
    drawn = np.zeros(masks[0].shape)
    for value, mask in zip(evidence, masks, strict=True):
        inside, others = np.argwhere(mask), np.argwhere(~mask)
        distances = [np.sqrt(((others - pixel) ** 2).sum(axis=1).min()) for pixel in inside]
        depths = [min(distance, 5 / 112 * len(mask)) ** 0.5 for distance in distances]
        for (y, x), depth in zip(inside, depths, strict=True):
            drawn[y, x] += value * depth / sum(depths)
    return drawn
